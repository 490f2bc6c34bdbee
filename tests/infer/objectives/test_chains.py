"""The objectives that sample the posterior by Langevin chains."""

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.distributions import Normal

from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.infer import (
    MALA,
    ULA,
    AutoMALA,
    EnsembleHMC,
    ImportanceMLE,
    LangevinKernel,
    LangevinMLE,
    SteppingstoneMLE,
)
from pyro_tkam.infer.objectives.chains import ChainMLE
from pyro_tkam.infer.objectives.posterior import BoundModel
from pyro_tkam.models import TKAM, GaussianLikelihood, TiltedPrior
from pyro_tkam.ops.estimators import steppingstone
from pyro_tkam.ops.schedules import cyclic_exponent, power_law
from tests.laws.objective import START, X, check_gradient, conjugate, exact, gradient_of

PAPER = {"step_size": 0.7, "num_unadjusted": 10, "min_step_size": 0.05, "max_step_size": 2.0}
OBJECTIVES: dict[str, Callable[[int], ELBO]] = {
    "ula": lambda chains: LangevinMLE(ULA, step_size=0.02, num_steps=150, num_chains=chains),
    "ula contrastive": lambda chains: LangevinMLE(
        ULA, step_size=0.02, num_steps=150, num_chains=chains, log_prior_gradient="contrastive"
    ),
    "mala": lambda chains: LangevinMLE(MALA, step_size=0.3, num_steps=30, num_chains=chains),
    "automala": lambda chains: LangevinMLE(AutoMALA, num_steps=30, num_chains=chains, **PAPER),
    "steppingstone": lambda chains: SteppingstoneMLE(
        ULA, step_size=0.02, num_temperatures=3, num_steps=100, num_chains=chains
    ),
    "thermodynamic": lambda chains: SteppingstoneMLE(
        AutoMALA,
        estimator="thermodynamic",
        num_temperatures=4,
        exponent=2.0,
        num_chains=chains,
        **PAPER,
    ),
    "importance": lambda chains: ImportanceMLE(100 * chains, ess_threshold=0.0),
    "importance resampled": lambda chains: ImportanceMLE(100 * chains, ess_threshold=1.0),
    "importance contrastive": lambda chains: ImportanceMLE(
        100 * chains, ess_threshold=0.0, log_prior_gradient="contrastive"
    ),
    "reweighted": lambda chains: SteppingstoneMLE(
        AutoMALA, gradient="reweighted", num_temperatures=4, num_chains=chains, **PAPER
    ),
}
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


@every_objective
@pytest.mark.slow
def test_the_gradient_is_that_of_the_evidence(name: str) -> None:
    """
    With 3,000 chains the standard errors are about 1%, so that 5% are missed less than once in
    10,000 times.

    Importance sampling has 300,000 draws of the prior, which all data share.
    """
    pyro.set_rng_seed(0)
    check_gradient(gradient_of(OBJECTIVES[name](3000)))


def fixed_sample_gradient(x: Tensor, loc: float, slope: float, noise: float) -> dict[str, Tensor]:
    """
    Differentiate the steppingstone value with its draws, here exact ones, held fixed: the error to
    avoid.
    """
    betas = power_law(200, 2.0, dtype=x.dtype)
    precision = 1 + betas[:, None] * slope**2 / noise**2
    mean = (loc + betas[:, None] * slope * x / noise**2) / precision
    z = (
        mean[:, None, None]
        + torch.randn(200, 1, 4000, len(x), dtype=x.dtype) / precision[:, None, None].sqrt()
    )
    parameters = torch.tensor([loc, slope, noise], dtype=x.dtype).requires_grad_()
    value = -steppingstone(Normal(parameters[1] * z, parameters[2]).log_prob(x), betas).value.sum()
    (gradient,) = torch.autograd.grad(value, parameters)
    return dict(zip(START, gradient, strict=True))


def test_the_gradient_of_a_fixed_sample_value_is_caught() -> None:
    """
    It forgets that the draws depend on the parameters; for this datum the slope's is 3.5 times too
    small.
    """
    pyro.set_rng_seed(0)
    with pytest.raises(AssertionError):
        check_gradient(fixed_sample_gradient(X, **START))
    x, slope, noise = (
        torch.tensor([1.485], dtype=torch.float64),
        torch.tensor(1.0).double().requires_grad_(),
        0.5,
    )
    (right,) = torch.autograd.grad(
        -Normal(0.0, (slope.square() + noise**2).sqrt()).log_prob(x).sum(), slope
    )
    wrong = fixed_sample_gradient(x, 0.0, 1.0, noise)["slope"]
    assert 3.2 < right / wrong < 4.2


