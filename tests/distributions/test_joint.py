"""
The joint energy prior: Langevin draws, the negative phase, the annealed normalizer, what is
refused.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO, autoguide
from pyro.nn import PyroModule, PyroSample
from torch import nn

from pyro_tkam.distributions import JointEnergy, PersistentULA, ShortRunULA
from pyro_tkam.infer import MALA, VectorizedMCMC
from pyro_tkam.nn import UnivariateFunctions
from tests.untrusted import untrusted


@pytest.fixture(autouse=True)
def _seed() -> None:
    pyro.set_rng_seed(0)


def normal(size: int = 2) -> dist.Distribution:
    return dist.Normal(torch.zeros(size).double(), torch.ones(size).double()).to_event(1)


class Tilt(nn.Module):
    """``f(z) = a·z - b |z|²/2``: the prior is ``N(a/(1 + b), 1/(1 + b))``."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Parameter(torch.tensor([1.0, -0.5]).double())
        self.curve = nn.Parameter(torch.tensor(1.0).double())

    def forward(self, z):
        return (self.linear * z).sum(-1) - 0.5 * self.curve * z.square().sum(-1)


def test_draws_have_the_law_of_the_energy():
    """
    Means of 20,000 chains: five standard errors are 0.025; the bias of ULA's variance is 1/(1 - η(1
    + b)/2).
    """
    prior = JointEnergy(Tilt(), normal(), sampler=ShortRunULA(100, 0.1), num_negatives=2)
    draws = prior.sample((20_000,))
    assert not draws.requires_grad
    torch.testing.assert_close(
        draws.mean(0), torch.tensor([0.5, -0.25]).double(), atol=0.03, rtol=0
    )
    torch.testing.assert_close(
        draws.var(0), torch.tensor([0.5 / 0.9] * 2).double(), atol=0.03, rtol=0
    )


def test_bounded_references_keep_their_support():
    prior = JointEnergy(
        lambda z: 3 * z.sum(-1),
        dist.Uniform(torch.zeros(2).double(), 1.0),
        sampler=ShortRunULA(300, 0.05),
    )
    draws = prior.sample((4_000,))
    assert ((draws > 0) & (draws < 1)).all()
    exact = 1 / (1 - math.exp(-3)) - 1 / 3
    assert (draws.mean(0) - exact).abs().max() < 0.03


def test_gradients_carry_the_negative_phase():
    """
    Against the exact gradient of the normalized density; 40,000 negatives, five standard errors are
    0.02.
    """
    tilt = Tilt()
    prior = JointEnergy(tilt, normal(), sampler=ShortRunULA(200, 0.02), num_negatives=40_000)
    data = torch.tensor([[0.3, 0.2], [1.0, -2.0]]).double()
    gradient = torch.autograd.grad(prior.log_prob(data).sum(), tuple(tilt.parameters()))
    copy = Tilt()
    precision = 1 + copy.curve
    exact = dist.Normal(copy.linear / precision, precision.rsqrt()).to_event(1).log_prob(data)
    expected = torch.autograd.grad(exact.sum(), tuple(copy.parameters()))
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.06, rtol=0)
    torch.testing.assert_close(prior.log_prob(data), tilt(data) + normal().log_prob(data))


def test_negatives_are_drawn_only_for_parameters_that_learn():
    assert JointEnergy(Tilt().requires_grad_(False), normal()).negatives is None
    with torch.no_grad():
        assert JointEnergy(Tilt(), normal()).negatives is None
    assert JointEnergy(Tilt(), normal(), num_negatives=7).negatives.shape == (7, 2)


def test_works_under_vmap_and_grad():
    tilt = Tilt()
    data = torch.randn(5, 2).double()

    def score(z):
        return JointEnergy(tilt, normal(), sampler=ShortRunULA(2)).log_prob(z)

    gradient = torch.func.vmap(torch.func.grad(score))(data)
    torch.testing.assert_close(gradient, (tilt.linear - (1 + tilt.curve) * data).detach())


