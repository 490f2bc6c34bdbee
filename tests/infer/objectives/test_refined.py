"""
Chains that refine a guide's draws, on a conjugate model where the chains' law is known after every
step.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score
from pyro_tkam.infer import MALA, ULA, AutoMALA, LangevinMLE, SteppingstoneMLE
from pyro_tkam.infer.objectives.langevin import GUIDE_OBJECTIVES
from pyro_tkam.infer.objectives.posterior import BoundModel
from pyro_tkam.models import TKAM, AmortizedGuide
from tests.laws.objective import START, X, check_gradient, conjugate, exact

LOC, SCALE = -1.5, 0.4
"""
The guide ``q(z|x) = N(-1.5, 0.4²)`` of every datum, far from the posteriors ``N((0.2 + x) / 2,
1/2)``.
"""


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
    """
    Return mean and variance of each datum's chains: ``m' - μ = (1 - 2η)(m - μ)``, ``v' = (1 - 2η)²
    v + 2η``.
    """
    posterior, variance = (START["loc"] + X) / 2, SCALE**2
    for _ in range(num_steps):
        variance = (1 - 2 * step_size) ** 2 * variance + 2 * step_size
    return posterior + (1 - 2 * step_size) ** num_steps * (LOC - posterior), variance


@pytest.mark.parametrize("num_steps", [1, 10])
def test_the_guides_gradient_is_that_of_the_cross_entropy_of_the_chains_ends(
    num_steps: int,
) -> None:
    """
    Five standard errors or more at 40,000 chains: false alarms below 1e-5; with the other sign both
    fail.
    """
    pyro.set_rng_seed(0)
    objective = LangevinMLE(
        ULA, step_size=0.05, num_steps=num_steps, num_chains=40_000, guide_objective="inclusive"
    )
    found = gradients(objective)
    mean, variance = ends(num_steps, 0.05)
    distance = mean - LOC
    assert float(found["q_loc"]) == pytest.approx(float(-distance.sum() / SCALE**2), rel=0.02)
    log_scale = float((1 - (variance + distance.square()) / SCALE**2).sum())
    assert float(found["q_log_scale"]) == pytest.approx(log_scale, rel=0.02)


def test_a_guide_learns_by_the_lower_bound_of_its_own_draws() -> None:
    """
    ``Σ_b ((m_b - q_loc) / v)`` and ``1 - s² / v`` at the posteriors ``N(m_b, v)``, whatever the
    chains do after.

    Five standard errors or more at 40,000 chains: false alarms below 1e-5; the inclusive gradient
    is far from both.
    """
    for num_steps in (1, 5):
        pyro.set_rng_seed(0)
        found = gradients(LangevinMLE(ULA, step_size=0.05, num_steps=num_steps, num_chains=40_000))
        posterior = (START["loc"] + X) / 2
        assert float(found["q_loc"]) == pytest.approx(
            float(-(posterior - LOC).sum() / 0.5), rel=0.02
        )
        assert float(found["q_log_scale"]) == pytest.approx(
            -len(X) * (1 - SCALE**2 / 0.5), rel=0.02
        )


def test_steps_take_off_the_bias_of_a_poor_guide() -> None:
    """
    The slope's gradient is 440% off after one step, 340% after 4, 120% after 16, and exact to 5%
    after 150.

    With 3,000 chains the standard errors are about 1%, so that 5% are missed less than once in
    10,000 times.
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
            AutoMALA,
            step_size=0.7,
            num_unadjusted=10,
            min_step_size=0.05,
            max_step_size=2.0,
            num_steps=30,
            num_chains=3000,
        ),
    ],
    ids=["mala", "automala"],
)
def test_other_kernels_refine_to_the_exact_gradient(objective: LangevinMLE) -> None:
    """
    With 3,000 chains the standard errors are about 1%, so that 5% are missed less than once in
    10,000 times.
    """
    pyro.set_rng_seed(0)
    check_gradient(gradients(objective))


def test_contrastive_subtracts_draws_of_the_prior_not_of_the_guide() -> None:
    """
    A normalized prior has the same gradient both ways; the guide's draws would move it by ``4 ·
    1.7``.
    """
    pyro.set_rng_seed(0)
    objective = LangevinMLE(
        ULA, step_size=0.02, num_steps=150, num_chains=3000, log_prior_gradient="contrastive"
    )
    check_gradient(gradients(objective))


