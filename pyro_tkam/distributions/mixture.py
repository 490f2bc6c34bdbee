"""Mixtures of exponentially tilted priors with an exact inverse CDF."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Categorical

from pyro_tkam._checks import share
from pyro_tkam.distributions.coordinates import coordinate_for
from pyro_tkam.distributions.references import Reference
from pyro_tkam.distributions.tabulated import Tabulated
from pyro_tkam.distributions.tilted import ExponentiallyTilted, merged
from pyro_tkam.ops._arguments import dense, shape
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import aligned
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.table import Table, tabulate


class TiltedMixture(Tabulated):
    """
    A mixture of univariate tilted densities, which is also univariate.

    ``p(z) = Σ_k w_k p_k(z)`` with ``w = softmax(logits)`` (Raj 2025, arXiv:2506.14167, Eq. 12). Its
    CDF ``F = Σ_k w_k F_k`` is continuous, so draws are ``F^{-1}(u)``, with pathwise gradients in
    the weights and in the components, at a cost that does not depend on the number of components.
    (The paper draws a component first, Eq. 13; see :meth:`sample_component`.) Components on
    different intervals are mixed on the smallest interval that contains them all.

    :param logits: unnormalized log weights, shape ``(*batch, K)``; minus infinity leaves a
        component out.
    :param components: tilted densities of batch shape ``(*batch, K)``.
    :param validate_args: whether to check values given to ``log_prob``, ``cdf`` and ``icdf``.
    :raises ValueError: for logits that are NaN or plus infinity, logits of one mixture that are all
        minus infinity, or logits whose last dimension differs from the components'.
    :raises TypeError: for components that are not :class:`ExponentiallyTilted`, and mixed dtypes.

    >>> components = ExponentiallyTilted(lambda z: torch.tensor([-8.0, 8.0]) * z)
    >>> mixture = TiltedMixture(torch.zeros(2), components)
    >>> print(f"{mixture.mean:.4f} {mixture.icdf(torch.tensor(0.5)):.4f}")
    0.5000 0.5000
    >>> mixture.responsibilities(torch.tensor(0.9)).argmax()
    tensor(1)
    """

    _shared: ClassVar[tuple[str, ...]] = (*Tabulated._shared, "log_weights", "components")

    @in_full_precision
    def __init__(
        self, logits: Tensor, components: ExponentiallyTilted, *, validate_args: bool | None = None
    ) -> None:
        check_weights(logits, components)
        _check_shape(logits, components)
        self.components = components
        self.log_weights = logits.log_softmax(-1)
        batch_shape = torch.broadcast_shapes(logits.shape, components.batch_shape)[:-1]
        self.low = _last_removed(components.low, torch.amin)
        self.high = _last_removed(components.high, torch.amax)
        super().__init__(batch_shape, validate_args=validate_args)
        if self._has_one_grid:
            self._coordinate = components._coordinate.without_last()
            self._table = components._table.mixed(self.weights)
        else:
            self._table = self._tabulate()

    @property
    def weights(self) -> Tensor:
        """Weights ``w``, shape ``(*batch, K)``."""
        return self.log_weights.exp()

    @property
    def reference(self) -> Reference:
        """The reference density of the components."""
        return self.components.reference

    @property
    def _has_one_grid(self) -> bool:
        """Whether all components have the same cells."""
        edges = self.components._table.edges
        return edges.dim() == 1 or edges.shape[-1] == 1

    def _tabulate(self) -> Table:
        """Tabulate on the hull of intervals that differ between components."""
        components = self.components
        rank = len(self.batch_shape)
        low, high = (aligned(end[None], rank)[0] for end in (self.low, self.high))
        ends = torch.stack(torch.broadcast_tensors(components.low, components.high))
        ends = ends if ends.dim() > 1 else ends[:, None]
        knots = components._breakpoints()
        cuts = [
            points.movedim(-1, 1).flatten(0, 1) for points in (ends, knots) if points is not None
        ]
        rule = components._default_rule(low.dtype)
        part = components.reference.singular_part
        singular = None if part is None else lambda z: part(z[..., None]).logsumexp(-1)
        self._coordinate = coordinate_for(singular, low, high)
        density = self._coordinate.pulled_back(self._log_density)
        edges = self._coordinate.cuts(merged(cuts, rank))
        terms = components._magnitude
        magnitude = None if terms is None else terms.expand(components.batch_shape).amax(-1)
        return tabulate(density, *self._coordinate.ends, self.batch_shape, rule, edges, magnitude)

    def _log_density(self, z: Tensor) -> Tensor:
        return self._joint(z).logsumexp(-1)

    def _joint(self, z: Tensor) -> Tensor:
        """
        Return ``log w_k + log p_k(z)`` for ``z`` inside the interval, with a last dimension of
        components.
        """
        if self._has_one_grid:  # then inside one is inside all
            shift = self.log_weights - self.components.log_normalizer
            return self.components._unnormalized(z[..., None]) + shift
        return self.components._masked_log_prob(z[..., None]) + self.log_weights

    @in_full_precision
    def component_log_prob(self, value: Tensor) -> Tensor:
        """
        Return the normalized ``log p_k(z)`` of every component; it is minus infinity outside the
        component's interval.

        :param value: shape ``(*sample, *batch_shape)``, or what broadcasts with it.
        :return: that shape with a last dimension ``K``.
        """
        self._check(value)
        return self.components._masked_log_prob(value[..., None])

    @in_full_precision
    def responsibilities(self, value: Tensor) -> Tensor:
        """
        Return ``w_k p_k(z) / p(z)``, the posterior of the component's index.

        :param value: values inside the interval, shape ``(*sample, *batch_shape)``, or what
            broadcasts with it.
        :return: that shape with a last dimension ``K``, which sums to one.
        """
        self._check(value)
        return self._joint(value).softmax(-1)

    def sample_component(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw the index of a component with probabilities ``w`` (Raj 2025, Eq. 13).

        :param sample_shape: shape of independent draws.
        :return: integers of shape ``(*sample_shape, *batch_shape)``.
        """
        log_weights = self.log_weights.expand(*self.batch_shape, -1)
        return Categorical(logits=log_weights, validate_args=False).sample(
            shape("sample_shape", sample_shape)
        )

    def prune(self, threshold: float) -> "TiltedMixture":
        """
        Return the mixture without the components whose weight is below a threshold. The largest
        component always stays.

        :param threshold: smallest weight to keep, from 0 to 1.
        :raises ValueError: for a threshold outside [0, 1].
        """
        share("threshold", threshold)
        largest = self.log_weights.amax(-1, keepdim=True)
        kept = (self.weights >= threshold) | (self.log_weights == largest)
        logits = torch.where(kept, self.log_weights, -torch.inf)
        pruned = TiltedMixture(logits, self.components, validate_args=self._validate_args)
        return pruned.expand(self.batch_shape)

    @classmethod
    def infer_shapes(cls, **shapes: torch.Size) -> tuple[torch.Size, torch.Size]:
        """
        Return the batch and event shape from the shapes of the arguments.

        :param shapes: shape of ``logits`` and batch shape of ``components``.
        """
        return torch.broadcast_shapes(*shapes.values())[:-1], torch.Size()


