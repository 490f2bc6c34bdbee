"""
Kolmogorov-Arnold networks: layers of univariate functions with sums and products between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn import _checks, regularizers, structure
from pyro_tkam.nn._saved import as_tensor, from_tensor
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.forms import Form, FormLike, as_form
from pyro_tkam.nn.from_formula import layout
from pyro_tkam.nn.grids import GridUpdate, share_outside
from pyro_tkam.nn.layers import KANEdges, KANLayer
from pyro_tkam.nn.optimizers import forget_moments
from pyro_tkam.nn.univariate import UnivariateFunctions, all_or_none
from pyro_tkam.ops.bases import BasisFunctions

__all__ = ["HIDDEN_RANGES", "KAN", "OUTPUTS", "KANEdges", "KANLayer"]


def _unchanged(s: Tensor, low: float, high: float) -> Tensor:
    return s


def _sigmoid_range(s: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.sigmoid(s)


def _affine_range(s: Tensor, low: float, high: float) -> Tensor:
    smallest = s.amin(-1, keepdim=True)
    largest = s.amax(-1, keepdim=True)
    span = largest - smallest
    # Features that are all equal map to the middle.
    return low + (high - low) * torch.where(
        span > 0, (s - smallest) / torch.where(span > 0, span, 1.0), 0.5
    )


#: maps of a layer's output to the next grid's interval, by the user's name
HIDDEN_RANGES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "none": _unchanged,
    "sigmoid": _sigmoid_range,
    "affine": _affine_range,
}

#: output activations by the user's name
OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {"none": torch.clone, "sigmoid": torch.sigmoid}

#: the width of one layer of nodes: a number of sums, or numbers of sums and of products of two
Width = int | tuple[int, int]


@dataclass(frozen=True)
class Nodes:
    """
    The nodes of one layer.

    :param sums: number of nodes that are sums of edges.
    :param products: number of nodes that are products of two such sums.
    """

    sums: int
    products: int

    @classmethod
    def checked(cls, width: Any) -> Nodes:
        """Read the user's specification of a layer."""
        if not isinstance(width, tuple | list):
            return cls(_checks.integer("widths", width, 1), 0)
        if len(width) != 2:
            raise ValueError(f"widths must be ints or pairs of sums and products, got {width}")
        nodes = cls(*(_checks.integer("widths", number, 0) for number in width))
        if nodes.count == 0:
            raise ValueError(f"widths must have at least one node in each layer, got {width}")
        return nodes

    @property
    def count(self) -> int:
        """The number of nodes."""
        return self.sums + self.products

    @property
    def terms(self) -> int:
        """The number of sums of edges; a product needs two."""
        return self.sums + 2 * self.products

    @property
    def width(self) -> Width:
        """The user's specification."""
        return (self.sums, self.products) if self.products else self.sums

    def combine(self, terms: Tensor) -> Tensor:
        """Multiply the terms of products, ``(*, terms)`` to ``(*, count)``."""
        if not self.products:
            return terms
        factors = terms[..., self.sums :].unflatten(-1, (self.products, 2))
        return torch.cat((terms[..., : self.sums], factors.prod(-1)), -1)

    def to_terms(self, of_nodes: Tensor) -> Tensor:
        """Give every term the value of its node, ``(count,)`` to ``(terms,)``."""
        return torch.cat((of_nodes[: self.sums], of_nodes[self.sums :].repeat_interleave(2)))