@pytest.mark.slow
def test_the_bias_of_ula_is_of_the_order_of_its_step_size() -> None:
    """
    At equilibrium the variance, here 1/2, is too large by a factor ``1 / (1 - η)``, which the
    noise's gradient sees.

    With 40,000 chains the standard error is 0.025, so that 0.1 is missed less than once in 10,000
    times.
    """
    pyro.set_rng_seed(0)
    for step_size in (0.1, 0.2, 0.4):
        found = gradient_of(
            LangevinMLE(ULA, step_size=step_size, num_steps=int(4 / step_size), num_chains=40_000)
        )
        bias = found["noise"] - exact()[1]["noise"]
        assert abs(bias + len(X) * 0.5 * step_size / (1 - step_size)) < 0.1


@pytest.mark.parametrize("tempered", [False, True])
def test_the_bias_falls_with_the_number_of_steps(tempered: bool) -> None:
    """From the prior, where the slope's gradient is far off, to equilibrium (2,000 chains)."""
    pyro.set_rng_seed(0)
    make = partial(SteppingstoneMLE, num_temperatures=3) if tempered else LangevinMLE
    errors = []
    for num_steps in (2, 8, 32):
        found = gradient_of(make(ULA, step_size=0.05, num_steps=num_steps, num_chains=2000))
        errors.append(abs(float(found["slope"] / exact()[1]["slope"]) - 1))
    assert errors[0] > 2 * errors[1]
    assert errors[0] > 0.1
    assert errors[2] < 0.04  # three standard errors


@pytest.mark.parametrize("estimator", ["steppingstone", "thermodynamic"])
def test_the_value_is_the_negative_log_evidence(estimator: str) -> None:
    """
    The trapezoid's remainder at 20 rungs is 0.03; the standard error of the value is about 0.02.
    """
    pyro.set_rng_seed(0)
    objective = SteppingstoneMLE(
        MALA,
        step_size=0.3,
        estimator=estimator,
        num_temperatures=20,
        exponent=2.0,
        num_steps=40,
        num_chains=200,
    )
    assert abs(objective.loss(conjugate, None, X) - exact()[0]) < 0.15
    assert objective.statistics.log_evidence.shape == X.shape


def test_the_value_of_langevin_is_the_expected_log_likelihood() -> None:
    pyro.set_rng_seed(0)
    mean, variance = (START["loc"] + X) / 2, 0.5
    expected = -(Normal(mean, 1.0).log_prob(X) - variance / 2).sum()
    found = LangevinMLE(MALA, step_size=0.3, num_steps=30, num_chains=3000).loss(conjugate, None, X)
    assert abs(found - expected) < 0.15  # five standard errors


def _small(make: Callable[..., TKAM], **options: object) -> TKAM:
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    return make(3, latent_dim=2, grid_size=5, widths=[6], noise_scale=0.3, **options)


