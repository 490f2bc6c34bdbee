"""Every distribution, in both precisions, through the laws of tests/laws/distribution.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.distributions import (
    AutoregressiveTilted,
    Conditionals,
    ExponentiallyTilted,
    JointEnergy,
    LabeledTilted,
    SharedCells,
    ShortRunULA,
    TiltedMixture,
)
from pyro_tkam.distributions.isotropic import IsotropicNormal
from tests.laws import distribution as laws


@dataclasses.dataclass(frozen=True, eq=False)
class Waves:
    """A picklable energy, ``f(z) = c sin(3 z)``."""

    height: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return self.height * torch.sin(3 * z)


@dataclasses.dataclass(frozen=True, eq=False)
class KnottedWaves(Waves):
    """The same with knots, of which some lie outside the interval of one density."""

    knots: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Bowl:
    """A picklable joint energy."""

    center: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return -0.5 * (z - self.center).square().sum(-1)


class Instance:
    """``make(dtype, device, validate_args=…)`` with a name and the shapes of its arguments."""

    def __init__(
        self, name: str, build: Callable[..., dist.TorchDistribution], **shapes: tuple[int, ...]
    ) -> None:
        self.name, self.build = name, build
        self.shapes = {key: torch.Size(shape) for key, shape in shapes.items()}

    def __call__(self, dtype: torch.dtype, device: str | torch.device = "cpu", **options: bool):
        return self.build(
            lambda *values: torch.tensor(values, dtype=dtype, device=device), **options
        )

    def __repr__(self) -> str:
        return self.name


def tilted(make, reference="uniform", low=None, high=None, **options):
    return ExponentiallyTilted(Waves(make(0.5, -1.0)), reference, low, high, **options)


def apart(make, **options):
    """Intervals on which cells of the one have no width on the other, at places beyond 4."""
    energy = KnottedWaves(make(0.5, -1.0), make(-7.0, -2.0, 3.0, 7.0))
    return ExponentiallyTilted(energy, "uniform", make(-8.0, -5.0), make(5.0, 8.0), **options)


def mixture_apart(make, **options):
    logits = make(0.0, 1.0, 2.0, -1.0).reshape(2, 2)
    return TiltedMixture(logits, apart(make, **options), **options)


def bank(make, **options):
    return ExponentiallyTilted(
        Waves(make(0.5, -1.0, 2.0, 1.0, 0.0, -2.0).reshape(2, 3)), "gaussian", **options
    )


def mixture(make, **options):
    return TiltedMixture(make(0.0, 1.0, -1.0), bank(make, **options), **options)


def mixture_of_shared(make, **options):
    components = ExponentiallyTilted(Waves(make(0.5, -1.0, 2.0)), "gaussian", **options).expand(
        (2, 3)
    )
    return TiltedMixture(make(0.0, 1.0, -1.0, 2.0, 0.0, -2.0).reshape(2, 3), components, **options)


def isotropic(make, **options):
    return IsotropicNormal(
        make(0.5, -1.0, 2.0, 0.0, 1.0, 3.0).reshape(2, 3), make(0.5, 2.0), **options
    )


def labeled(make, **options):
    return LabeledTilted(make(0.0, 1.0), bank(make, **options), **options)


@dataclasses.dataclass(frozen=True, eq=False)
class Following:
    """Coefficients, mixture weights, locations and scales that follow the latents before."""

    tilts: Tensor

    def __call__(self, z: Tensor) -> Conditionals:
        before = torch.cat([torch.zeros_like(z[..., :1]), z[..., :-1].sin().cumsum(-1)], -1)
        coefficients = before[..., None, None] * self.tilts
        logits = coefficients[..., 0]
        log_weights = logits - logits.logsumexp(-1, keepdim=True)
        return Conditionals(coefficients, log_weights, before, (0.3 * before).exp())


def autoregressive(make, **options):
    cells = SharedCells.over(-4.0, 4.0, 5, like=make(0.0))
    tilts = make(0.5, -1.0, 2.0, 1.0, 0.0, 0.1, 3.0, -1.0, -2.0, 0.5).reshape(2, 5)
    return AutoregressiveTilted(Following(tilts), (1, 1, 1), cells, (2,), **options)


@dataclasses.dataclass(frozen=True)
class HiddenFactory(ShortRunULA):
    """A sampler with the fault that the law of devices looks for."""

    def __call__(self, log_density: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        return super().__call__(log_density, start) + torch.zeros(3, dtype=start.dtype)


CDF = [
    Instance("uniform", tilted, energy=(2,)),
    Instance("gaussian", lambda m, **o: tilted(m, "gaussian", **o), energy=(2,), reference=()),
    Instance("lognormal", lambda m, **o: tilted(m, "lognormal", **o), energy=(2,)),
    Instance("flat", lambda m, **o: tilted(m, "flat", **o), energy=(2,)),
    Instance(
        "learnable gaussian", lambda m, **o: tilted(m, "learnable_gaussian", **o), energy=(2,)
    ),
    Instance(
        "own ends",
        lambda m, **o: tilted(m, "uniform", m(0.0, -1.0), m(1.0, 2.0), **o),
        energy=(2,),
        low=(2,),
        high=(2,),
    ),
    Instance(
        "laplace",
        lambda m, **o: tilted(m, dist.Laplace(m(0.1, 0.4), m(1.0, 0.5)), -3.0, 3.0, **o),
        energy=(2,),
        reference=(2,),
    ),
    Instance("intervals apart", apart, energy=(2,), low=(2,), high=(2,)),
    Instance("mixture of intervals apart", mixture_apart, logits=(2, 2), components=(2,)),
    Instance("mixture", mixture, logits=(3,), components=(2, 3)),
    Instance("mixture of shared components", mixture_of_shared, logits=(2, 3), components=(2, 3)),
]

SHORT = ShortRunULA(3)


def joint(make, sampler=SHORT, **options):
    reference = dist.Normal(make(0.0, 0.0, 0.0), make(1.0, 1.0, 1.0)).expand((2, 3))
    return JointEnergy(Bowl(make(1.0, 0.0, -1.0)), reference, sampler=sampler, **options)


OTHERS = [
    Instance("joint", joint, reference=(2, 3)),
    Instance("autoregressive", autoregressive),
    Instance("labeled", labeled, logits=(2,), components=(2, 3)),
    Instance("isotropic", isotropic),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    pyro.set_rng_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("make", [*CDF, *OTHERS], ids=repr)
@pytest.mark.parametrize("law", laws.ALL, ids=lambda law: law.__name__)
def test_law(law, make, dtype):
    law(make, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("make", CDF, ids=repr)
@pytest.mark.parametrize("law", laws.WITH_CDF, ids=lambda law: law.__name__)
def test_law_of_a_cdf(law, make, dtype):
    law(make, dtype)


def test_the_law_of_devices_finds_a_hidden_factory_call():
    faulty = Instance("faulty", lambda m, **o: joint(m, HiddenFactory(3), **o))
    with pytest.raises((AssertionError, RuntimeError)):
        laws.draws_follow_no_default_device(faulty, torch.float32)
