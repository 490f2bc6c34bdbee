"""Chains that refine a guide's draws, on a conjugate model where the chains' law is known after every step."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.infer import MALA, ULA, AutoMALA, LangevinMLE, SteppingstoneMLE
from pyro_tkam.infer.bound import BoundModel
from pyro_tkam.infer.normal_quantile import normal_quantile, normal_score
from pyro_tkam.models import TKAM, AmortisedGuide
from tests.laws.objective import START, X, check_gradient, conjugate, exact

LOC, SCALE = -1.5, 0.4
"""The guide ``q(z|x) = N(-1.5, 0.4²)`` of every datum, far from the posteriors ``N((0.2 + x) / 2, 1/2)``."""


def guide(x: Tensor, size: int | None = None) -> None:
    loc = pyro.param("q_loc", torch.tensor(LOC, dtype=x.dtype))
    log_scale = pyro.param("q_log_scale", torch.tensor(SCALE, dtype=x.dtype).log())
    with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
        pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def gradients(objective: LangevinMLE, *args: object) -> dict[str, Tensor]:
    pyro.clear_param_store()
    objective.loss_and_grads(conjugate, guide, *(args or (X,)))
    return {name: parameter.grad for name, parameter in pyro.get_param_store().named_parameters()}


def ends(num_steps: int, step_size: float) -> tuple[Tensor, float]:
    """Return mean and variance of each datum's chains: ``m' - μ = (1 - 2η)(m - μ)``, ``v' = (1 - 2η)² v + 2η``."""
    posterior, variance = (START["loc"] + X) / 2, SCALE**2
    for _ in range(num_steps):
        variance = (1 - 2 * step_size) ** 2 * variance + 2 * step_size
    return posterior + (1 - 2 * step_size) ** num_steps * (LOC - posterior), variance


@pytest.mark.parametrize("num_steps", [1, 10])
def test_the_guides_gradient_is_that_of_the_cross_entropy_of_the_chains_ends(num_steps: int) -> None:
    """Five standard errors or more at 40,000 chains: false alarms below 1e-5; with the other sign both fail."""
    pyro.set_rng_seed(0)
    found = gradients(LangevinMLE(ULA, step_size=0.05, num_steps=num_steps, num_chains=40_000))
    mean, variance = ends(num_steps, 0.05)
    distance = mean - LOC
    assert float(found["q_loc"]) == pytest.approx(float(-distance.sum() / SCALE**2), rel=0.02)
    log_scale = float((1 - (variance + distance.square()) / SCALE**2).sum())
    assert float(found["q_log_scale"]) == pytest.approx(log_scale, rel=0.02)


def test_steps_take_off_the_bias_of_a_poor_guide() -> None:
    """The slope's gradient is 440% off after one step, 340% after 4, 120% after 16, and exact to 5% after 150.

    With 3,000 chains the standard errors are about 1%, so that 5% are missed less than once in 10,000 times.
    """
    pyro.set_rng_seed(0)
    errors = []
    for num_steps in (1, 4, 16, 150):
        found = gradients(LangevinMLE(ULA, step_size=0.02, num_steps=num_steps, num_chains=3000))
        errors.append(abs(float(found["slope"] / exact()[1]["slope"]) - 1))
    assert errors[0] > 4 > errors[1] > 3 > 1.5 > errors[2] > 1
    check_gradient(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        LangevinMLE(MALA, step_size=0.3, num_steps=60, num_chains=3000),
        LangevinMLE(
            AutoMALA, step_size=0.7, num_unadjusted=10, min_step_size=0.05, max_step_size=2.0, num_steps=30,
            num_chains=3000,
        ),
    ],
    ids=["mala", "automala"],
)  # fmt: skip
def test_other_kernels_refine_to_the_exact_gradient(objective: LangevinMLE) -> None:
    """With 3,000 chains the standard errors are about 1%, so that 5% are missed less than once in 10,000 times."""
    pyro.set_rng_seed(0)
    check_gradient(gradients(objective))


def test_contrastive_subtracts_draws_of_the_prior_not_of_the_guide() -> None:
    """A normalised prior has the same gradient both ways; the guide's draws would move it by ``4 · 1.7``."""
    pyro.set_rng_seed(0)
    objective = LangevinMLE(ULA, step_size=0.02, num_steps=150, num_chains=3000, log_prior_gradient="contrastive")
    check_gradient(gradients(objective))


