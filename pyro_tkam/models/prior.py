"""Tilted priors whose energies are learned univariate functions."""

from typing import Any

import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints

from pyro_tkam.distributions import (
    ExponentiallyTilted,
    JointEnergy,
    LabeledTilted,
    PersistentULA,
    ShortRunULA,
    TiltedMixture,
)
from pyro_tkam.distributions.references import resolve_reference
from pyro_tkam.models.knowledge import MOMENTS, LogDensity, fit_tilt
from pyro_tkam.nn import KAN, Candidate, GridUpdate, UnivariateFunctions, _checks, fit_formulas
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.grids import check_learned
from pyro_tkam.nn.symbolic import NUM_ARGUMENTS
from pyro_tkam.ops._arguments import dense, finite
from pyro_tkam.ops._points import broadcasts_to
from pyro_tkam.ops.quadrature import Quadrature

MOST_NOISE = 1e3
"""The largest noise scale for coefficients; beyond it, densities are not finite."""


class TiltedPrior(PyroModule):
    """
    A bank of exponentially tilted densities ``p_{q,p}(z) ∝ exp(f_{q,p}(z)) π0(z)``.

    Each call reads the parameters once and returns the current distribution (Raj 2025,
    arXiv:2506.14167, Eq. 4).

    :param batch_shape: shape of the bank, ``(Q, P)`` for the model of the paper.
    :param reference: ``π0``, see :class:`~pyro_tkam.distributions.ExponentiallyTilted`; the
        location and scale of ``"learnable_gaussian"`` are parameters of this module.
    :param low: lower end of the interval; None takes the reference's.
    :param high: upper end of the interval; None takes the reference's.
    :param basis: basis of the energies, see :class:`~pyro_tkam.nn.UnivariateFunctions`.
    :param quadrature: see :class:`~pyro_tkam.distributions.ExponentiallyTilted`.
    :param options: further options of :class:`~pyro_tkam.nn.UnivariateFunctions`.
    :raises ValueError: for an unknown reference or basis, and for ``low >= high``.

    >>> prior = TiltedPrior((5, 2), reference="gaussian")
    >>> prior().batch_shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        batch_shape: int | tuple[int, ...],
        reference: str | Distribution = "uniform",
        low: float | None = None,
        high: float | None = None,
        *,
        basis: str = "rbf",
        quadrature: Quadrature | None = None,
        **options: Any,
    ) -> None:
        for name, end in (("low", low), ("high", high)):
            if end is not None:
                _checks.number(name, end)
        _checks.options("TiltedPrior", options, TiltedPrior.__init__, UnivariateFunctions.__init__)
        super().__init__()
        resolved = resolve_reference(reference, low, high)
        self.low = float(resolved.low)
        self.high = float(resolved.high)
        self.quadrature = quadrature
        self.energies = UnivariateFunctions(batch_shape, basis, self.low, self.high, **options)
        self._reference = reference
        if reference == "learnable_gaussian":
            self.loc = torch.nn.Parameter(torch.zeros(()))
            self.scale = PyroParam(torch.ones(()), constraints.positive)

    def forward(self) -> ExponentiallyTilted:
        """Return the current distribution, of batch shape ``batch_shape``."""
        learned = self._reference == "learnable_gaussian"
        reference = Normal(self.loc, self.scale) if learned else self._reference
        energy = self.energies.bound()
        return ExponentiallyTilted(
            energy, reference, self.low, self.high, quadrature=self.quadrature
        )

    def update_grid(self, samples: Tensor, **options: Any) -> tuple[GridUpdate, ...]:
        """
        Move the knots of the energies to the latents; the interval stays fixed.

        If there are several batch dimensions, energies that differ only in the last one share a
        grid and therefore the nodes of their tables.

        :param samples: latents, shape ``(N, *batch_shape)``.
        :param options: as in :meth:`pyro_tkam.nn.UnivariateFunctions.update_grid`, except for
            ``widen``.
        :return: one update.

        >>> prior = TiltedPrior((5, 2))
        >>> prior.update_grid(prior().sample((100,)))[0].accepted
        True
        """
        self._check_latents(samples)
        if len(self.energies.batch_shape) > 1:
            samples = samples.movedim(-1, 1).flatten(0, 1).unsqueeze(-1)
        return (self.energies.update_grid(samples, **options),)

    def _check_latents(self, samples: Tensor) -> None:
        finite("samples", samples)
        batch = self.energies.batch_shape
        if samples.shape[1:] != batch or len(samples) == 0:
            raise ValueError(
                f"samples must have shape (N, *{tuple(batch)}) with N >= 1, got "
                f"{tuple(samples.shape)}"
            )

    def fit(
        self,
        samples: Tensor | None = None,
        *,
        density: Distribution | LogDensity | None = None,
        formula: Any = None,
        ridge: float = 1e-6,
    ) -> None:
        """
        Start from prior knowledge: fit the densities to samples, to a density or to a formula.

        See :func:`pyro_tkam.models.knowledge.fit_tilt`. Base functions are set to zero, scales to
        one. Give exactly one of the three targets. If a target lacks batch dimensions, all
        densities are fitted to it. You can add a fitted prior to a model, but Pyro does not allow
        this after the prior has been called.

        :param samples: values inside the interval, shape ``(N,)`` or ``(N, *batch)``.
        :param density: a distribution, or an elementwise function from ``z`` to its log density up
            to a constant.
        :param formula: a density up to a factor in one variable, as text that
            :func:`~pyro_tkam.nn.parse_expression` reads or an expression of ``sympy``.
        :param ridge: penalty on squared coefficients, in nats; larger values stay closer to the
            reference.
        :raises ValueError: unless exactly one target is given, for no samples, for samples of the
            wrong shape or outside the interval, for a target without mass or with values that are
            not finite on the interval, and for a ridge that is not positive and finite.
        :raises TypeError: for samples that are not a tensor, a formula that is neither text nor an
            expression, and for coefficients, scales or weights that are random.

        >>> prior = TiltedPrior((), "gaussian", basis="bspline")
        >>> prior.fit(formula="exp(-(z - 1)**2 / 0.5) + exp(-(z + 1)**2 / 0.5)")
        >>> round(float(prior().variance.detach()), 2)
        1.25
        """
        targets = {"samples": samples, "density": density, "formula": formula}
        given = [name for name, target in targets.items() if target is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of samples, density and formula must be given, got {given or 'none'}"
            )
        ridge = _checks.length("ridge", ridge)
        if samples is not None:
            self._check(samples)
        if density is not None and not isinstance(density, Distribution):
            _checks.function("density", density, "values")
        moments = MOMENTS[given[0]](targets[given[0]])
        with torch.no_grad(), unseen(self):
            fit_tilt(self.energies, self().reference, moments, ridge)

    def _check(self, samples: Tensor) -> None:
        dense("samples", samples)
        if samples.is_complex():
            raise TypeError(f"samples must hold real numbers, got {samples.dtype}")
        batch = self.energies.batch_shape
        if samples.dim() == 0 or len(samples) == 0 or not broadcasts_to(samples.shape[1:], batch):
            raise ValueError(
                f"samples must have shape (N,) or (N, *{tuple(batch)}) with N >= 1, got "
                f"{tuple(samples.shape)}"
            )
        if not bool(((samples >= self.low) & (samples <= self.high)).all()):
            raise ValueError(
                f"samples must lie in [{self.low:g}, {self.high:g}], got values outside"
            )

    def symbolic(self, index: tuple[int, ...] = (), **options: Any) -> list[Candidate]:
        """
        Find formulas for the logarithm of one density, best first, with standard errors.

        :param index: which density, an index into ``batch_shape``.
        :param options: ``library``, ``num_candidates`` and ``tolerance`` of
            :func:`pyro_tkam.nn.fit_formulas`.
        :raises ValueError: for an index outside the bank and for unknown names.
        """
        with torch.no_grad(), unseen(self):
            return _formulas(self(), self.low, self.high, index, **options)


class MixturePrior(PyroModule):
    """
    Mixtures of a bank's densities, ``p_q(z) = Σ_p w_{q,p} p_{q,p}(z)``.

    See Raj 2025, arXiv:2506.14167, Eq. 12.

    :param components: a bank of batch shape ``(*batch, num_components)``.

    >>> MixturePrior(TiltedPrior((5, 3)))().batch_shape
    torch.Size([5])
    """

    def __init__(self, components: TiltedPrior) -> None:
        _checks.instance("components", components, TiltedPrior, "a TiltedPrior")
        if not components.energies.batch_shape:
            raise ValueError("components must have a batch shape (*batch, num_components), got ()")
        super().__init__()
        self.components = components
        self.logits = nn.Parameter(torch.zeros(components.energies.batch_shape))

    def forward(self) -> TiltedMixture:
        """Return the current distribution, of batch shape ``batch``."""
        return TiltedMixture(self.logits, self.components())

    def fit(
        self, samples: Tensor | None = None, *, noise_scale: float = 0.1, **options: Any
    ) -> None:
        """
        Start from prior knowledge: fit every mixture to samples, to a density or to a formula.

        All components of a mixture are fitted to its target, so the mixture equals the target for
        any weights, which stay unchanged. Noise then makes the components different, because
        training would otherwise keep them equal. To fit each component to its own target, use
        ``components.fit``.

        :param samples: values inside the interval, shape ``(N,)`` or ``(N, *batch)``.
        :param noise_scale: coefficients move by ``U(-½, ½)`` times this scale, divided by their
            number.
        :param options: ``density``, ``formula`` and ``ridge`` of :meth:`TiltedPrior.fit`.
        :raises ValueError: as there, and for a noise scale that is negative or not finite.
        :raises TypeError: as there.

        >>> prior = MixturePrior(TiltedPrior((2, 5), "gaussian"))
        >>> prior.fit(formula="exp(-(z - 1)**2)")
        >>> prior().mean.detach().round(decimals=2)
        tensor([1., 1.])
        """
        _checks.number("noise_scale", noise_scale, at_least=0.0, at_most=MOST_NOISE)
        if isinstance(samples, Tensor) and samples.dim() > 1:
            samples = samples.unsqueeze(-1)
        self.components.fit(samples, **options)
        coefficients = self.components.energies.coefficients.detach()
        noise = noise_scale / coefficients.shape[-1] * (torch.rand_like(coefficients) - 0.5)
        self.components.energies.replace_coefficients(coefficients + noise)

    @torch.no_grad()
    def reweigh(
        self, latents: Tensor, weights: Tensor, *, penalty: float = 0.0, size: int | None = None
    ) -> Tensor:
        """
        Set the mixtures' weights to ``w_k ∝ max(N_k - λ, 0)``, where ``N_k`` is the number of data
        that component ``k`` explains.

        This is the M step of a Dirichlet prior with exponents ``1 - λ`` (Figueiredo & Jain 2002,
        IEEE TPAMI 24:381). Components that explain fewer data than ``λ`` get weight 0 and keep it,
        so :meth:`prune` can remove them without changing any draw. From then on, counts set the
        weights, and the weights have no gradient. Train the rest between calls, and increase ``λ``
        gradually.

        :param latents: posterior draws of the data, shape ``(draw, data, *batch)``, or ``(draw, 1,
            *batch)`` if the data share draws.
        :param weights: weights of the draws of each datum, shape ``(draw, data)``; they sum to one
            over draws.
        :param penalty: ``λ``, in numbers of data.
        :param size: number of data that ``latents`` represent; None takes the number in
            ``latents``.
        :return: the counts ``N``, shape ``(*batch, K)``.
        :raises ValueError: for a penalty that is negative or not finite.

        >>> prior = MixturePrior(TiltedPrior((2, 5), "gaussian"))
        >>> counts = prior.reweigh(prior().sample((10, 3)), torch.full((10, 3), 0.1))
        >>> counts.sum(-1).round(decimals=3)
        tensor([3., 3.])
        """
        check_reweighing(penalty, size)
        _check_weighted(latents, weights, self.logits)
        low = self.components.low
        high = self.components.high
        if not bool(((latents >= low) & (latents <= high)).all()):
            raise ValueError(f"latents must lie in [{low:g}, {high:g}], got values outside")
        check_learned(self, ("logits",), "reweighing")
        with unseen(self):
            shares = self().responsibilities(latents)
        if shares.shape[1] == 1:
            counts = torch.tensordot(weights.sum(1), shares[:, 0], dims=([0], [0]))
        else:
            counts = torch.einsum("sb,sb...->...", weights, shares)
        counts = counts * ((size or weights.shape[1]) / weights.shape[1])
        largest = counts == counts.amax(-1, keepdim=True)
        kept = torch.where(largest, counts - penalty, (counts - penalty).clamp_min(0))
        kept = torch.where(largest & (kept <= 0), 1.0, kept)  # the largest component always stays
        self.logits.copy_((kept / kept.sum(-1, keepdim=True)).log())
        self.logits.requires_grad_(False)
        return counts

    def symbolic(self, index: tuple[int, ...] = (), **options: Any) -> list[Candidate]:
        """
        Find formulas for the logarithm of one mixture's density, best first, with standard errors.

        :param index: which mixture, an index into ``batch``.
        :param options: ``library``, ``num_candidates`` and ``tolerance`` of
            :func:`pyro_tkam.nn.fit_formulas`.
        :raises ValueError: for an index outside the prior and for unknown names.
        """
        with torch.no_grad(), unseen(self):
            return _formulas(self(), self.components.low, self.components.high, index, **options)

    def prune(self, threshold: float) -> "MixturePrior":
        """
        Return a smaller prior without the components whose weight is below a threshold. The largest
        component always stays.

        Every mixture keeps as many slots as the mixture with the most components. Unused slots have
        no weight.

        :param threshold: smallest weight to keep, from 0 to 1.
        :raises ValueError: for a threshold outside [0, 1], and for a reference that differs between
            components.
        :raises TypeError: for random logits, coefficients, scales or weights.

        >>> prior = MixturePrior(TiltedPrior((5, 3)))
        >>> with torch.no_grad():
        ...     prior.logits[:, 1] = -20.0
        >>> prior.prune(1e-3).logits.shape
        torch.Size([5, 2])
        """
        _checks.share("threshold", threshold)
        energies = self.components.energies
        check_learned(self, ("logits",), "pruning")
        check_learned(energies, energies.weight_names, "pruning")
        with torch.no_grad(), unseen(self):
            mixture = self()
            reference = mixture.reference.batch_shape
            if reference and reference[-1] > 1:
                raise ValueError(
                    "reference must be the same for all components, got one for each, "
                    f"{tuple(reference)}"
                )
            logits = mixture.prune(threshold).log_weights
            count = int(logits.isfinite().sum(-1).max())
            logits, index = (part[..., :count] for part in logits.sort(-1, descending=True))
        pruned = unseen_copy(self)
        pruned.logits = nn.Parameter(logits.contiguous())
        others = torch.meshgrid(*(torch.arange(size) for size in index.shape), indexing="ij")[:-1]
        pruned.components.energies.select(*(other.to(index.device) for other in others), index)
        return pruned

    def update_grid(self, samples: Tensor, **options: Any) -> tuple[GridUpdate, ...]:
        """
        Move the knots to the latents; the components of one mixture share a grid.

        :param samples: latents, shape ``(N, *batch)``.
        :param options: as in :meth:`TiltedPrior.update_grid`.
        :return: one update.
        """
        finite("samples", samples)
        batch = self.components.energies.batch_shape
        if samples.shape[1:] != batch[:-1] or len(samples) == 0:
            raise ValueError(
                f"samples must have shape (N, *{tuple(batch[:-1])}) with N >= 1, got "
                f"{tuple(samples.shape)}"
            )
        several = samples.unsqueeze(-1).expand(-1, *batch)
        return self.components.update_grid(several, **options)


class LabeledPrior(PyroModule):
    """
    A label coupled to univariate latents by energies; see
    :class:`~pyro_tkam.distributions.LabeledTilted`.

    :param num_labels: number of labels.
    :param latent_dim: number ``Q`` of latents.
    :param reference: as in :class:`TiltedPrior`.
    :param options: further options of :class:`TiltedPrior`.

    >>> LabeledPrior(10, 5)().event_shape
    torch.Size([5])
    """

    def __init__(
        self,
        num_labels: int,
        latent_dim: int,
        reference: str | Distribution = "gaussian",
        **options: Any,
    ) -> None:
        super().__init__()
        self.components = TiltedPrior((num_labels, latent_dim), reference, **options)
        self.logits = nn.Parameter(torch.zeros(num_labels))

    def forward(self) -> LabeledTilted:
        """Return the current distribution, of event shape ``(Q,)``."""
        return LabeledTilted(self.logits, self.components())

    def fit(self, samples: Tensor | None = None, **options: Any) -> None:
        """
        Start from prior knowledge: fit the latents' densities given each label to samples, a
        density or a formula.

        :param samples: values inside the interval, of shape ``(N,)``; ``(N, Q)``, used for all
            labels; or ``(N, num_labels, Q)``.
        :param options: ``density``, ``formula`` and ``ridge`` of :meth:`TiltedPrior.fit`; a density
            may return values of shape ``(*, num_labels, Q)``.
        :raises ValueError: as there.
        :raises TypeError: as there.

        >>> prior = LabeledPrior(3, 2)
        >>> prior.fit(density=torch.distributions.Normal(torch.tensor([[-1.0], [0.5], [1.0]]), 0.5))
        >>> prior.components().mean[:, 0].detach().round(decimals=2)
        tensor([-1.0000,  0.5000,  1.0000])
        """
        self.components.fit(samples, **options)


class JointPrior(PyroModule):
    """
    A joint energy over standard normal latents.

    See Raj 2025, arXiv:2506.14167, Eq. 14.

    :param energy: module from ``(*, Q)`` to ``(*, 1)``.
    :param latent_dim: number ``Q`` of latents.
    :param sampler: see :class:`~pyro_tkam.distributions.JointEnergy`; None takes its default.

    >>> JointPrior(nn.Linear(4, 1), 4)().event_shape
    torch.Size([4])
    """

    loc: Tensor

    def __init__(
        self,
        energy: nn.Module,
        latent_dim: int,
        *,
        sampler: ShortRunULA | PersistentULA | None = None,
    ) -> None:
        _checks.function("energy", energy, "latents")
        _checks.whole_number("latent_dim", latent_dim, 1)
        if sampler is not None:
            kinds = (ShortRunULA, PersistentULA)
            _checks.instance("sampler", sampler, kinds, "a ShortRunULA, a PersistentULA or None")
        super().__init__()
        self.energy = energy
        self.sampler = sampler
        self.register_buffer("loc", torch.zeros(latent_dim))

    def forward(self) -> JointEnergy:
        """Return the current distribution, of event shape ``(Q,)``."""
        reference = Normal(self.loc, torch.ones_like(self.loc))
        return JointEnergy(lambda z: self.energy(z).squeeze(-1), reference, sampler=self.sampler)

    def update_grid(self, samples: Tensor, **options: Any) -> tuple[GridUpdate, ...]:
        """
        Update the grids of the energy, if it has any.

        :param samples: latents, shape ``(N, Q)``.
        :param options: as in :meth:`pyro_tkam.nn.KAN.update_grid`.
        :return: one update for each layer.
        """
        return update_grids(self.energy, samples, **options)


def _formulas(
    density: ExponentiallyTilted | TiltedMixture,
    low: float,
    high: float,
    index: tuple[int, ...],
    **options: Any,
) -> list[Candidate]:
    """Find formulas for the log density of one element of a batch."""
    shape = density.batch_shape
    _checks.sequence("index", index, "integers")
    for each in index:
        _checks.whole_number("every element of index", each, -max(shape, default=0))
    if len(index) != len(shape) or not all(
        -size <= i < size for i, size in zip(index, shape, strict=True)
    ):
        raise ValueError(f"index must be valid for batch_shape {tuple(shape)}, got {index}")
    z = low + (high - low) * (torch.arange(NUM_ARGUMENTS).to(density.low) + 0.5) / NUM_ARGUMENTS
    values: Tensor = density.log_prob(z.reshape(-1, *[1] * len(shape)))
    for i in index:
        values = values[:, i]
    return fit_formulas(z, values, **options)


def check_reweighing(penalty: float, size: int | None) -> None:
    """
    Check the numbers that :meth:`MixturePrior.reweigh` takes.

    :param penalty: a number of at least 0.
    :param size: a number of at least 1, or None.
    :raises TypeError: for anything but numbers.
    :raises ValueError: for other numbers.
    """
    _checks.number("penalty", penalty, at_least=0.0)
    if size is not None:
        _checks.whole_number("size", size, 1)


def _check_weighted(latents: Tensor, weights: Tensor, logits: Tensor) -> None:
    for name, value in (("latents", latents), ("weights", weights)):
        finite(name, value)
        _checks.same_dtype(name, value, logits, "the prior")
    if weights.dim() != 2 or weights.numel() == 0:
        raise ValueError(f"weights must have shape (draw, data), got {tuple(weights.shape)}")
    sums = weights.sum(0)
    if bool((weights < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError(
            "weights must be nonnegative and sum to one over the draws of each datum, got "
            f"sums from {float(sums.min()):g} to {float(sums.max()):g}"
        )
    shape = logits.shape
    draws, data = weights.shape
    if latents.shape[1:] not in ((data, *shape[:-1]), (1, *shape[:-1])) or len(latents) != draws:
        raise ValueError(
            f"latents must have shape ({draws}, {data} or 1, *{tuple(shape[:-1])}), got "
            f"{tuple(latents.shape)}"
        )


def update_grids(part: Any, samples: Tensor, **options: Any) -> tuple[GridUpdate, ...]:
    """
    Update the grids of a part of a model.

    The first grid of a network keeps its interval, because latents stay inside it. Hidden grids
    grow as needed.

    :param part: any object; nothing is done if it has no ``update_grid``.
    :param samples: its inputs.
    :param options: passed on.
    """
    if isinstance(part, KAN):
        grow = [False] + [True] * (len(part.layers) - 1)
        options = {"widen": grow, "shrink": False} | options
    update = getattr(part, "update_grid", None)
    return () if update is None else update(samples, **options)
