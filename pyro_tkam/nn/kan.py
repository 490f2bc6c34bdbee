"""Kolmogorov-Arnold networks: layers of univariate functions on the edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn import _checks, pruning
from pyro_tkam.nn._unseen import unseen
from pyro_tkam.nn.grids import GridUpdate
from pyro_tkam.nn.univariate import BoundFunctions, UnivariateFunctions, all_or_none
from pyro_tkam.ops._precision import at_least_single
from pyro_tkam.ops.bases import BasisFunctions


class KANEdges(UnivariateFunctions):
    r"""
    One function for every pair of an input and an output, :math:`(*, in) → (*, in, out)`, not
    summed.

    :ivar coefficients: parameter, ``(in_features, num_functions, out_features)``, the order of
        memory that the matrix product of a layer reads without a copy.
    :ivar base_weight: parameter, ``(out_features, in_features)``; None for polynomials.
    :ivar scale: parameter, ``(out_features, 1)``: one for each output, since one for each edge
        would double the memory traffic of a layer and adds no function to it; None for polynomials.

    :param in_features: number of inputs.
    :param out_features: number of outputs.
    :param basis: name of the basis, see :class:`~pyro_tkam.nn.Basis`.
    :param options: as in :class:`~pyro_tkam.nn.UnivariateFunctions`, here with ``low=-2``,
        ``high=2``.

    >>> KANEdges(3, 5)(torch.randn(7, 3)).shape
    torch.Size([7, 3, 5])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: str | type[BasisFunctions] = "rbf",
        low: float = -2.0,
        high: float = 2.0,
        **options: Any,
    ) -> None:
        shape = (
            _checks.integer("out_features", out_features, 1),
            _checks.integer("in_features", in_features, 1),
        )
        super().__init__(shape, basis, low, high, fan_in=in_features, **options)
        # Contiguous, or Pyro's parameter store would train a copy of it.
        self.coefficients = nn.Parameter(self.coefficients.detach().permute(1, 2, 0).contiguous())

    @property
    def in_features(self) -> int:
        """The number of inputs."""
        return self.batch_shape[1]

    @property
    def out_features(self) -> int:
        """The number of outputs."""
        return self.batch_shape[0]

    def _scale_shape(self) -> tuple[int, ...]:
        return (self.out_features, 1)

    def _in_bank_order(self, coefficients: Tensor) -> Tensor:
        return coefficients.permute(2, 0, 1)

    def _from_bank_order(self, coefficients: Tensor) -> Tensor:
        return coefficients.permute(1, 2, 0).contiguous()

    def edges(self, s: Tensor) -> Tensor:
        """Evaluate every edge, ``(*, in_features)`` to ``(*, in_features, out_features)``."""
        _checks.last_dimension("s", s, self.in_features)
        return self.bound()(s.unsqueeze(-2)).mT

    def forward(self, s: Tensor) -> Tensor:
        """
        Evaluate every edge.

        :param s: shape ``(*, in_features)``.
        :returns: shape ``(*, in_features, out_features)``.
        """
        return self.edges(s)


class KANLayer(KANEdges):
    r"""
    A layer of a Kolmogorov-Arnold network, :math:`y_o = \sum_i φ_{o,i}(s_i)`: the edges, summed
    over the inputs.

    Basis values times coefficients is one matrix product. Parameters and options are those of
    :class:`KANEdges`.

    >>> KANLayer(3, 5, basis="bspline", low=-1.0, high=1.0, grid_size=8)(torch.randn(7, 3)).shape
    torch.Size([7, 5])
    """

    def forward(self, s: Tensor) -> Tensor:
        """
        Evaluate the layer.

        :param s: shape ``(*, in_features)``.
        :returns: shape ``(*, out_features)``.
        """
        _checks.last_dimension("s", s, self.in_features)
        return sum_edges(self.bound(), s)


