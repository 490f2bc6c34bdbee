"""Tilted priors whose energies are learned univariate functions."""

from typing import Any

import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints

from pyro_tkam.distributions import (
    ExponentiallyTilted,
    JointEnergy,
    LabelledTilted,
    PersistentULA,
    ShortRunULA,
    TiltedMixture,
)
from pyro_tkam.distributions.references import resolve_reference
from pyro_tkam.nn import UnivariateFunctions
from pyro_tkam.ops.quadrature import Quadrature


class TiltedPrior(PyroModule):
    """
    A bank of exponentially tilted densities ``p_{q,p}(z) ∝ exp(f_{q,p}(z)) π0(z)``.

    Calling it reads the parameters once and returns the current distribution (Raj 2025, arXiv:2506.14167, Eq. 4).

    :param batch_shape: shape of the bank, ``(Q, P)`` for the model of the paper.
    :param reference: ``π0``, see :class:`~pyro_tkam.distributions.ExponentiallyTilted`; the location and scale of
        ``"learnable_gaussian"`` are parameters of this module.
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
        super().__init__()
        resolved = resolve_reference(reference, low, high)
        self.low, self.high = float(resolved.low), float(resolved.high)
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
        return ExponentiallyTilted(energy, reference, self.low, self.high, quadrature=self.quadrature)


class MixturePrior(PyroModule):
    """
    Mixtures of a bank's densities, ``p_q(z) = Σ_p w_{q,p} p_{q,p}(z)`` (Raj 2025, arXiv:2506.14167, Eq. 12).

    :param components: a bank of batch shape ``(*batch, num_components)``.

    >>> MixturePrior(TiltedPrior((5, 3)))().batch_shape
    torch.Size([5])
    """

    def __init__(self, components: TiltedPrior) -> None:
        super().__init__()
        self.components = components
        self.logits = nn.Parameter(torch.zeros(components.energies.batch_shape))

    def forward(self) -> TiltedMixture:
        """Return the current distribution, of batch shape ``batch``."""
        return TiltedMixture(self.logits, self.components())


class LabelledPrior(PyroModule):
    """
    A label coupled to univariate latents by energies, see :class:`~pyro_tkam.distributions.LabelledTilted`.

    :param num_labels: number of labels.
    :param latent_dim: number ``Q`` of latents.
    :param reference: as in :class:`TiltedPrior`.
    :param options: further options of :class:`TiltedPrior`.

    >>> LabelledPrior(10, 5)().event_shape
    torch.Size([5])
    """

    def __init__(
        self, num_labels: int, latent_dim: int, reference: str | Distribution = "gaussian", **options: Any
    ) -> None:
        super().__init__()
        self.components = TiltedPrior((num_labels, latent_dim), reference, **options)
        self.logits = nn.Parameter(torch.zeros(num_labels))

    def forward(self) -> LabelledTilted:
        """Return the current distribution, of event shape ``(Q,)``."""
        return LabelledTilted(self.logits, self.components())


class JointPrior(PyroModule):
    """
    A joint energy over standard normal latents (Raj 2025, arXiv:2506.14167, Eq. 14).

    :param energy: module from ``(*, Q)`` to ``(*, 1)``.
    :param latent_dim: number ``Q`` of latents.
    :param sampler: see :class:`~pyro_tkam.distributions.JointEnergy`; None takes its default.

    >>> JointPrior(nn.Linear(4, 1), 4)().event_shape
    torch.Size([4])
    """

    loc: Tensor

    def __init__(
        self, energy: nn.Module, latent_dim: int, *, sampler: ShortRunULA | PersistentULA | None = None
    ) -> None:
        super().__init__()
        self.energy, self.sampler = energy, sampler
        self.register_buffer("loc", torch.zeros(latent_dim))

    def forward(self) -> JointEnergy:
        """Return the current distribution, of event shape ``(Q,)``."""
        reference = Normal(self.loc, torch.ones_like(self.loc))
        return JointEnergy(lambda z: self.energy(z).squeeze(-1), reference, sampler=self.sampler)