MODELS: dict[str, Callable[[], TKAM]] = {
    "shared": lambda: _small(TKAM.kart, coupling="shared", reference="learnable_gaussian"),
    "independent": lambda: _small(
        TKAM.kart, coupling="independent", reference="learnable_gaussian"
    ),
    "mixture": lambda: _small(TKAM.mixture, num_components=2),
    "deep": lambda: _small(TKAM.deep, sampler=ShortRunULA(num_steps=3)),
}
SHORT: dict[str, Callable[[], LangevinMLE | SteppingstoneMLE]] = {
    "ula": lambda: LangevinMLE(ULA, step_size=0.01, num_steps=3),
    "automala": lambda: LangevinMLE(
        AutoMALA, num_steps=3, log_prior_gradient="contrastive", **PAPER
    ),
    "steppingstone": lambda: SteppingstoneMLE(ULA, step_size=0.01, num_temperatures=3, num_steps=4),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", SHORT)
def test_every_parameter_moves(kind: str, name: str) -> None:
    model, x = MODELS[kind](), torch.rand(5, 3)
    before = {key: value.clone() for key, value in model.named_parameters()}
    loss = SHORT[name]()(model, None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss(x, size=50).backward()
        optimizer.step()
    assert [key for key, value in model.named_parameters() if torch.equal(value, before[key])] == []


def test_networks_that_are_not_pyros_train_without_a_warning() -> None:
    """
    Pyro warns of a module whose parameters require no gradient, and here a warning is an error.
    """
    pyro.set_rng_seed(0)
    generator = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.SiLU(), torch.nn.Linear(4, 3))
    model = TKAM(TiltedPrior(2, "gaussian", grid_size=5), generator, GaussianLikelihood(0.5))
    loss = LangevinMLE(ULA, step_size=0.01, num_steps=2)(model, None)
    for _ in range(2):
        loss(torch.rand(4, 3)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("coupling", ["shared", "independent"])
def test_the_scores_are_those_of_the_draws_themselves(coupling: str) -> None:
    """
    At fixed ``z`` the prior learns through its density, at fixed ``u`` through the likelihood;
    never both.
    """
    model, x = MODELS[coupling](), torch.rand(5, 3)
    bound = BoundModel(model, ULA(model), (x,), {})
    position, weights = bound.draw_prior(4), torch.rand(4, 5)
    with bound.frozen():
        (drawn,) = bound.density.constrain(position).values()
    particles = bound.score(bound.values(position))
    (weights * (particles.log_prior + particles.log_likelihood)).sum().backward()
    found = {name: value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    prior = model.prior()
    if coupling == "shared":
        assert ((drawn > 0) & (drawn < 1)).all()
        z, log_prior = prior.icdf(drawn.unsqueeze(-2)), torch.zeros(())
    else:
        z, log_prior = drawn, prior.log_prob(drawn).sum((-1, -2))
    log_likelihood = Normal(model.generator(z), 0.3).log_prob(x).sum(-1)
    torch.testing.assert_close(particles.log_likelihood, log_likelihood)
    (weights * (log_prior + log_likelihood)).sum().backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-3)


def test_svi_trains() -> None:
    pyro.set_rng_seed(0)
    svi = pyro.infer.SVI(
        conjugate, None, pyro.optim.Adam({"lr": 0.1}), loss=SteppingstoneMLE(step_size=0.1)
    )
    losses = [svi.step(X) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(pyro.param(name).item() != value for name, value in START.items())
    assert svi.evaluate_loss(X) > 0


def test_a_mini_batch_scales_to_the_whole_data() -> None:
    found = []
    for size in (len(X), 10 * len(X)):
        pyro.set_rng_seed(0)
        found.append(gradient_of(LangevinMLE(ULA, step_size=0.1, num_steps=5), X, size))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], 10 * gradient)


def test_each_datum_has_the_same_draws_whatever_the_others_are() -> None:
    """Chains of one datum see no other: its gradient is unchanged where others move far away."""
    gradients = []
    for others in (0.0, 50.0):
        pyro.set_rng_seed(0)
        locs = torch.zeros(3, dtype=torch.float64, requires_grad=True)

        def model(x: Tensor, locs: Tensor = locs) -> None:
            with pyro.plate("data", 3):
                z = pyro.sample("z", dist.Normal(locs, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        x = torch.tensor([1.0, others, others], dtype=torch.float64)
        objective = SteppingstoneMLE(AutoMALA, num_chains=2, **PAPER)
        objective.differentiable_loss(model, None, x).backward()
        gradients.append(locs.grad)
    assert gradients[0][0] == gradients[1][0]
    assert gradients[0][1] != gradients[1][1]


def test_the_number_of_model_runs_does_not_depend_on_data_chains_or_temperatures() -> None:
    runs = []
    for rows, chains, temperatures in ((2, 1, 2), (40, 5, 7)):
        count = [0]

        def counted(x: Tensor, count: list[int] = count) -> None:
            count[0] += 1
            conjugate(x)

        objective = SteppingstoneMLE(
            step_size=0.1, num_temperatures=temperatures, num_chains=chains, num_steps=4
        )
        for _ in range(2):
            count[0] = 0
            objective.differentiable_loss(counted, None, torch.zeros(rows).double())
        runs.append(count[0])
    assert runs[0] == runs[1] < 15


def test_global_latents_are_sampled_as_one() -> None:
    pyro.set_rng_seed(0)

    def model(x: Tensor) -> None:
        shift = pyro.param("shift", torch.zeros((), dtype=x.dtype))
        loc = pyro.sample("loc", dist.Normal(shift, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    LangevinMLE(MALA, step_size=0.1, num_steps=30, num_chains=3000).loss_and_grads(model, None, X)
    assert abs(pyro.param("shift").grad + X.sum() / 5) < 0.05  # five standard errors


def test_chains_are_invisible_and_leave_the_parameters_as_they_were() -> None:
    model, x = MODELS["deep"](), torch.rand(4, 3)
    with pyro.poutine.trace() as tracing:
        SHORT["steppingstone"]().differentiable_loss(model, None, x)
    sites = [name for name, site in tracing.trace.nodes.items() if site["type"] == "sample"]
    assert sites == ["data", "z", "x"] or sites == ["z", "x"]
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="x must be finite, got NaN or infinite elements"):
        SHORT["ula"]().differentiable_loss(model, None, x / 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_two_models_share_nothing() -> None:
    """An objective that met another model first gives what a new one gives."""

    def nested(x: Tensor) -> None:
        with pyro.plate("columns", 1, dim=-1), pyro.plate("rows", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None])

    for make in (*SHORT.values(), lambda: ImportanceMLE(10)):
        used, losses = make(), []
        used.loss(nested, None, X)
        for objective in (used, make()):
            pyro.set_rng_seed(0)
            objective.loss(conjugate, None, X)  # the first call looks at the model
            pyro.set_rng_seed(0)
            losses.append(objective.loss(conjugate, None, X))
        assert losses[0] == losses[1]


def test_step_sizes_and_the_exponent_follow_the_training_steps() -> None:
    pyro.set_rng_seed(0)
    steps = []

    def exponent(step: int) -> float:
        steps.append(step)
        return cyclic_exponent(step, total=3, start=4.0, end=1.0)

    objective = SteppingstoneMLE(AutoMALA, num_temperatures=3, exponent=exponent, **PAPER)
    objective.loss(conjugate, None, X)
    assert torch.equal(objective.statistics.step_size, torch.full((2,), 0.7, dtype=torch.float64))
    for _ in range(3):
        gradient_of(objective)
    assert steps == [0, 0, 0, 1, 2]  # in the constructor, without and with gradients
    carried = objective.state_dict()["step_size"]
    assert ((carried != 0.7) & (carried >= 0.05) & (carried <= 2.0)).all()
    other = SteppingstoneMLE(AutoMALA, num_temperatures=3, exponent=exponent, **PAPER)
    other.loss(conjugate, None, X)
    other.load_state_dict(objective.state_dict())
    pyro.set_rng_seed(5)
    expected = gradient_of(objective)
    pyro.set_rng_seed(5)
    assert gradient_of(other) == expected


@pytest.mark.parametrize("tempered", [False, True])
def test_persistent_chains_go_on(tempered: bool) -> None:
    """
    Chains of 2 steps, far from equilibrium, get there over 60 training steps (2,000 chains,
    parameters fixed).
    """
    pyro.set_rng_seed(0)
    make = partial(SteppingstoneMLE, num_temperatures=3) if tempered else LangevinMLE
    objective = make(ULA, step_size=0.02, num_steps=2, num_chains=2000, persistent=True)
    with pytest.raises(AssertionError):
        check_gradient(gradient_of(objective))
    for _ in range(60):
        gradient = gradient_of(objective)
    check_gradient(gradient)
    with pytest.raises(ValueError, match=r"persistent must be False for.*, got True"):
        gradient_of(objective, X, 10)
    with pytest.raises(
        ValueError,
        match=r"persistent must be False if the number of data changes, got chains of shape \(",
    ):
        gradient_of(objective, X[:3])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: LangevinMLE(num_steps=0),
            ValueError,
            "num_steps must be an integer of at least 1, got 0",
        ),
        (
            lambda: LangevinMLE(num_chains=0),
            ValueError,
            "num_chains must be an integer of at least 1, got 0",
        ),
        (
            lambda: LangevinMLE(log_prior_gradient="none"),
            ValueError,
            r"log_prior_gradient must be one of.*, got 'none'",
        ),
        (lambda: LangevinMLE(step_size=-1.0), ValueError, "step_size must be positive"),
        (
            lambda: LangevinMLE(ULA(conjugate), step_size=0.1),
            ValueError,
            r"options must be passed to the.*, got \['step_size'\] with a kernel",
        ),
        (
            lambda: LangevinMLE("ula"),
            TypeError,
            "kernel must be ULA, MALA, AutoMALA or an instance of one of them, got 'ula'",
        ),
        (
            lambda: LangevinMLE(lambda model: 3),
            TypeError,
            r"kernel must be ULA, MALA,.*, got <function",
        ),
        (
            lambda: SteppingstoneMLE(estimator="ais"),
            ValueError,
            r"estimator must be one of \['steppingstone', 'thermodynamic'\], got 'ais'",
        ),
        (
            lambda: SteppingstoneMLE(gradient="first"),
            ValueError,
            r"gradient must be one of \['last', 'reweighted'\], got 'first'",
        ),
        (
            lambda: SteppingstoneMLE(gradient="reweighted"),
            ValueError,
            'num_chains must be at least 2 with gradient="reweighted", got 1',
        ),
        (
            lambda: SteppingstoneMLE(num_steps=1),
            ValueError,
            "num_steps must be an integer of at least 2, got 1",
        ),
        (
            lambda: SteppingstoneMLE(swap_every=0),
            ValueError,
            "swap_every must be an integer of at least 1, got 0",
        ),
        (
            lambda: SteppingstoneMLE(num_temperatures=1),
            ValueError,
            "num_temperatures must be an integer of at least 2",
        ),
        (lambda: SteppingstoneMLE(exponent=0.0), ValueError, "exponent must be positive"),
        (
            lambda: SteppingstoneMLE().loss(conjugate, conjugate, X),
            ValueError,
            r"guide must be None, because chains.*, got <function conjugate at",
        ),
    ],
)
def test_refuses_bad_options(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_refuses_models_that_chains_cannot_sample() -> None:
    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            z = pyro.sample("z", dist.Normal(k, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def coupled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.roll(1, -1), 1.0), obs=x)

    with pytest.raises(
        ValueError, match=r"model must have continuous latent sites, got discrete ones \('k',\)"
    ):
        LangevinMLE().loss(discrete, None, X.float())
    with pytest.raises(ValueError, match="couples its data"):
        LangevinMLE().loss(coupled, None, X.float())
    with pytest.raises(
        ValueError, match="model must have latent and observed sites, got no observed site"
    ):
        LangevinMLE().loss(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), None)


def test_a_kernel_that_is_made_lends_its_configuration() -> None:
    objective = LangevinMLE(AutoMALA(conjugate, **PAPER), num_steps=2)
    objective.loss(conjugate, None, X)
    assert objective.statistics.step_size.item() == 0.7


@pytest.mark.slow
@pytest.mark.parametrize("objective", [LangevinMLE, SteppingstoneMLE])
@pytest.mark.parametrize("kernel", [MALA, AutoMALA, EnsembleHMC])
def test_the_gradient_is_right_where_posteriors_are_narrow(
    objective: type[ChainMLE], kernel: type[LangevinKernel]
) -> None:
    """At the defaults, from prior draws; an AutoMALA that is exact from its first step has 1,500.

    The mean of 4 gradients of 400 data by 16 chains is known to 3 and allowed 15 (one in 10^6).
    """
    pyro.set_rng_seed(0)
    x = torch.randn(400, dtype=torch.float64)
    slope = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    loss = -dist.Normal(0.0, (slope.square() + 0.25).sqrt()).log_prob(x).sum()
    (exact,) = torch.autograd.grad(loss, slope)

    def model(x: Tensor) -> None:
        theta = pyro.param("theta", torch.tensor(1.3, dtype=torch.float64))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(theta), 1.0))
            pyro.sample("x", dist.Normal(theta * z, 0.5), obs=x)

    made, found = objective(kernel, num_chains=16), []
    for _ in range(4):
        pyro.clear_param_store()
        made.loss_and_grads(model, None, x)
        found.append(pyro.param("theta").grad)
    assert abs(torch.stack(found).mean() - exact) < 15


def test_chains_that_stand_still_are_told() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            pyro.sample("x", dist.Normal(1.3 * z, 0.5), obs=x)

    objective = LangevinMLE(MALA, num_chains=16, step_size=0.4)
    x = torch.randn(100, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"% of the chains did not move in 20 steps"):
        objective.loss(model, None, x)
    objective.loss(model, None, x)  # told once: a second warning would be an error