def test_a_guide_that_is_the_posterior_is_at_rest() -> None:
    """Its gradient is zero where MALA, which leaves the posterior as it is, starts from it.

    The score of one draw has variance 2 in either parameter: five standard errors of 4 data, 20,000
    chains each.
    """
    pyro.set_rng_seed(0)
    pyro.clear_param_store()

    def posterior(x: Tensor) -> None:
        shift, log_scale = (
            pyro.param(name, torch.zeros((), dtype=x.dtype)) for name in ("shift", "log_scale")
        )
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", dist.Normal((START["loc"] + x) / 2 + shift, 0.5**0.5 * log_scale.exp())
            )

    objective = LangevinMLE(
        MALA, step_size=0.3, num_steps=3, num_chains=20_000, guide_objective="inclusive"
    )
    objective.loss_and_grads(conjugate, posterior, X)
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
    q = AmortizedGuide(model, hidden=(8,))
    bound = BoundModel(model, ULA(model), (x,), {})
    pyro.set_rng_seed(1)
    _, start = bound.draw_guide(q, 6, reparameterized=False)
    pyro.set_rng_seed(1)
    with torch.no_grad():
        expected = q.posterior(x).sample((6,))
    (values,) = bound.values(start.position).values()
    torch.testing.assert_close(values.reshape(expected.shape), expected, atol=1e-4, rtol=1e-4)