def test_a_guide_that_is_the_posterior_is_at_rest() -> None:
    """Its gradient is zero where MALA, which leaves the posterior as it is, starts from it.

    The score of one draw has variance 2 in either parameter: five standard errors of 4 data, 20,000 chains each.
    """
    pyro.set_rng_seed(0)
    pyro.clear_param_store()

    def posterior(x: Tensor) -> None:
        shift, log_scale = (pyro.param(name, torch.zeros((), dtype=x.dtype)) for name in ("shift", "log_scale"))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((START["loc"] + x) / 2 + shift, 0.5**0.5 * log_scale.exp()))

    LangevinMLE(MALA, step_size=0.3, num_steps=3, num_chains=20_000).loss_and_grads(conjugate, posterior, X)
    for name in ("shift", "log_scale"):
        assert abs(pyro.param(name).grad) < 5 * (2 * len(X) / 20_000) ** 0.5
    check_gradient({name: pyro.param(name).grad for name in START})


def test_a_mini_batch_scales_to_the_whole_data() -> None:
    found = []
    for size in (len(X), 10 * len(X)):
        pyro.set_rng_seed(0)
        found.append(gradients(LangevinMLE(ULA, step_size=0.1, num_steps=3), X, size))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], 10 * gradient)


MODELS = {
    "shared": lambda: TKAM.kart(3, 2, coupling="shared", grid_size=5),
    "independent": lambda: TKAM.kart(3, 2, grid_size=5),
    "mixture": lambda: TKAM.mixture(3, 4, 3, grid_size=5),
    "deep": lambda: TKAM.deep(3, 4, grid_size=5),
}


@pytest.mark.parametrize("kind", MODELS)
def test_chains_start_at_the_guides_draws(kind: str) -> None:
    """The positions are mapped back to the values that the guide drew."""
    pyro.set_rng_seed(0)
    model, x = MODELS[kind](), torch.rand(5, 3)
    q = AmortisedGuide(model, hidden=(8,))
    bound = BoundModel(model, ULA(model), (x,), {})
    pyro.set_rng_seed(1)
    position = bound.draw_guide(q, 6)
    pyro.set_rng_seed(1)
    with torch.no_grad():
        expected = q.posterior(x).sample((6,))
    (values,) = bound.density.constrain(position).values()
    torch.testing.assert_close(values.reshape(expected.shape), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_of_model_and_guide_trains(kind: str) -> None:
    pyro.set_rng_seed(0)
    model, x = MODELS[kind](), torch.rand(5, 3)
    q = AmortisedGuide(model, hidden=(8,))
    loss = LangevinMLE(ULA, step_size=0.01, num_steps=2)(model, q)
    loss(x, size=20)
    before = {name: value.detach().clone() for name, value in loss.named_parameters()}
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss(x, size=20).backward()
        optimizer.step()
    assert [name for name, value in loss.named_parameters() if torch.equal(value, before[name])] == []


FUNCTIONS = {
    "normal": dist.Normal(torch.tensor([1.0, -2.0]), 0.5),
    "several": MultivariateNormal(torch.tensor([1.0, 0.0]), scale_tril=torch.tensor([[1.0, 0.0], [0.5, 2.0]])),
    "uniform": dist.Uniform(-1.0, 3.0).expand((2,)).to_event(1),
    "exponential": dist.Exponential(torch.tensor([0.5, 2.0])),
    "laplace": dist.Laplace(0.0, torch.tensor([0.5, 2.0])),
    "half normal": dist.HalfNormal(torch.tensor([0.5, 2.0])),
    "log normal": dist.LogNormal(torch.tensor([0.5, 0.0]), 1.0),
    "tilted": ExponentiallyTilted(lambda z: 2 * z, "gaussian").expand((2,)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_are_the_inverse_of_quantiles(name: str) -> None:
    normal = torch.linspace(-3.5, 3.5, 30).reshape(15, 2)
    fn = FUNCTIONS[name]
    torch.testing.assert_close(normal_score(fn, normal_quantile(fn)(normal)), normal, atol=2e-3, rtol=0)


def test_what_cannot_be_refined_is_named() -> None:
    def nothing(x: Tensor) -> None:
        pyro.param("unused", torch.zeros(()))

    with pytest.raises(ValueError, match="persistent: got True with a guide"):
        LangevinMLE(persistent=True).loss(conjugate, guide, X)
    with pytest.raises(ValueError, match=r"guide: got none of the sites \['z'\]"):
        LangevinMLE().loss(conjugate, nothing, X)
    with pytest.raises(ValueError, match="guide: got <function guide"):
        SteppingstoneMLE().loss(conjugate, guide, X)