def sum_edges(edges: BoundFunctions, s: Tensor) -> Tensor:
    """
    Sum functions of a bank of shape ``(out, in)`` over the inputs, by matrix products.

    :param edges: the bank; its scale has shape ``(out, 1)``.
    :param s: shape ``(*, in)``.
    :returns: shape ``(*, out)``.
    """
    s = at_least_single(s)
    _checks.same_dtype("s", s, edges.coefficients, "the coefficients")
    total = edges.basis.edge_sum(s, edges.coefficients)
    if edges.scale is not None:
        total = total * edges.scale.squeeze(-1)
    if edges.base_weight is not None:
        total = total + nn.functional.linear(edges.activation(s), edges.base_weight)
    return total


def _unchanged(s: Tensor, low: float, high: float) -> Tensor:
    return s


def _sigmoid_range(s: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.sigmoid(s)


def _affine_range(s: Tensor, low: float, high: float) -> Tensor:
    smallest, largest = s.amin(-1, keepdim=True), s.amax(-1, keepdim=True)
    span = largest - smallest
    # Equal features go to the middle.
    return low + (high - low) * torch.where(
        span > 0, (s - smallest) / torch.where(span > 0, span, 1.0), 0.5
    )


#: maps of a layer's output to the next grid's interval, by the name that users give
HIDDEN_RANGES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "none": _unchanged,
    "sigmoid": _sigmoid_range,
    "affine": _affine_range,
}

#: output activations by the name that users give
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {"none": torch.clone, "sigmoid": torch.sigmoid}