def several(x: Tensor) -> None:
    """Two latent sites with coordinates of either kind, one of them with an event dimension."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        z = pyro.sample("z", dist.Normal(torch.zeros(2), rate.unsqueeze(-1)).to_event(1))
        loc, scale = z.sum(-1, keepdim=True), 0.5 + rate.unsqueeze(-1)
        pyro.sample("x", dist.Normal(loc, scale).expand((*scale.shape[:-1], 3)).to_event(1), obs=x)


class SeveralGuide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc, self.log_scale = (torch.nn.Parameter(0.1 * torch.ones(3)) for _ in range(2))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal(self.loc[0] * x[:, 0], self.log_scale[0].exp()))
            pyro.sample(
                "z", dist.Normal(self.loc[1:] * x[:, 1:], self.log_scale[1:].exp()).to_event(1)
            )


@pytest.mark.parametrize("kind", [*MODELS, "several"])
def test_the_gradient_of_the_lower_bound_is_that_of_the_densities_themselves(kind: str) -> None:
    """
    It goes through coordinates; here the model and the guide are scored at the draws with their
    graph.
    """
    pyro.set_rng_seed(0)
    x = torch.rand(5, 3)
    model = several if kind == "several" else MODELS[kind]()
    q = SeveralGuide() if kind == "several" else AmortizedGuide(model, hidden=(8,))
    bound = BoundModel(model, ULA(model), (x,), {})
    with bound.frozen(q):
        drawn, start = bound.draw_guide(q, 1, reparameterized=True)
        lower_bound = bound.lower_bound(drawn, start)
    values = dict(
        zip(bound.density.layout.sites, (value[0] for value in drawn.values), strict=True)
    )
    joint = pyro.poutine.trace(pyro.poutine.condition(model, values)).get_trace(x).log_prob_sum()
    parameters = list(q.parameters())
    expected = torch.autograd.grad(joint - drawn.log_density.sum(), parameters, retain_graph=True)
    found = torch.autograd.grad(lower_bound.sum(), parameters)
    assert lower_bound.shape == (1, 5)
    for got, wanted in zip(found, expected, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(got, wanted, rtol=2e-3, atol=2e-3)


def test_the_lower_bound_teaches_the_guide_alone() -> None:
    """
    Not even a module of torch's own, whose parameters are not frozen, nor what a handler would see
    twice.
    """
    pyro.set_rng_seed(0)
    network = torch.nn.Linear(1, 3)

    def model(x: Tensor) -> None:
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(network.bias[:1], 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    def q(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(len(x), 1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    x = torch.rand(5, 3)
    bound = BoundModel(model, ULA(model), (x,), {})
    with bound.frozen(q):
        bound.lower_bound(*bound.draw_guide(q, 4, reparameterized=True)).sum().backward()
    assert pyro.param("loc").grad.abs().min() > 0
    assert network.weight.grad is None
    assert network.bias.grad is None


def test_draws_without_a_finite_density_are_made_anew() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("x", torch.where(z > 0.5, x - z, torch.nan))

    def q(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0))

    pyro.set_rng_seed(0)
    with pyro.validation_enabled(False):
        bound = BoundModel(model, ULA(model), (torch.ones(1),), {})
        with bound.frozen(q):
            drawn, start = bound.draw_guide(q, 20, reparameterized=True)
    assert (start.position > 0.5).all()
    torch.testing.assert_close(drawn.values[0].flatten(), start.position.flatten())
    drawn.values[0].sum().backward()
    assert pyro.param("loc").grad == 20


@pytest.mark.parametrize("guide_objective", GUIDE_OBJECTIVES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_parameter_of_model_and_guide_trains(kind: str, guide_objective: str) -> None:
    pyro.set_rng_seed(0)
    model, x = MODELS[kind](), torch.rand(5, 3)
    q = AmortizedGuide(model, hidden=(8,))
    loss = LangevinMLE(ULA, step_size=0.01, num_steps=2, guide_objective=guide_objective)(model, q)
    loss(x, size=20)
    before = {name: value.detach().clone() for name, value in loss.named_parameters()}
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss(x, size=20).backward()
        optimizer.step()
    assert [
        name for name, value in loss.named_parameters() if torch.equal(value, before[name])
    ] == []


FUNCTIONS = {
    "normal": dist.Normal(torch.tensor([1.0, -2.0]), 0.5),
    "several": MultivariateNormal(
        torch.tensor([1.0, 0.0]), scale_tril=torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    ),
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
    torch.testing.assert_close(
        normal_score(fn, normal_quantile(fn)(normal)), normal, atol=2e-3, rtol=0
    )


def test_what_cannot_be_refined_is_named() -> None:
    def nothing(x: Tensor) -> None:
        pyro.param("unused", torch.zeros(()))

    with pytest.raises(ValueError, match=r"persistent must be False with a.*, got True"):
        LangevinMLE(persistent=True).loss(conjugate, guide, X)
    with pytest.raises(
        ValueError, match=r"guide must draw every latent site, got no draw of the sites \['z'\]"
    ):
        LangevinMLE().loss(conjugate, nothing, X)
    with pytest.raises(
        ValueError, match=r"guide must be None, because chains.*, got <function guide at"
    ):
        SteppingstoneMLE().loss(conjugate, guide, X)
    with pytest.raises(
        ValueError, match=r"guide_objective must be one of \['elbo', 'inclusive'\], got 'exclusive'"
    ):
        LangevinMLE(guide_objective="exclusive")


def test_a_guide_that_cannot_be_reparameterized_learns_from_the_ends_of_chains() -> None:
    class Unmoved(dist.Normal):
        has_rsample = False

    def q(x: Tensor) -> None:
        loc = pyro.param("q_loc", torch.zeros((), dtype=x.dtype))
        with pyro.plate("data", len(x)):
            pyro.sample("z", Unmoved(loc, 1.0))

    with pytest.raises(ValueError, match="guide must have sites with rsample, got 'z' without"):
        LangevinMLE().loss_and_grads(conjugate, q, X)
    LangevinMLE(guide_objective="inclusive").loss_and_grads(conjugate, q, X)
    assert pyro.param("q_loc").grad != 0


@pytest.mark.parametrize("guide_objective", GUIDE_OBJECTIVES)
def test_svi_trains_a_guide_that_is_a_function(guide_objective: str) -> None:
    pyro.set_rng_seed(0)
    objective = LangevinMLE(ULA, step_size=0.05, num_steps=2, guide_objective=guide_objective)
    svi = pyro.infer.SVI(conjugate, guide, pyro.optim.Adam({"lr": 0.05}), loss=objective)
    for _ in range(40):
        svi.step(X)
    assert pyro.param("q_loc") > LOC + 0.5
    assert abs(pyro.param("loc") - START["loc"]) > 0.2
