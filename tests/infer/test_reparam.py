"""Sites behind the inverse CDF: exact prior, finite tails, and inference that runs on them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, autoguide
from pyro.infer.autoguide.initialization import InitMessenger, init_to_value
from pyro.poutine import condition, reparam, trace
from scipy.stats import geom, kstest, norm, poisson

from benchmarks.langevin import least_ess
from benchmarks.reparam import rough_model
from pyro_tkam.distributions import ExponentiallyTilted, TiltedMixture
from pyro_tkam.distributions.normal_quantile import normal_quantile, normal_score
from pyro_tkam.infer import MALA, AutoMALA, InverseTransformReparam, VectorizedMCMC


def rough(dtype: torch.dtype = torch.float32) -> ExponentiallyTilted:
    """Three batches of an energy with a dozen humps."""
    height = torch.tensor([0.5, 1.0, 2.0], dtype=dtype)
    return ExponentiallyTilted(lambda z: height * torch.sin(10 * z), "gaussian")


def mixture() -> TiltedMixture:
    slopes = torch.tensor([[-3.0, 3.0]]) * torch.ones(3, 1)
    return TiltedMixture(torch.zeros(3, 2), ExponentiallyTilted(lambda z: slopes * z, "gaussian"))


def spread(kind: type, *parameters: float) -> dist.TorchDistribution:
    return kind(*(torch.full((3,), value) for value in parameters))


SITES = {
    "tilted": rough(),
    "mixture": mixture(),
    "normal": spread(dist.Normal, 1.0, 2.0),
    "lognormal": spread(dist.LogNormal, 0.0, 0.5),
    "uniform": spread(dist.Uniform, -1.0, 3.0),
    "exponential": spread(dist.Exponential, 2.0),
    "laplace": spread(dist.Laplace, 0.0, 1.0),
    "cauchy": spread(dist.Cauchy, 0.0, 1.0),
    "half normal": spread(dist.HalfNormal, 2.0),
    "gumbel": spread(dist.Gumbel, 0.0, 1.0),
    "kumaraswamy": spread(dist.Kumaraswamy, 2.0, 3.0),
    "weibull": spread(dist.Weibull, 2.0, 1.5),
}
WHITE = {"z": InverseTransformReparam()}


@pytest.mark.parametrize("name", SITES)
def test_sites_become_noise_and_a_finite_function_of_it(name):
    fn = SITES[name]

    def model(noise):
        inner = condition(
            reparam(lambda: pyro.sample("z", fn.to_event(1)), WHITE), {"z_noise": noise}
        )
        return trace(inner).get_trace()

    noise = torch.tensor([-8.0, 0.0, 8.0], requires_grad=True)
    nodes = model(noise).nodes
    z = nodes["z"]["value"]
    assert isinstance(nodes["z"]["fn"].base_dist, dist.Delta)
    assert nodes["z"]["fn"].log_prob(z) == 0
    assert z.dtype == torch.float32
    assert z.isfinite().all()
    assert fn.support.check(z).all()
    (slope,) = torch.autograd.grad(z.sum(), noise)
    assert slope.isfinite().all()
    assert slope[1] != 0
    expected = dist.Normal(0.0, 1.0).expand((3,)).to_event(1).log_prob(noise)
    torch.testing.assert_close(nodes["z_noise"]["fn"].log_prob(noise), expected)


@pytest.mark.parametrize("name", SITES)
def test_noise_is_pushed_to_the_site_law(name):
    """Kolmogorov-Smirnov on 3,000 draws; false alarms: 1e-4 a site."""
    pyro.set_rng_seed(3)
    fn = SITES[name]
    model = reparam(lambda: pyro.sample("z", fn.to_event(1)), WHITE)
    draws = Predictive(model, num_samples=1000, parallel=True)()["z"]
    assert kstest(fn.cdf(draws).detach().flatten().numpy(), "uniform").pvalue > 1e-4


def test_density_in_new_coordinates_is_standard_normal():
    fn = rough(torch.float64)
    noise = torch.linspace(-7.5, 7.5, 31).double()[:, None].expand(-1, 3)
    pushed = InverseTransformReparam()
    with trace() as tr, condition(data={"z_noise": noise}), reparam(config={"z": pushed}):
        z = pyro.sample("z", fn.expand((31, 3)))
    assert z is tr.trace.nodes["z"]["value"]
    tail = torch.from_numpy(norm.cdf(-noise.abs().numpy()))
    expected = torch.where(noise > 0, fn.icdf(tail, upper=True), fn.icdf(tail))
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        fn.cdf(z), torch.from_numpy(norm.cdf(noise.numpy())), rtol=1e-9, atol=1e-14
    )


def test_values_to_start_from_become_noise():
    start = torch.tensor([-1.0, 0.3, 2.0])
    model = reparam(lambda: pyro.sample("z", rough()), WHITE)
    nodes = trace(InitMessenger(init_to_value(values={"z": start}))(model)).get_trace()
    torch.testing.assert_close(nodes.nodes["z"]["value"], start)
    noise = nodes.nodes["z_noise"]["value"]
    torch.testing.assert_close(torch.special.ndtr(noise), rough().cdf(start), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SITES)
def test_the_noise_to_start_from_gives_the_value_back(name):
    fn = SITES[name]
    start = normal_quantile(fn)(torch.tensor([-1.5, 0.5, 1.0]))
    model = reparam(lambda: pyro.sample("z", fn), WHITE)
    noise = (
        trace(InitMessenger(init_to_value(values={"z": start}))(model))
        .get_trace()
        .nodes["z_noise"]["value"]
    )
    torch.testing.assert_close(normal_quantile(fn)(noise), start, atol=1e-4, rtol=1e-4)


COUNTS = [
    *(
        (dist.Poisson(torch.tensor(rate).double()), poisson(rate))
        for rate in (0.01, 1.0, 30.0, 1e6)
    ),
    *(
        (dist.Geometric(torch.tensor(chance).double()), geom(chance, loc=-1))
        for chance in (0.01, 0.3, 0.999)
    ),
]


@pytest.mark.parametrize(("fn", "peer"), COUNTS)
def test_counts_are_the_least_whose_cdf_reaches_that_of_the_noise(fn, peer):
    noise = torch.linspace(-8, 8, 2001).double()
    count = normal_quantile(fn)(noise)
    below, above = norm.cdf(noise), norm.sf(noise)
    k, lower, slack = count.numpy(), noise.numpy() <= 0, 1e-9
    upper_half = (peer.sf(k) <= above * (1 + slack)) & (peer.sf(k - 1) >= above * (1 - slack))
    lower_half = (peer.cdf(k) >= below * (1 - slack)) & (peer.cdf(k - 1) <= below * (1 + slack))
    assert (lower & lower_half | ~lower & upper_half).all()
    assert count.max() > fn.mean  # the noise reaches beyond a constant
    torch.testing.assert_close(normal_quantile(fn)(normal_score(fn, count)), count)


def test_masks_stay_on_the_noise():
    mask = torch.tensor([True, False, True])
    nodes = trace(reparam(lambda: pyro.sample("z", rough().mask(mask)), WHITE)).get_trace().nodes
    assert nodes["z_noise"]["fn"].log_prob(torch.zeros(3))[1] == 0


@pytest.mark.parametrize(
    "fn", [dist.Gamma(2.0, 1.0), dist.Beta(1.0, 2.0), dist.StudentT(3.0), dist.Bernoulli(0.5)]
)
def test_sites_without_an_inverse_cdf_are_refused(fn):
    with pytest.raises(ValueError, match="z must be a distribution with an inverse CDF, got "):
        reparam(lambda: pyro.sample("z", fn), WHITE)()


def test_observed_sites_are_refused():
    with pytest.raises(ValueError, match="z must be a latent site, got an observed one"):
        reparam(lambda: pyro.sample("z", rough(), obs=torch.zeros(3)), WHITE)()


ROUGH = rough()


def posterior_model():
    z = pyro.sample("z", ROUGH.to_event(1))
    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=torch.tensor([0.5, -1.0, 1.5]))


def exact_mean() -> torch.Tensor:
    grid = torch.linspace(-4, 4, 8001)[:, None]
    weight = (rough().log_prob(grid) - 0.5 * (grid - torch.tensor([0.5, -1.0, 1.5])) ** 2).exp()
    return (weight * grid).sum(0) / weight.sum(0)


@pytest.mark.parametrize("guide", [autoguide.AutoNormal, autoguide.AutoMultivariateNormal])
def test_autoguides_learn_on_it(guide):
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    model = reparam(posterior_model, WHITE)
    fitted = guide(model, init_scale=0.5)
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, fitted, pyro.optim.Adam({"lr": 0.05}), elbo)
    for _ in range(150):
        svi.step()
    draws = Predictive(model, guide=fitted, num_samples=300, parallel=True)()["z"].reshape(-1, 3)
    assert (draws.mean(0) - exact_mean()).abs().max() < 0.35


@pytest.mark.slow
def test_langevin_chains_run_on_it():
    """300 draws of 64 chains, trusted at 16 of 16 seeds; the tolerance is five standard errors."""
    pyro.set_rng_seed(0)
    mcmc = VectorizedMCMC(
        AutoMALA(reparam(posterior_model, WHITE)), 300, warmup_steps=200, num_chains=64
    )
    mcmc.run()
    noise = mcmc.get_samples()["z_noise"]
    z = normal_quantile(ROUGH)(noise.reshape(-1, 3))
    assert (z.mean(0) - exact_mean()).abs().max() < 0.06


def test_chains_mix_better_on_the_noise_of_a_rough_energy():
    """Effective draws of as many gradients: 24 to 55 times as many at six seeds."""

    def effective_draws(model) -> float:
        pyro.set_rng_seed(0)
        mcmc = VectorizedMCMC(MALA(model), 200, num_chains=64)
        mcmc.run()
        return least_ess(mcmc.get_samples(group_by_chain=True))

    model = rough_model()
    noise = effective_draws(reparam(model, WHITE))
    with pytest.warns(UserWarning, match="the draws are not to be trusted: chains disagree"):
        raw = effective_draws(model)
    assert noise > 10 * raw


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_draw_may_come_from_its_own_end(dtype):
    fn = rough(dtype)
    u = torch.tensor([[1e-6, 0.3, 1e-6], [0.7, 0.2, 0.999]], dtype=dtype, requires_grad=True)
    upper = torch.tensor([[True, False, False], [True, True, False]])
    mixed, expected = (
        fn.icdf(u, upper=upper),
        torch.where(upper, fn.icdf(u, upper=True), fn.icdf(u)),
    )
    torch.testing.assert_close(mixed, expected, rtol=0, atol=0)
    slopes = (torch.autograd.grad(z.sum(), u, retain_graph=True)[0] for z in (mixed, expected))
    torch.testing.assert_close(*slopes, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"upper must broadcast to \(2, 3\), got shape \(2,\)"):
        fn.icdf(u, upper=upper[:, 0])