class KAN(PyroModule):
    r"""
    A Kolmogorov-Arnold network: sums of learned univariate functions, layer by layer.

    See Liu et al. 2024; it is the generator of Raj 2025, arXiv:2506.14167, Eq. 7.

    .. math:: s^{(l+1)}_o = b^{(l)}_o + \sum_i φ^{(l)}_{o,i}(s^{(l)}_i)

    Nodes can also be products of two such sums (Liu et al. 2024, arXiv:2408.10205). Between layers,
    the layer norm comes first, then the map ``hidden_range`` to the interval of the next grid.
    Outside its grid, a B-spline continues as a straight line.

    :ivar layers: the layers, :class:`KANLayer`; each has a ``mask`` of its edges, ``(out, in)``.
    :ivar inputs: after ``prune(inputs=True)``, the input columns of the original network that this
        network reads.

    :param widths: numbers of nodes from input to output, at least two; a pair ``(sums, products)``
        makes some nodes products of two sums.
    :param basis: name of the basis, see :class:`~pyro_tkam.nn.Basis`.
    :param low: lower end of the first layer's grid.
    :param high: upper end of the first layer's grid.
    :param hidden_low: lower end of the other layers' grids.
    :param hidden_high: upper end of the other layers' grids.
    :param hidden_range: ``"none"``; ``"sigmoid"``, elementwise; or ``"affine"``, which maps the
        smallest hidden feature of a datum to ``hidden_low`` and the largest to ``hidden_high``.
    :param layer_norm: normalize hidden features.
    :param bias: add a constant to each sum.
    :param output: ``"none"`` or ``"sigmoid"`` (for images in [0, 1]).
    :param extrapolation: ``"linear"`` or ``"zero"``: what B-splines do outside their grid; see
        :class:`~pyro_tkam.nn.UnivariateFunctions`.
    :param options: as in :class:`KANLayer`, for all layers.
    :raises ValueError: for fewer than two widths, unknown names, and ``layer_norm`` or
        ``hidden_range="affine"`` with one hidden feature, which they would make constant.

    >>> KAN([81, 162, 784], basis="rbf", grid_size=20, output="sigmoid")(torch.randn(10, 81)).shape
    torch.Size([10, 784])
    >>> KAN([2, (5, 2), 1])(torch.randn(10, 2)).shape
    torch.Size([10, 1])
    """

    def __init__(
        self,
        widths: Sequence[Width],
        basis: str | type[BasisFunctions] = "bspline",
        low: float = -2.0,
        high: float = 2.0,
        *,
        hidden_low: float = -2.0,
        hidden_high: float = 2.0,
        hidden_range: str = "none",
        layer_norm: bool = False,
        bias: bool = True,
        output: str = "none",
        extrapolation: str = "linear",
        **options: Any,
    ) -> None:
        takers = (KAN.__init__, KANLayer.__init__, KANEdges.__init__, UnivariateFunctions.__init__)
        _checks.options("KAN", options, *takers)
        super().__init__()
        _checks.sequence("widths", widths, "widths")
        _checks.flag("layer_norm", layer_norm)
        self.nodes = [Nodes.checked(width) for width in widths]
        if len(self.nodes) < 2:
            raise ValueError(
                f"widths must have at least two numbers, input and output, got {list(widths)}"
            )
        if self.nodes[0].products:
            raise ValueError(f"widths must begin with a number of inputs, got {list(widths)}")
        self._to_range = _checks.known("hidden_range", hidden_range, HIDDEN_RANGES)
        self._output = _checks.known("output", output, OUTPUTS)
        hidden = [nodes.count for nodes in self.nodes[1:-1]]
        for name, needs_more in (
            ("layer_norm=True", layer_norm),
            ("hidden_range='affine'", hidden_range == "affine"),
        ):
            if needs_more and 1 in hidden:
                raise ValueError(
                    f"widths must be at least 2 in hidden layers for {name}, got {self.widths}"
                )
        self._hidden_interval = _checks.interval(hidden_low, hidden_high)
        intervals = [(low, high)] + [self._hidden_interval] * len(hidden)
        layer_options: dict[str, Any] = {"bias": bias, "extrapolation": extrapolation} | options
        self.layers = PyroModule[nn.ModuleList](
            KANLayer(before.count, after.terms, basis, *interval, **layer_options)
            for before, after, interval in zip(
                self.nodes[:-1], self.nodes[1:], intervals, strict=True
            )
        )
        norm: Callable[[int], nn.Module] = (
            PyroModule[nn.LayerNorm] if layer_norm else PyroModule[nn.Identity]
        )
        self.norms = PyroModule[nn.ModuleList](norm(width) for width in hidden)
        self.inputs = list(range(self.nodes[0].count))
        self._options = {
            "basis": basis,
            "low": low,
            "high": high,
            "hidden_low": hidden_low,
            "hidden_high": hidden_high,
            "hidden_range": hidden_range,
            "layer_norm": layer_norm,
            "output": output,
            **layer_options,
        }

    @property
    def widths(self) -> list[Width]:
        """The numbers of nodes from input to output; a pair if some nodes are products."""
        return [nodes.width for nodes in self.nodes]

    @property
    def ends_in_sigmoid(self) -> bool:
        """Whether the outputs lie in [0, 1]."""
        return bool(self._options["output"] == "sigmoid")

    def forward(self, s: Tensor) -> Tensor:
        """
        Evaluate the network.

        :param s: shape ``(*, widths[0])``.
        :returns: shape ``(*, widths[-1])``.
        :raises ValueError: for the wrong shape.
        :raises TypeError: for anything but a tensor with the dtype of the coefficients.
        """
        for number, layer in enumerate(self.layers):
            s = self._between(number, layer(s))
        return self._output(s)

    def _between(self, number: int, terms: Tensor) -> Tensor:
        """Map a layer's outputs to the next layer's inputs."""
        s = self.nodes[number + 1].combine(terms)
        if number == len(self.norms):
            return s
        return self._to_range(self.norms[number](s), *self._hidden_interval)

    def layer_inputs(self, samples: Tensor) -> Iterator[tuple[KANLayer, Tensor]]:
        """
        Yield each layer with its inputs; you may change a layer before you request the next one.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        """
        for number, layer in enumerate(self.layers):
            yield layer, samples
            if number < len(self.norms):
                samples = self._between(number, layer(samples))

    def _check_samples(self, samples: Tensor) -> Tensor:
        regularizers.check_samples(samples, self.layers[0].basis.grid)
        if samples.dim() != 2:
            raise ValueError(f"samples must have shape (N, in), got {tuple(samples.shape)}")
        _checks.last_dimension("samples", samples, self.nodes[0].count)
        return samples

    @property
    def has_independent_nodes(self) -> bool:
        """Whether a hidden feature affects only the sums of its own edges."""
        elementwise = self._to_range is not _affine_range
        return elementwise and not any(isinstance(norm, nn.LayerNorm) for norm in self.norms)

    @property
    def is_plain(self) -> bool:
        """Whether hidden features go to the next layer unchanged."""
        return self._to_range is _unchanged and all(
            isinstance(norm, nn.Identity) for norm in self.norms
        )

    # Grids

    def update_grid(
        self,
        samples: Tensor,
        *,
        grid_size: int | None = None,
        uniform_share: float = 0.05,
        widen: bool | Sequence[bool] = True,
        shrink: bool = True,
        max_change: float = math.inf,
        optimizer: Any = None,
    ) -> tuple[GridUpdate, ...]:
        """
        Move the grid of each layer in turn to its inputs, computed with the already updated layers,
        and refit the coefficients.

        Each input of a layer gets its own grid. Hidden grids whose inputs are bounded by
        ``hidden_range`` keep their ends. If one layer raises an error, no layer changes.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :param grid_size: size of the new grids, see :class:`~pyro_tkam.nn.Basis`; None keeps it. A
            larger size refines the functions.
        :param uniform_share: see :meth:`UnivariateFunctions.update_grid`.
        :param widen: let the intervals grow to contain all samples; one value for all layers or one
            for each.
        :param shrink: let the intervals shrink to the range of the samples.
        :param max_change: see that method.
        :param optimizer: the optimizer in use, if the network is in training. Its state for the
            moved coefficients is reset, because it refers to other coordinates. After a refinement
            each optimizer forgets by itself what it holds in the old shape, at its next step.
        :return: one update per layer; ``outside`` is the share of the layer's inputs that lay
            outside the old grid.
        :raises ValueError: see :meth:`UnivariateFunctions.update_grid`.
        :raises TypeError: likewise.

        >>> network = KAN([3, 5, 2])
        >>> updates = network.update_grid(10 * torch.rand(100, 3))
        >>> [update.accepted for update in updates], network.outside(torch.full((1, 3), 5.0))[0]
        ([True, True], 0.0)
        """
        self._check_samples(samples)
        if not isinstance(widen, bool):
            _checks.sequence("widen", widen, "Booleans")
            for each in widen:
                _checks.flag("every element of widen", each)
        widths = [widen] * len(self.layers) if isinstance(widen, bool) else list(widen)
        _checks.flag("shrink", shrink)
        if len(widths) != len(self.layers):
            raise ValueError(
                f"widen must be a bool or one bool for each of {len(self.layers)} layers, got "
                f"{widen}"
            )
        if optimizer is not None:
            forget_moments(optimizer, [])  # an error before any effect
        updates: list[GridUpdate] = []
        with torch.no_grad(), unseen(self), all_or_none(self):
            for layer, inputs in self.layer_inputs(samples):
                is_free = not updates or self._to_range is _unchanged
                updates.append(
                    layer.update_grid(
                        inputs,
                        grid_size=grid_size,
                        uniform_share=uniform_share,
                        widen=widths[len(updates)] and is_free,
                        shrink=shrink and is_free,
                        max_change=max_change,
                    )
                )
        if optimizer is not None:
            forget_moments(optimizer, [each.parameter for each in updates if each.moved])
        return tuple(updates)

    def outside(self, samples: Tensor) -> tuple[float, ...]:
        """
        Return the share of each layer's inputs that lies outside its grid.

        :param samples: inputs of the network, shape ``(N, widths[0])``.

        >>> KAN([1, 1]).outside(torch.tensor([[0.0], [1.0], [5.0], [-9.0]]))
        (0.5,)
        """
        self._check_samples(samples)
        with torch.no_grad(), unseen(self):
            return tuple(
                share_outside(layer.basis.placed, inputs)
                for layer, inputs in self.layer_inputs(samples)
            )

    # Sizes, penalty, structure

    def sizes(self, samples: Tensor, kind: str = "spread") -> tuple[Tensor, ...]:
        r"""
        Measure every edge.

        ``"spread"`` is the standard deviation over the samples. ``"attribution"`` is the share of
        the outputs. Each output starts with a score of one. The score of node :math:`o` goes back
        to its edges in proportion to their spreads :math:`σ`, :math:`a_{oi} = a_o σ_{oi} /
        \sqrt{\sum_j σ_{oj}^2}`. The score of an earlier node is :math:`a_i^2 = \sum_o a_{oi}^2`.
        (If the edges are uncorrelated, squared scores are shares of variances.)

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :param kind: ``"spread"`` or ``"attribution"``.
        :return: for each layer a tensor of shape ``(out, in)``.

        >>> [size.shape for size in KAN([3, 5, 2]).sizes(torch.randn(100, 3))]
        [torch.Size([5, 3]), torch.Size([2, 5])]
        """
        _checks.known("kind", kind, {"spread": 0, "attribution": 0})
        spreads = self._spreads(samples)
        return spreads if kind == "spread" else self._attributions(spreads)[0]

    def input_scores(self, samples: Tensor) -> Tensor:
        """
        Return the share of the outputs for which each input accounts, from 0 to 1, shape
        ``(widths[0],)``.

        The shares are the shares of variance that :meth:`sizes` passes back; they sum to one.

        :param samples: inputs of the network, shape ``(N, widths[0])``.

        >>> float(KAN([3, 5, 2]).input_scores(torch.randn(100, 3)).sum().round(decimals=4))
        1.0
        """
        shares = self._attributions(self._spreads(samples))[1].square()
        total = shares.sum()
        return shares / torch.where(total > 0, total, 1.0)

    @torch.no_grad()
    def _spreads(self, samples: Tensor) -> tuple[Tensor, ...]:
        self._check_samples(samples)
        with unseen(self):
            return tuple(
                layer.statistics(inputs).spreads for layer, inputs in self.layer_inputs(samples)
            )

    def _attributions(self, spreads: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
        """
        Propagate the outputs' scores backward; return the scores of the edges and of the inputs.
        """
        found: list[Tensor] = []
        scores = spreads[-1].new_ones(self.nodes[-1].count)
        for nodes, each in zip(reversed(self.nodes[1:]), reversed(spreads), strict=True):
            total = each.norm(dim=1, keepdim=True)
            shares = each / torch.where(total > 0, total, 1.0)
            found.append(nodes.to_terms(scores).unsqueeze(-1) * shares)
            scores = found[-1].norm(dim=0)
        return tuple(reversed(found)), scores

    def regularization(
        self,
        samples: Tensor,
        *,
        l1: float = 1.0,
        entropy: float = 1.0,
        smoothness: float = 0.0,
    ) -> Tensor:
        r"""
        Return a penalty on the edges, to be added to a loss. It favors few edges and small ones.

        With the spreads :math:`σ_{oi}` of a layer's edges over the samples, the penalty is the sum
        over layers of

        .. math::
            λ_1 \sum_{oi} σ_{oi}
            + λ_2 \Big[\sum_o p_o H(p_{i|o}) + \sum_i p_i H(p_{o|i})\Big]
            + λ_3 \sum_{oi} \int φ_{oi}''(s)^2 ds,
            \quad p_{oi} = \frac{σ_{oi}}{\sum σ}

        (the first two terms after Liu et al. 2024, arXiv:2404.19756, with spreads, so that
        constants don't count; the entropies of rows and columns are weighted by their shares). The
        third term smooths any basis, by quadrature.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :param l1: :math:`λ_1`.
        :param entropy: :math:`λ_2`.
        :param smoothness: :math:`λ_3`.
        :return: a scalar.
        :raises ValueError: for ``smoothness`` of splines of degree 1, which have no second
            derivative, for empty samples or samples that are not finite, and for weights that are
            not finite.
        :raises TypeError: for weights that are not numbers.

        >>> KAN([3, 5, 2]).regularization(torch.randn(100, 3)).shape
        torch.Size([])
        """
        return self.penalized(samples, l1=l1, entropy=entropy, smoothness=smoothness)[1]

    def penalized(
        self,
        samples: Tensor,
        *,
        l1: float = 1.0,
        entropy: float = 1.0,
        smoothness: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """
        Evaluate the network together with :meth:`regularization`. Both use the same basis values,
        which is cheaper than two separate calls.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :param l1: as in that method.
        :param entropy: as in that method.
        :param smoothness: as in that method.
        :return: outputs ``(N, widths[-1])`` and the penalty.
        """
        weights = regularizers.PenaltyWeights.checked(l1, entropy, smoothness)
        s = self._check_samples(samples)
        penalties: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            terms, penalty = layer.penalized(s, weights)
            s = self._between(number, terms)
            penalties.append(penalty)
        return self._output(s), torch.stack(penalties).sum()

    def prune(
        self,
        samples: Tensor,
        *,
        nodes: float = 0.01,
        edges: float = 0.03,
        inputs: bool = False,
    ) -> KAN:
        """
        Return a smaller network without edges and hidden nodes that have a small share of the
        outputs.

        Shares are the attributions of :meth:`sizes`. The mean of a removed edge moves into the bias
        of its sum, so removing an edge that is constant on the samples changes nothing. The largest
        edge into a remaining node always stays. Removed edges between remaining nodes are masked,
        so training does not bring them back. With layer norm or ``hidden_range="affine"``, each
        node acts on the others in its layer, so all nodes stay.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :param nodes: smallest attribution of a hidden node to keep: the root of the sum of squared
            attributions of its outgoing edges.
        :param edges: smallest attribution of an edge to keep.
        :param inputs: also remove inputs that no edge reads; :attr:`inputs` lists the columns that
            the smaller network takes.
        :raises ValueError: for negative thresholds, and if no node of a layer would stay, as for a
            network that is constant on the samples.
        :raises TypeError: for random weights.

        >>> network, x = KAN([3, 5, 1]), torch.randn(100, 3)
        >>> network.layers[1].mask[0, 3:] = False
        >>> network.prune(x).widths
        [3, 3, 1]
        """
        return structure.pruned(self, samples, nodes, edges, inputs)

    def sparse_start(self, samples: Tensor) -> KAN:
        """
        Return a network of the same widths with a new start: each sum reads few inputs, as lines.

        Inputs and sums are paired at random until each is in a pair. The edge of a pair is a line
        with mean 0 and spread 1 over the samples; all other edges are zero, but train. Masked and
        fixed edges, and inputs that are constant over the samples, are in no pair. If the target is
        a product of many inputs, sums of all inputs give a fit no direction, because the product is
        uncorrelated with each of them. Try a few starts, and keep the one that fits best.

        :param samples: inputs of the network, shape ``(N, widths[0])``.
        :raises ValueError: for functions with a constraint, and inputs that are all equal.
        :raises TypeError: for random weights.

        >>> network, x = KAN([3, 3, 1]), torch.randn(100, 3)
        >>> (network.sparse_start(x).sizes(x)[0] > 1e-6).sum()
        tensor(3)
        """
        self._check_samples(samples)
        return structure.with_sparse_start(self, samples)

    def expand(self, widths: Sequence[Width]) -> KAN:
        """
        Return a wider network that computes the same function: outgoing edges of new nodes start at
        zero.

        :param widths: widths of the new network, none below the old ones.
        :raises ValueError: for smaller widths, other inputs or outputs, and networks in which a
            node acts on the others of its layer.

        >>> network, x = KAN([3, 5, 1]), torch.randn(100, 3)
        >>> torch.equal(network.expand([3, (7, 2), 1])(x), network(x))
        True
        """
        _checks.sequence("widths", widths, "widths")
        return structure.expanded(self, [Nodes.checked(width) for width in widths])

    def deepen(self, samples: Tensor | None = None) -> KAN:
        """
        Return a network with one more layer at the end that computes the same function: an
        identity, which B-splines represent exactly.

        :param samples: inputs of the network that determine the new grid; None takes the hidden
            interval.
        :raises ValueError: for any basis but B-splines that continue as lines, and for layer norm
            or a ``hidden_range``, which would act on the new hidden features.

        >>> network, x = KAN([3, 5, 1]), torch.randn(100, 3)
        >>> deeper = network.deepen(x)
        >>> deeper.widths, torch.allclose(deeper(x), network(x), atol=1e-5)
        ([3, 5, 1, 1], True)
        """
        if samples is not None:
            self._check_samples(samples)
        return structure.deepened(self, samples)

    def fix(
        self,
        edges: Mapping[tuple[int, int, int], FormLike | FixedForm | None],
        samples: Tensor | None = None,
    ) -> KAN:
        r"""
        Return a network in which some edges are closed forms :math:`c\,f(a s + b) + d`, whose
        parameters train like all others.

        :param edges: maps an edge ``(layer, out, in)`` to a form, which is fitted to the current
            edge; to a pair of a form and :math:`(a, b, c, d)`; or to None, which makes the edge a
            spline again.
        :param samples: inputs of the network, shape ``(N, widths[0])``, at which the forms are
            fitted; None takes equally spaced arguments on each edge's grid.
        :raises ValueError: for an edge that the network does not have and unknown forms.

        >>> KAN([2, 5, 1]).fix({(1, 0, 3): ("x^2", (1.0, 0.0, 1.0, 0.0))}).fixed
        {(1, 0, 3): 'square'}
        """
        _checks.mapping("edges", edges, "edges to forms")
        for edge in edges:
            if not isinstance(edge, tuple) or len(edge) != 3 or not 0 <= edge[0] < len(self.layers):
                raise ValueError(
                    f"edges must be (layer, out, in) with a layer below {len(self.layers)}, got "
                    f"{edge}"
                )
        if samples is not None:
            self._check_samples(samples)
        fixed = unseen_copy(self)
        inputs: dict[int, Tensor] = {}
        if samples is not None:
            with torch.no_grad(), unseen(self):
                inputs = {i: s for i, (_, s) in enumerate(self.layer_inputs(samples))}
        for (number, output, source), given in edges.items():
            layer: KANLayer = fixed.layers[number]
            layer.check_edge((output, source))
            entry = _as_entry(layer, (output, source), given, inputs.get(number))
            layer.fix({(output, source): entry})
        return fixed

    @property
    def fixed(self) -> dict[tuple[int, int, int], str]:
        """The names of the closed forms, by edges ``(layer, out, in)``."""
        return {
            (number, *edge): form.name
            for number, layer in enumerate(self.layers)
            if layer.fixed is not None
            for edge, (form, _) in layer.fixed.entries().items()
        }

    @classmethod
    def from_formula(
        cls, formula: Any, symbols: Sequence[str] | None = None, **options: Any
    ) -> KAN:
        """
        Make the network that computes a formula, in float64. Its functions become forms on the
        edges, its products of two become nodes, and its numbers become parameters.

        :param formula: text that :func:`~pyro_tkam.nn.parse_expression` reads or a SymPy
            expression; a sequence of them for several outputs.
        :param symbols: the inputs, in order; None takes the symbols of the formula, sorted by name.
        :param options: options of :class:`KAN`; they matter if an edge becomes a spline again.
        :raises ValueError: for text that is not a formula, unknown symbols, numbers that are not
            real, and options with which the network would compute something else.
        :raises ImportError: without ``sympy``; names the extra to install.

        >>> net = KAN.from_formula("exp(sin(pi*x) + y**2)", ["x", "y"])
        >>> net.widths, net(torch.tensor([[0.5, 1.0]], dtype=torch.double)).log()
        ([2, 1, 1], tensor([[2.]], dtype=torch.float64, grad_fn=<LogBackward0>))
        """
        for name, needed in _OF_FORMULAS.items():
            if options.get(name, needed) != needed:
                raise ValueError(
                    f"{name} must be {needed!r} in a network that computes a formula, got "
                    f"{options[name]!r}"
                )
        plan, names = layout(formula, symbols)
        counts = [sum(len(node.sums) == 1 for node in nodes) for nodes in plan.layers[1:]]
        widths = [(n, len(nodes) - n) for n, nodes in zip(counts, plan.layers[1:], strict=True)]
        net = cls([len(names), *widths], **options).double()
        for layer, below, nodes in zip(net.layers, plan.layers[:-1], plan.layers[1:], strict=True):
            sums = [total for node in nodes for total in node.sums]
            places = {id(node): i for i, node in enumerate(below)}
            forms = {
                (output, places[id(node)]): (form, (scale, shift, factor, 0.0))
                for output, total in enumerate(sums)
                for factor, form, scale, shift, node in total.edges
            }
            mask = torch.zeros_like(layer.mask)
            for edge in forms:
                mask[edge] = True
            layer.mask = mask
            layer.fix(forms)
            layer.bias.data = layer.coefficients.new_tensor([total.constant for total in sums])
        return net

    # States

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], **options: Any) -> KAN:
        """
        Make the network that a state dict describes, with its widths, grids, masks and formulas.

        :param state: the result of ``network.state_dict()``.
        :param options: options of :class:`KAN` that replace the saved ones; a custom basis must be
            given.
        :raises ValueError: for a state that does not describe a network.

        >>> x = torch.randn(100, 3)
        >>> network = KAN([3, 5, 2]).prune(x)
        >>> torch.equal(KAN.from_state_dict(network.state_dict())(x), network(x))
        True
        """
        _checks.mapping("state", state, "names to tensors")
        if "configuration" not in state:
            raise ValueError(
                "state must be the state dict of a KAN with its entry 'configuration', got keys "
                f"{list(state)[:5]}"
            )
        saved = from_tensor(state["configuration"])
        inputs = saved.pop("inputs")
        with torch.random.fork_rng(devices=[]):
            network = cls(**(saved | options))
        network.inputs = inputs
        network.to(state["layers.0.coefficients"])
        network.load_state_dict(state)
        return network

    def _save_to_state_dict(
        self, destination: dict[str, Tensor], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        basis = self._options["basis"]
        saved = {
            **self._options,
            "basis": basis if isinstance(basis, str) else None,
            "widths": self.widths,
            "inputs": self.inputs,
        }
        destination[f"{prefix}configuration"] = as_tensor(saved)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        state_dict.pop(f"{prefix}configuration", None)
        super()._load_from_state_dict(state_dict, prefix, *args)


#: options of a network that adds and composes its functions, and nothing else
_OF_FORMULAS = {"bias": True, "hidden_range": "none", "layer_norm": False, "output": "none"}

#: a form with a, b, c, d
FixedForm = tuple[FormLike, Sequence[float]]


def _as_entry(
    layer: KANLayer,
    edge: tuple[int, int],
    given: FormLike | FixedForm | None,
    samples: Tensor | None,
) -> tuple[Form, Sequence[float]] | None:
    """Return form and affine parameters; if only a form is given, fit it to the current edge."""
    if given is None:
        return None
    if isinstance(given, tuple):
        return as_form(given[0]), given[1]
    form = as_form(given)
    own = None if samples is None else samples[:, edge[1]]
    [best] = layer.symbolic(edge, own, library=[form], num_candidates=1)
    outer, inner, shift, offset = best.parameters
    return form, (inner, shift, outer, offset)