def test_persistent_chains_go_on():
    sampler = PersistentULA(ShortRunULA(1, 1e-6))
    prior = JointEnergy(Tilt().requires_grad_(False), normal(), sampler=sampler)
    first, second = prior.sample((10,)), prior.sample((10,))
    assert (first - second).abs().max() < 0.02
    assert (first - prior.sample((11,))[:10]).abs().max() > 0.1


def test_annealed_normalizer_is_exact_within_its_error():
    """Within five standard errors of the closed form, and these below 0.05."""
    prior = JointEnergy(Tilt(), normal(), num_negatives=2)
    estimate = prior.estimate_log_normalizer(2000, 50, 0.2)
    exact = sum(0.5 * a**2 / 2 for a in (1.0, -0.5)) - math.log(2.0)
    assert estimate.standard_error < 0.05
    assert abs(float(estimate.value) - exact) < 5 * float(estimate.standard_error)


def test_the_annealed_normalizer_makes_no_move_after_its_last_weight():
    """Two weights, and between them one move, of two gradients."""
    places = []

    def energy(z):
        places.append(z)
        return 0 * z.sum(-1)

    prior = JointEnergy(energy, normal())
    places.clear()
    prior.estimate_log_normalizer(10, 3)
    assert [z.requires_grad for z in places] == [False, True, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_particles": 1}, "num_particles must be an integer of at least 2, got 1"),
        ({"num_temperatures": 1}, "num_temperatures must be an integer of at least 2, got 1"),
        ({"step_size": -1.0}, r"step_size must be a finite number greater than 0, got -1\.0"),
        ({"step_size": math.inf}, "step_size must be a finite number greater than 0, got inf"),
        ({"step_size": math.nan}, "step_size must be a finite number greater than 0, got nan"),
    ],
)
def test_bad_settings_of_the_annealed_normalizer(options, message):
    with pytest.raises(ValueError, match=message):
        JointEnergy(Tilt(), normal(), num_negatives=2).estimate_log_normalizer(**options)


