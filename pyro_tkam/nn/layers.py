"""Layers of Kolmogorov-Arnold networks: univariate functions on the edges and their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pyro.nn import pyro_method
from torch import Tensor, nn

from pyro_tkam.nn import _checks, regularizers
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.fixed import FixedEdges
from pyro_tkam.nn.forms import Form
from pyro_tkam.nn.functions import BoundEdges, EdgeStatistics
from pyro_tkam.nn.grids import check_learned
from pyro_tkam.nn.univariate import UnivariateFunctions
from pyro_tkam.ops._precision import at_least_single
from pyro_tkam.ops.bases import BasisFunctions


class KANEdges(UnivariateFunctions):
    r"""
    One function for each pair of an input and an output, :math:`(*, in) → (*, in, out)`, without
    the sum.

    :ivar coefficients: parameter, ``(in_features, num_functions, out_features)``, in the memory
        order that a layer's matrix product reads without a copy.
    :ivar base_weight: parameter, ``(out_features, in_features)``; None for polynomials.
    :ivar scale: parameter, ``(out_features, 1)``, one per output. One per edge would double the
        memory traffic of a layer without adding any function. None for polynomials.
    :ivar mask: buffer of bools, ``(out_features, in_features)``: masked edges are zero and are not
        trained.
    :ivar fixed: the edges that are closed forms, see :meth:`fix`; None if there are none.

    :param in_features: number of inputs.
    :param out_features: number of outputs.
    :param basis: name of the basis, see :class:`~pyro_tkam.nn.Basis`.
    :param extrapolation: what B-splines do outside the grid, see
        :class:`~pyro_tkam.nn.UnivariateFunctions`.
    :param options: as in that class, here with ``low=-2``, ``high=2``.

    >>> KANEdges(3, 5)(torch.randn(7, 3)).shape
    torch.Size([7, 3, 5])
    """

    fixed: FixedEdges | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: str | type[BasisFunctions] = "bspline",
        low: float = -2.0,
        high: float = 2.0,
        *,
        extrapolation: str = "linear",
        **options: Any,
    ) -> None:
        shape = (
            _checks.integer("out_features", out_features, 1),
            _checks.integer("in_features", in_features, 1),
        )
        super().__init__(
            shape, basis, low, high, extrapolation=extrapolation, fan_in=in_features, **options
        )
        # Must be contiguous: otherwise Pyro's parameter store would train a copy.
        self.coefficients = nn.Parameter(self.coefficients.detach().permute(1, 2, 0).contiguous())
        self.register_module("fixed", None)

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

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}fixed.edges" in state_dict:
            known = {} if self.fixed is None else {form.name: form for form in self.fixed.forms}
            self.fixed = FixedEdges.of_state(state_dict, f"{prefix}fixed.", known)
        elif f"{prefix}coefficients" in state_dict:
            self.fixed = None
        super()._load_from_state_dict(state_dict, prefix, *args)

    @pyro_method
    def bound(self) -> BoundEdges:
        """
        Read the parameters once and return the edges with them: a pure, picklable callable.

        As in :meth:`UnivariateFunctions.bound`; its batch shape is ``(out, in)``.
        """
        if self.fixed is None:
            return BoundEdges(**self._bound_tensors(self.mask))
        learned = self.mask & ~self.fixed.where(self.batch_shape)
        return BoundEdges(**self._bound_tensors(learned), fixed=self.fixed.bound(self.mask))

    def fix(self, forms: Mapping[tuple[int, int], tuple[Form, Sequence[float]] | None]) -> None:
        r"""
        Make edges closed forms :math:`c\,f(a s + b) + d`, in place, also edges that were masked.
        None makes an edge a learned curve again.

        :param forms: form and :math:`(a, b, c, d)` of edges ``(out, in)``.
        :raises ValueError: for an edge that the layer does not have, and for anything but four
            finite numbers.

        >>> from pyro_tkam.nn.forms import LIBRARY
        >>> layer = KANLayer(1, 1)
        >>> layer.fix({(0, 0): (LIBRARY["square"], (1.0, 0.0, 2.0, 0.0))})
        >>> layer(torch.tensor([[3.0]])).detach()
        tensor([[18.]])
        """
        entries = {} if self.fixed is None else self.fixed.entries()
        mask = self.mask.clone()
        _checks.mapping("forms", forms, "edges to forms and numbers")
        for edge, entry in forms.items():
            self.check_edge(edge)
            entries.pop(edge, None)
            if entry is not None:
                form, affine = entry
                entries[edge] = form, tuple(_checks.number("affine", float(a)) for a in affine)
                if len(affine) != 4:
                    raise ValueError(f"affine must be four numbers a, b, c, d, got {affine}")
                mask[edge] = True
        self.mask = mask
        self.fixed = FixedEdges(entries, self.coefficients) if entries else None

    def check_edge(self, edge: tuple[int, int]) -> None:
        """Check that the layer has an edge ``(out, in)``."""
        pair = isinstance(edge, tuple) and len(edge) == 2 and all(isinstance(i, int) for i in edge)
        if not pair or not all(
            0 <= i < size for i, size in zip(edge, self.batch_shape, strict=True)
        ):
            raise ValueError(f"edges must be (out, in) below {tuple(self.batch_shape)}, got {edge}")

    @torch.no_grad()
    def select(self, *index: Tensor) -> None:
        """
        Keep some edges, in place, with new parameters.

        :param index: outputs ``(out, 1)`` and inputs ``(in,)`` to keep.
        """
        if self.fixed is not None:
            # Of repeated indices, the first is the existing node, which keeps its closed forms.
            outputs, inputs = (
                {old: new for new, old in reversed([*enumerate(each.flatten().tolist())])}
                for each in index
            )
            kept = {
                (outputs[o], inputs[i]): entry
                for (o, i), entry in self.fixed.entries().items()
                if o in outputs and i in inputs
            }
            self.fixed = FixedEdges(kept, self.fixed.affine) if kept else None
        super().select(*index)

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
    A layer of a Kolmogorov-Arnold network, :math:`y_o = b_o + \sum_i φ_{o,i}(s_i)`: the edges,
    summed over the inputs.

    The product of basis values and coefficients is one matrix product. Penalties and pruning
    measure an edge by its **spread**, the standard deviation over the samples. Moving a constant
    from one edge to another, or to the bias, changes neither of them.

    :ivar bias: parameter :math:`b`, ``(out_features,)``, initially zero; None without a bias.

    :param bias: add a constant to each output.
    :param options: as in :class:`KANEdges`.

    >>> KANLayer(3, 5, low=-1.0, high=1.0, grid_size=8)(torch.randn(7, 3)).shape
    torch.Size([7, 5])
    """

    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: str | type[BasisFunctions] = "bspline",
        low: float = -2.0,
        high: float = 2.0,
        *,
        bias: bool = True,
        **options: Any,
    ) -> None:
        _checks.flag("bias", bias)
        super().__init__(in_features, out_features, basis, low, high, **options)
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if bias else None)

    def forward(self, s: Tensor) -> Tensor:
        """
        Evaluate the layer.

        :param s: shape ``(*, in_features)``.
        :returns: shape ``(*, out_features)``.
        """
        edges, s = self._bound_for(s)
        total = edges.sums(s)
        return total if self.bias is None else total + self.bias

    def statistics(self, s: Tensor) -> EdgeStatistics:
        """
        Evaluate the layer together with the means and spreads of its edges.

        :param s: samples, shape ``(N, in_features)``.
        :returns: outputs ``(N, out_features)``; means and standard deviations of the edges over the
            samples, both ``(out_features, in_features)``.
        """
        edges, s = self._bound_for(s)
        found = edges.statistics(s)
        return found if self.bias is None else found._replace(sums=found.sums + self.bias)

    def _bound_for(self, s: Tensor) -> tuple[BoundEdges, Tensor]:
        edges: BoundEdges = self.bound()
        _checks.dense("s", s)
        s = at_least_single(s)
        _checks.last_dimension("s", s, self.in_features)
        _checks.same_dtype("s", s, edges.coefficients, "the coefficients")
        return edges, s

    def regularization(
        self,
        samples: Tensor | None = None,
        *,
        l1: float = 1.0,
        entropy: float = 1.0,
        smoothness: float = 0.0,
    ) -> Tensor:
        r"""
        Return a penalty on the edges, to be added to a loss; see :meth:`KAN.regularization`.

        :param samples: arguments, shape ``(N, in_features)``; None takes equally spaced arguments
            on the grid's interval.
        :param l1: weight of the sum of the spreads.
        :param entropy: weight of the entropies of rows and columns.
        :param smoothness: weight of the integrals of squared second derivatives.
        :return: a scalar.
        :raises ValueError: as for :class:`UnivariateFunctions`.
        :raises TypeError: likewise.
        """
        weights = regularizers.PenaltyWeights.checked(l1, entropy, smoothness)
        return self.penalized(self._arguments(samples), weights)[1]

    def penalized(self, s: Tensor, weights: regularizers.PenaltyWeights) -> tuple[Tensor, Tensor]:
        """
        Return the outputs together with the penalty, from the same basis values.

        :param s: samples, shape ``(N, in_features)``.
        :param weights: weights of the penalty's terms.
        """
        edges, s = self._bound_for(s)
        found = edges.statistics(s)
        penalty = regularizers.edge_penalty(edges, found.spreads, weights)
        return found.sums if self.bias is None else found.sums + self.bias, penalty

    def prune(self, threshold: float, samples: Tensor | None = None) -> Self:
        """
        Return a copy in which edges with a spread below a threshold are masked; the bias absorbs
        their means.

        :param threshold: smallest spread to keep.
        :param samples: arguments as for :meth:`regularization`.
        :raises ValueError: for a negative threshold, one that keeps no edge, and invalid samples.
        :raises TypeError: for random weights.
        """
        check_learned(self, self.weight_names, "pruning")
        threshold = _checks.number("threshold", threshold, at_least=0)
        with torch.no_grad(), unseen(self):
            samples = self._arguments(samples)
            spreads = self.statistics(samples).spreads
        kept = spreads >= threshold
        if not bool(kept.any()):
            raise ValueError(
                f"threshold must be at most {float(spreads.max())}, the largest spread of an "
                f"edge, got {threshold:g}, which would empty the layer"
            )
        pruned = unseen_copy(self)
        pruned.keep(kept, samples)
        return pruned

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the parameters learned for each edge and output."""
        return super().weight_names + (() if self.bias is None else ("bias",))

    @torch.no_grad()
    def keep(self, kept: Tensor, samples: Tensor) -> None:
        """
        Mask the other edges, in place; the bias absorbs their means.

        :param kept: bools of shape ``(out_features, in_features)``.
        :param samples: arguments, shape ``(N, in_features)``.
        """
        removed = self.mask & ~kept
        if not bool(removed.any()):
            return
        with unseen(self):
            means = self.statistics(samples).means
        constants = torch.where(removed, means, 0.0).sum(1)
        self.mask = self.mask & kept
        self.bias = nn.Parameter(constants if self.bias is None else self.bias + constants)

    @torch.no_grad()
    def select(self, *index: Tensor) -> None:
        """
        Keep some outputs and inputs, in place, with new parameters.

        :param index: outputs ``(out, 1)`` and inputs ``(in,)`` to keep.
        """
        super().select(*index)
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias[index[0].flatten()])

    def _arguments(self, samples: Tensor | None) -> Tensor:
        """Check samples; without samples, return equally spaced arguments."""
        if samples is None:
            samples = regularizers.spaced_arguments(self.basis.placed.placed)
            samples = samples.reshape(len(samples), -1).expand(-1, self.in_features)
        regularizers.check_samples(samples, self.basis.grid)
        _checks.last_dimension("samples", samples, self.in_features)
        if samples.dim() != 2:
            raise ValueError(f"samples must have shape (N, in), got {tuple(samples.shape)}")
        return samples

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}bias")
        if saved is not None and self.bias is None:  # pruning may have made one
            self.bias = nn.Parameter(torch.empty_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)
