"""
Importance sampling: weights, resampled draws, and models that can or can't be run in one batch.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import ImportanceSampling, fitted_guide
from pyro_tkam.infer.evidence.proposals import Proposal

DATA = torch.tensor([[0.0, 0.5], [1.0, -0.5], [2.0, 0.3]])


def latent(data, dim=-1):
    """``z`` for each datum, posterior ``N(x / 2, 1 / sqrt 2)``."""
    with pyro.plate("data", len(data), dim=dim):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=data if dim == -1 else data[:, None])


def shared(data):
    """One latent for all data; its ``sum`` breaks when a batch of it is passed."""
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(data)):
        pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=data[:, 0])


def looping(data):
    """Branches on its value, so that it only runs draw by draw."""
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    loc = z if float(z) > 0 else -z
    pyro.sample("x", dist.Normal(loc, 1.0), obs=data[1, 0])


@pytest.mark.parametrize("dim", [-1, -2])
def test_per_datum_weights_and_posterior(dim):
    """Means of 20000 resampled draws: 4.5 standard errors of about 0.01."""
    pyro.set_rng_seed(0)
    draws = ImportanceSampling(latent, num_particles=20_000).run(DATA, dim=dim)
    assert draws.log_weights.shape == draws.weights.shape == (20_000, 3)
    assert draws.effective_sample_size.shape == draws.khat.shape == (3,)
    z = draws.samples["z"].reshape(20_000, 3, 2)
    assert (z.mean(0) - DATA / 2).abs().max() < 0.05
    assert (z.var(0) - 0.5).abs().max() < 0.06
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(DATA).sum(-1)
    error = draws.evidence.per_datum - exact
    assert (error.abs() < 4.5 * draws.evidence.per_datum_standard_error).all()


def test_the_error_of_the_total_counts_that_data_share_draws():
    """
    200 repeats: their spread is the reported error within 25% (5 standard errors of a spread).
    """
    pyro.set_rng_seed(0)
    # the same datum five times: errors add up, they don't average out
    data = torch.full((5, 2), 1.0)
    runs = [ImportanceSampling(latent, num_particles=200).run(data).evidence for _ in range(200)]
    spread = torch.tensor([run.value for run in runs]).std()
    reported = torch.tensor([run.standard_error for run in runs]).mean()
    assert abs(spread / reported - 1) < 0.25
    independent = math.hypot(*runs[0].per_datum_standard_error.tolist())
    assert runs[0].standard_error == pytest.approx(math.sqrt(5) * independent, rel=1e-4)


@pytest.mark.parametrize(("model", "way"), [(latent, "plate"), (shared, "vmap"), (looping, "loop")])
def test_each_model_takes_the_fastest_way_that_is_right(model, way):
    proposal = Proposal(model, None, (DATA,), {})
    for _ in range(2):
        proposal.draw(8)
        assert proposal.way == way


@pytest.mark.parametrize(("model", "num"), [(shared, 20_000), (looping, 2000)])
def test_models_that_cannot_be_batched(model, num):
    pyro.set_rng_seed(0)
    evidence = ImportanceSampling(model, num_particles=num).run(DATA).evidence
    covariance = torch.eye(3) + 2
    exact = {
        shared: torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(
            DATA[:, 0]
        ),
        looping: torch.tensor(half_normal_evidence(1.0)),
    }[model]
    assert abs(evidence.value - exact) < 4.5 * evidence.standard_error


def half_normal_evidence(x: float) -> float:
    """``∫ 2 N(z; 0, 1) N(x; z, 1) dz`` over ``z > 0``."""
    tail = 0.5 * (1 + math.erf(x / 2))
    return math.log(2 * tail) - x**2 / 4 - 0.5 * math.log(4 * math.pi)


def test_few_effective_draws_are_resampled_by_datum():
    pyro.set_rng_seed(0)
    data = torch.tensor([[0.0, 0.0], [4.0, 4.0]])
    draws = ImportanceSampling(latent, num_particles=400, ess_threshold=0.1).run(data)
    few = draws.effective_sample_size < 40
    assert few.tolist() == [False, True]
    multiples = draws.weights * 400
    torch.testing.assert_close(draws.weights.sum(0), torch.ones(2))
    torch.testing.assert_close(multiples[:, 1], multiples[:, 1].round())
    torch.testing.assert_close(draws.weights[:, 0], draws.log_weights[:, 0].softmax(0))


def test_a_guide_is_corrected_for():
    def guide(data):
        with pyro.plate("data", len(data)):
            pyro.sample("z", dist.Normal(data / 2, 0.8).to_event(1))

    pyro.set_rng_seed(0)
    draws = ImportanceSampling(latent, guide, num_particles=5000).run(DATA)
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(DATA).sum()
    assert abs(draws.evidence.value - exact) < 4.5 * draws.evidence.standard_error
    assert draws.verdict.trusted


def test_discrete_latents_are_drawn():
    def model(x):
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(4 * k, 1.0), obs=x)

    pyro.set_rng_seed(0)
    evidence = ImportanceSampling(model, num_particles=10_000).run(torch.tensor(1.0)).evidence
    normal = dist.Normal(0.0, 1.0)
    exact = math.log(
        0.7 * normal.log_prob(torch.tensor(1.0)).exp()
        + 0.3 * normal.log_prob(torch.tensor(3.0)).exp()
    )
    assert abs(evidence.value - exact) < 4.5 * evidence.standard_error


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_particles": 3}, "num_particles"),
        ({"resampler": "x"}, "resampler"),
        ({"ess_threshold": 2}, "ess_threshold"),
        ({"target_se": 0.0}, "target_se"),
        ({"max_particles": 10, "target_se": 0.1}, "max_particles"),
    ],
)
def test_bad_options(options, name):
    with pytest.raises(ValueError, match=name):
        ImportanceSampling(latent, **options)


def test_data_that_are_not_finite():
    with pytest.raises(ValueError, match="NaN"):
        ImportanceSampling(latent).run(torch.tensor([[0.0, math.nan]]))


def test_more_draws_until_a_target():
    pyro.set_rng_seed(0)
    x = torch.tensor([0.5, 1.5])

    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    grown = ImportanceSampling(model, num_particles=500, target_se=0.01).run(x)
    assert grown.num_particles > 5000
    assert grown.evidence.standard_error <= 0.01
    assert "target not reached" not in grown.verdict.names
    assert grown.values["z"].shape[0] == grown.num_particles
    exact = dist.MultivariateNormal(torch.zeros(2), torch.ones(2, 2) + 0.25 * torch.eye(2))
    assert abs(grown.evidence.value - exact.log_prob(x)) < 4.5 * grown.evidence.standard_error
    limited = ImportanceSampling(model, num_particles=500, target_se=0.01, max_particles=700).run(x)
    assert limited.num_particles == 700
    assert "target not reached" in limited.verdict.names


def test_smoothed_weights_and_distinct_draws():
    pyro.set_rng_seed(0)

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.3), obs=torch.tensor(1.5))

    draws = ImportanceSampling(model, num_particles=1000).run()
    assert draws.smoothed_weights.sum() == pytest.approx(1)
    scale = draws.smoothed_weights / draws.log_weights.softmax(0)
    body = draws.log_weights > draws.log_weights.quantile(0.9) - 20
    body &= draws.log_weights < draws.log_weights.quantile(0.85)  # below the tail
    assert scale[body].std() < 1e-4 * scale[body].mean()
    assert draws.distinct_draws == len(draws.samples["z"].unique())


def test_a_guide_fitted_to_draws():
    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.2))
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), scale).to_event(1))
        pyro.sample("x", dist.Normal(loc, 0.5).to_event(1), obs=x)

    pyro.set_rng_seed(0)
    x = torch.tensor([1.0, -0.5])
    prior = ImportanceSampling(model, num_particles=8000).run(x)
    chosen = torch.randperm(8000)[:4000]
    samples = {name: value[chosen].unflatten(0, (4, 1000)) for name, value in prior.samples.items()}
    guide = fitted_guide(model, x, draws=samples)
    weighted = ImportanceSampling(model, guide, num_particles=4000).run(x)
    assert weighted.effective_sample_size > 3000
    logs = torch.linspace(-2, 2, 4001).double()
    spread = (logs.mul(2).exp() + 0.25).sqrt()[:, None]
    given_scale = dist.Normal(0.0, spread).log_prob(x).sum(-1)
    exact = (given_scale + dist.Normal(0.0, 0.2).log_prob(logs)).logsumexp(0) + math.log(1e-3)
    assert abs(weighted.evidence.value - exact) < 4.5 * weighted.evidence.standard_error
    with pytest.raises(ValueError, match="got none of"):
        fitted_guide(model, x, draws={"loc": samples["loc"]})


def test_a_guide_fitted_to_angles_around_the_cut():
    def model(x):
        mean = pyro.sample("mean", dist.VonMises(0.0, 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.VonMises(mean, 20.0), obs=x)

    pyro.set_rng_seed(0)
    x = torch.tensor([3.1, -3.1, 3.0])
    grid = torch.linspace(-math.pi, math.pi, 4001).double()[1:]
    log_joint = dist.VonMises(0.0, torch.tensor(0.1).double()).log_prob(grid)
    log_joint += dist.VonMises(grid[:, None], 20.0).log_prob(x.double()).sum(-1)
    exact = log_joint.logsumexp(0).item() + math.log(2 * math.pi / 4000)
    draws = grid[log_joint.exp().multinomial(4000, replacement=True)].float().reshape(4, 1000)
    guide = fitted_guide(model, x, draws={"mean": draws})
    evidence = ImportanceSampling(model, guide, num_particles=4000).run(x).evidence
    assert abs(evidence.value - exact) < 5 * evidence.standard_error
    assert evidence.standard_error < 0.01
    around = {"mean": 2 * math.pi * (torch.rand(4, 1000) - 0.5)}
    with pytest.raises(ValueError, match=r"deviation of at most 0.1 turns.*got 0\.2"):
        fitted_guide(model, x, draws=around)