class Latent(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.slope = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, z):
        return (self.slope * z).sum(-1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"energy": 1.0}, TypeError, r"energy must .*, got float"),
        (
            {"energy": lambda z: z},
            ValueError,
            r"energy must return shape \(\) for z of shape \(2,\), got \(2,\)",
        ),
        ({"energy": lambda z: 0.0}, ValueError, r"energy must .*, got float"),
        (
            {"energy": lambda z: z.sum(-1) / 0},
            ValueError,
            r"energy must be finite .*, got NaN or .*inf",
        ),
        (
            {"energy": Latent()},
            ValueError,
            r"energy must have no sampled.*, got latent ones \['slope'\]",
        ),
        ({"reference": 1.0}, TypeError, r"reference must be a .*, got float"),
        (
            {"reference": dist.Normal(0.0, 1.0)},
            ValueError,
            r"reference must be a continuous.*, got Normal\(loc",
        ),
        (
            {"reference": dist.Bernoulli(torch.ones(2) / 2)},
            ValueError,
            r"reference must be a continuous.*, got Independent\(Bernoulli\(probs",
        ),
        (
            {"num_negatives": 0},
            ValueError,
            "num_negatives must be an integer of at least 1, got 0",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        JointEnergy(**{"energy": lambda z: z.sum(-1), "reference": normal(), **arguments})


def from_bank(site: bool):
    """
    A model whose joint energy has coefficients that a bank read before: a ``PyroSample``, or a
    parameter.
    """
    bank = UnivariateFunctions(2, low=-3.0, high=3.0, grid_size=4)
    if site:
        bank.coefficients = PyroSample(dist.Normal(torch.zeros(2, 4), 1.0).to_event(2))

    def model():
        free = pyro.sample("free", dist.Normal(0.0, 1.0))
        energy = bank.bound()
        reference = dist.Normal(torch.zeros(2), 1.0)
        z = pyro.sample(
            "z", JointEnergy(lambda z: energy(z).sum(-1), reference, sampler=ShortRunULA(2))
        )
        pyro.sample("x", dist.Normal(z.sum() + free, 1.0), obs=torch.tensor(0.3))

    return model


def from_closure(site: bool):
    """A model whose joint energy closes over twice a coefficient: a latent one, or a parameter."""

    def model():
        free = pyro.sample("free", dist.Normal(0.0, 1.0))
        start = torch.tensor(0.5)
        slope = 2 * (
            pyro.sample("coefficients", dist.Normal(0.0, 1.0))
            if site
            else pyro.param("slope", start)
        )
        reference = dist.Normal(torch.zeros(2), 1.0)
        z = pyro.sample(
            "z", JointEnergy(lambda z: slope * z.sum(-1), reference, sampler=ShortRunULA(2))
        )
        pyro.sample("x", dist.Normal(z.sum() + free, 1.0), obs=torch.tensor(0.3))

    return model


INFERENCES = {
    "nuts": lambda model: MCMC(NUTS(model, max_tree_depth=2), 2, 2, disable_progbar=True).run(),
    "svi": lambda model: SVI(
        model, autoguide.AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()
    ).step(),
    "langevin": lambda model: VectorizedMCMC(
        MALA(model), 2, 2, num_chains=2, disable_progbar=True
    ).run(),
}


@pytest.mark.parametrize("make", [from_bank, from_closure])
@pytest.mark.parametrize("name", INFERENCES)
def test_latent_parameters_drawn_before_are_refused(name, make):
    with pytest.raises(
        ValueError,
        match=r"energy must have no sampled.*, got latent ones \['(bank\.)?coefficients'\]",
    ):
        INFERENCES[name](make(site=True))
    with untrusted() if name == "langevin" else nullcontext():
        INFERENCES[name](make(site=False))


def test_latent_parameters_are_refused_inside_transforms():
    def log_joint(slope):
        with pyro.poutine.trace(), pyro.poutine.condition(data={"slope": slope}):
            found = pyro.sample("slope", dist.Normal(0.0, 1.0))
            return JointEnergy(lambda z: found * z.sum(-1), normal()).log_prob(
                torch.ones(2).double()
            )

    slope_of = torch.func.grad(log_joint)
    for call, slopes in ((slope_of, torch.ones(())), (torch.func.vmap(slope_of), torch.ones(3))):
        with pytest.raises(
            ValueError, match=r"energy must have no sampled.*, got latent ones \['slope'\]"
        ):
            call(slopes)


@pytest.mark.parametrize(
    ("options", "message"), [({"num_steps": 0}, "num_steps"), ({"step_size": -1.0}, "step_size")]
)
def test_bad_samplers(options, message):
    with pytest.raises(ValueError, match=message):
        ShortRunULA(**options)


def test_a_tilt_of_a_simplex_is_the_dirichlet_that_it_should_be():
    """Draws of 4,000 chains; five standard errors of a mean are 0.02."""
    prior = JointEnergy(
        lambda z: 2 * z[..., 0].log(),
        dist.Dirichlet(torch.tensor([2.0, 1.0, 2.0]).double()),
        sampler=ShortRunULA(300, 0.02),
    )
    draws = prior.sample((4_000,))
    exact = torch.tensor([4.0, 1.0, 2.0]).double() / 7
    torch.testing.assert_close(draws.mean(0), exact, atol=0.02, rtol=0)


def test_a_reference_needs_no_mean():
    logits = dist.TransformedDistribution(
        dist.Normal(torch.zeros(3).double(), 1.0), [dist.transforms.SigmoidTransform()]
    )
    prior = JointEnergy(lambda z: z.sum(-1), logits, sampler=ShortRunULA(2))
    assert prior.sample((5,)).shape == (5, 3)
    assert prior.sample().dtype == torch.float64