def _check_shape(logits: Tensor, components: ExponentiallyTilted) -> None:
    if not components.batch_shape:
        raise ValueError("components must have batch shape (*batch, K), got ()")
    if logits.dim() == 0 or logits.shape[-1] != components.batch_shape[-1]:
        raise ValueError(
            f"logits must have a last dimension of {components.batch_shape[-1]}, one for each "
            f"component, got shape {tuple(logits.shape)}"
        )


def check_weights(logits: Tensor, components: ExponentiallyTilted) -> None:
    """
    Raise where unnormalized log weights have another type than the components, or do not tell
    weights.
    """
    if not isinstance(components, ExponentiallyTilted):
        raise TypeError(
            f"components must be an ExponentiallyTilted, got {type(components).__name__}"
        )
    dense("logits", logits)
    if logits.dtype != components.low.dtype:
        raise TypeError(
            f"logits must have the dtype of the components, {components.low.dtype}, got "
            f"{logits.dtype}"
        )
    if not is_concrete(logits):
        return
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise ValueError("logits must be finite or -inf, got NaN or +inf")
    if bool(logits.isneginf().all(-1).any()):
        raise ValueError(
            "logits must hold at least one finite number for each mixture, got a mixture with "
            "only -inf"
        )


def _last_removed(ends: Tensor, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    return reduce(ends, -1) if ends.dim() > 0 else ends