class KAN(PyroModule):
    r"""
    A Kolmogorov-Arnold network (Liu et al. 2024; the generator of Raj 2025, arXiv:2506.14167, Eq.
    7).

    .. math:: s^{(l+1)}_o = \sum_i φ^{(l)}_{o,i}(s^{(l)}_i)

    Between layers, in this order: layer norm, then the map of ``hidden_range`` to the next grid's
    interval.

    :param widths: numbers of features from input to output, at least two.
    :param basis: name of the basis, see :class:`~pyro_tkam.nn.Basis`.
    :param low: lower end of the first layer's grid.
    :param high: upper end of the first layer's grid.
    :param hidden_low: lower end of the other layers' grids.
    :param hidden_high: upper end of the other layers' grids.
    :param hidden_range: ``"none"``; ``"sigmoid"``, elementwise; or ``"affine"``, which takes the
        smallest hidden feature of a datum to ``hidden_low`` and the largest to ``hidden_high``.
    :param layer_norm: normalize hidden features.
    :param output: ``"none"`` or ``"sigmoid"`` (for images in [0, 1]).
    :param options: as in :class:`KANLayer`, for all layers.
    :raises ValueError: for fewer than two widths, unknown names, or ``hidden_range="affine"`` with
        one hidden feature.

    >>> KAN([81, 162, 784], basis="rbf", grid_size=20, output="sigmoid")(torch.randn(10, 81)).shape
    torch.Size([10, 784])
    """

    def __init__(
        self,
        widths: Sequence[int],
        basis: str | type[BasisFunctions] = "rbf",
        low: float = -2.0,
        high: float = 2.0,
        *,
        hidden_low: float = -2.0,
        hidden_high: float = 2.0,
        hidden_range: str = "none",
        layer_norm: bool = True,
        output: str = "none",
        **options: Any,
    ) -> None:
        super().__init__()
        self.widths = [_checks.integer("widths", width, 1) for width in widths]
        if len(self.widths) < 2:
            raise ValueError(
                f"widths must have at least two numbers, input and output, got {list(widths)}"
            )
        self._to_range = _checks.known("hidden_range", hidden_range, HIDDEN_RANGES)
        self._output = _checks.known("output", output, OUTPUTS)
        hidden = self.widths[1:-1]
        if hidden_range == "affine" and 1 in hidden:
            raise ValueError(
                "widths must be at least 2 in hidden layers for hidden_range='affine', got "
                f"{self.widths}"
            )
        self._hidden_interval = _checks.interval(hidden_low, hidden_high)
        intervals = [(low, high)] + [self._hidden_interval] * len(hidden)
        self.layers = PyroModule[nn.ModuleList](
            KANLayer(fan_in, fan_out, basis, *interval, **options)
            for fan_in, fan_out, interval in zip(
                self.widths[:-1], self.widths[1:], intervals, strict=True
            )
        )
        norm: Callable[[int], nn.Module] = (
            PyroModule[nn.LayerNorm] if layer_norm else PyroModule[nn.Identity]
        )
        self.norms = PyroModule[nn.ModuleList](norm(width) for width in hidden)

    def update_grid(self, samples: Tensor, **options: Any) -> tuple[GridUpdate, ...]:
        """
        Update the grid of every layer in turn, with the inputs that it gets from the updated layers
        before.

        Each input of a layer gets a grid of its own. The interval of the first layer stays; those
        of the others are widened to hold their inputs where ``hidden_range`` does not bound them.
        Where it raises at one layer, none has changed.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :param options: as in :meth:`KANLayer.update_grid`, except for ``widen``.
        :return: one for each layer.
        :raises ValueError: see :meth:`KANLayer.update_grid`.
        :raises TypeError: likewise.

        >>> [update.accepted for update in KAN([3, 5, 2]).update_grid(torch.randn(100, 3))]
        [True, True]
        """
        updates: list[GridUpdate] = []
        with torch.no_grad(), unseen(self), all_or_none(self):
            for layer, inputs in self.layer_inputs(samples):
                widen = bool(updates) and self._to_range is _unchanged
                updates.append(layer.update_grid(inputs, widen=widen, **options))
        return tuple(updates)

    def layer_inputs(self, samples: Tensor) -> Iterator[tuple[KANLayer, Tensor]]:
        """
        Yield every layer with its inputs; a layer may be changed before the next is asked for.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        """
        for layer, norm in zip(self.layers, [*self.norms, None], strict=True):
            yield layer, samples
            if norm is not None:
                samples = self._to_range(norm(layer(samples)), *self._hidden_interval)

    @property
    def has_independent_nodes(self) -> bool:
        """Whether a hidden feature changes nothing but what its own edges add up to."""
        elementwise = self._to_range is not _affine_range
        return elementwise and not any(isinstance(norm, nn.LayerNorm) for norm in self.norms)

    def regularization(self, samples: Tensor | None = None, **options: float) -> Tensor:
        """
        Return the sum of the layers' penalties.

        :param samples: inputs of the network, shape ``(N, widths[0])``; None measures every
            function on the interval of its grid.
        :param options: as in :meth:`KANLayer.regularization`.
        :return: a scalar.
        :raises ValueError: see there.
        """
        inputs = (
            ((layer, None) for layer in self.layers)
            if samples is None
            else self.layer_inputs(samples)
        )
        return torch.stack([layer.regularization(s, **options) for layer, s in inputs]).sum()

    def prune(self, threshold: float, samples: Tensor | None = None) -> KAN:
        """
        Return a smaller network without the edges of a mean absolute value below a threshold.

        A hidden node goes when all edges that leave it have gone. Layer norm and
        ``hidden_range="affine"`` let a node act on the others of its layer: then all nodes stay.
        Edges between nodes that stay become zero; no mask holds them there: further training may
        bring them back. Where what goes contributed nothing, the outputs stay equal within
        rounding. A node that no edge enters stays if edges leave it: it is a constant, which the
        next layer adds, and layers have no bias to take it over. Inputs stay too, read or not.

        :param threshold: smallest mean absolute value of an edge to keep.
        :param samples: inputs as for :meth:`regularization`.
        :raises ValueError: for a negative threshold, and for one that empties a layer.
        :raises TypeError: for weights that are random.

        >>> KAN([3, 20, 2], layer_norm=False).prune(0.02).widths[0]
        3
        """
        with unseen(self):
            return pruning.prune_network(self, threshold, samples)

    def forward(self, s: Tensor) -> Tensor:
        """
        Evaluate the network.

        :param s: shape ``(*, widths[0])``.
        :returns: shape ``(*, widths[-1])``.
        """
        *hidden, last = self.layers
        for layer, norm in zip(hidden, self.norms, strict=True):
            s = self._to_range(norm(layer(s)), *self._hidden_interval)
        return self._output(last(s))
