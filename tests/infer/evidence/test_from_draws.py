"""Evidence from draws that samplers, users and ArviZ hand over."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro.contrib.autoname import scope
from pyro.infer import MCMC, NUTS

from pyro_tkam import _arviz
from pyro_tkam.diagnostics import save, to_arviz
from pyro_tkam.infer import SMC, AutoMALA, VectorizedMCMC, bridge_evidence
from tests.infer.evidence.test_cross_bridge import regression_draws
from tests.infer.evidence_problems import assert_close, regression, regression_problem

DATA, EXACT = regression_problem(20, 3)


def seeded(*args, **kwargs):
    pyro.set_rng_seed(0)
    return bridge_evidence(*args, **kwargs)


@pytest.fixture(scope="module")
def samples():
    pyro.set_rng_seed(0)
    return {"weights": regression_draws(DATA, 4, 500)}


def test_samples_by_site(samples):
    evidence = seeded(regression, *DATA, draws=samples)
    assert_close(evidence, EXACT)
    assert evidence.verdict.trusted, evidence
    assert evidence.percentage_error < 1


def test_arviz_data_of_either_version_and_their_files(samples, tmp_path):
    direct = seeded(regression, *DATA, draws=samples).value
    arrays = {name: value.numpy() for name, value in samples.items()}
    container = _arviz.from_groups({"posterior": arrays})
    dims = ("chain", "draw", "weights_dim_0")
    posterior = xarray.Dataset({"weights": (dims, arrays["weights"])})
    tree = xarray.DataTree.from_dict({"posterior": posterior})  # as ArviZ 1.x has it
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    save(container, tmp_path / "run.nc")
    by_site = {"weights": posterior["weights"]}
    for draws in (container, tree, by_site, tmp_path / "tree.nc", str(tmp_path / "run.nc")):
        assert seeded(regression, *DATA, draws=draws).value == pytest.approx(direct, abs=1e-5)


def test_runs_of_both_samplers():
    pyro.set_rng_seed(0)
    many = VectorizedMCMC(
        AutoMALA(regression), num_samples=200, num_chains=16, disable_progbar=True
    )
    many.run(*DATA)
    evidence = seeded(regression, *DATA, draws=many)
    assert_close(evidence, EXACT)
    container = to_arviz(many)
    assert seeded(regression, *DATA, draws=container).value == pytest.approx(evidence.value)

    def normal(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor(0.5)
    one = MCMC(NUTS(normal), num_samples=300, warmup_steps=50, disable_progbar=True)
    one.run(x)
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).item()
    assert_close(seeded(normal, x, draws=one), exact)


def test_rows_of_sequential_monte_carlo():
    pyro.set_rng_seed(0)
    smc = SMC(regression, 256, disable_progbar=True)
    smc.run(*DATA)
    evidence = seeded(regression, *DATA, draws=smc)
    assert_close(evidence, EXACT)
    assert evidence.verdict.trusted, evidence
    with pytest.raises(ValueError, match="has run"):
        bridge_evidence(regression, *DATA, draws=SMC(regression))


def towards(angles, concentration, unit):
    """Data scattered around a direction that is known to nobody, in radians or degrees."""
    prior = dist.VonMises(0.0, 0.1)
    if unit != 1:
        prior = dist.TransformedDistribution(prior, [dist.transforms.AffineTransform(0.0, unit)])
    mean = pyro.sample("mean", prior)
    with pyro.plate("data", len(angles)):
        pyro.sample("angle", dist.VonMises(mean / unit, concentration), obs=angles)


@pytest.mark.parametrize("unit", [1.0, 180 / math.pi], ids=["radians", "degrees"])
@pytest.mark.parametrize("concentration", [20.0, 0.3], ids=["a cap", "all around"])
def test_angles_on_both_sides_of_the_cut(concentration, unit):
    pyro.set_rng_seed(0)
    angles = torch.tensor([3.0, -3.0, 2.8])  # around π, where radians end
    grid = torch.linspace(-math.pi, math.pi, 4001).double()[1:]
    log_joint = dist.VonMises(0.0, torch.tensor(0.1).double()).log_prob(grid)
    for each in angles.double():
        log_joint += dist.VonMises(grid, concentration).log_prob(each)
    exact = (log_joint.logsumexp(0) + math.log(2 * math.pi / 4000)).item()
    chosen = log_joint.exp().multinomial(8000, replacement=True)
    drawn = (grid[chosen] + (torch.rand(8000) - 0.5) * 2 * math.pi / 4000).float()
    drawn = torch.remainder(drawn + math.pi, 2 * math.pi) - math.pi  # as samplers give it
    assert drawn.min() < -3.1
    assert drawn.max() > 3.1
    draws = {"mean": unit * drawn.reshape(8, 1000)}
    evidence = seeded(towards, angles, concentration, unit, draws=draws)
    assert_close(evidence, exact)
    assert evidence.standard_error < 0.02
    assert evidence.verdict.trusted, evidence


def coins(successes, num):
    with pyro.plate("coins", len(successes)):
        p = pyro.sample("p", dist.Beta(0.5, 0.5))
        pyro.sample("x", dist.Binomial(num, p), obs=successes)


def test_draws_on_the_boundary_are_dropped_and_counted():
    # Beta(10.5, 0.5) rounds to 1 in float32 with a probability of 3e-4 or so; here more are.
    pyro.set_rng_seed(0)
    successes, num = torch.tensor([10.0, 4.0]), 10
    p = dist.Beta(successes.double() + 0.5, num - successes.double() + 0.5).sample((8, 1000))
    p = p.float()
    p[p > 1 - 2e-6] = 1.0
    boundary = int((p == 1).sum())
    assert 5 < boundary < 80
    evidence = seeded(coins, successes, num, draws={"p": p})
    exact = dist.BetaBinomial(0.5, 0.5, num).log_prob(successes)
    assert_close(evidence, exact.sum().item())
    assert f"{boundary} of 16000 draws lie on the boundary" in str(evidence.verdict)
    p[:, :300] = 1.0
    with pytest.raises(ValueError, match="on the boundary of the support or with zero density"):
        bridge_evidence(coins, successes, num, draws={"p": p})


def test_what_is_lost_is_counted_into_the_value():
    # Without the draws in the upper tail, the evidence would be too small by their share.
    pyro.set_rng_seed(0)
    p = torch.rand(64, 500)
    p[p > 0.95] = 1.0
    p[p < 0.02] = 0.0

    def uniform():
        pyro.sample("p", dist.Uniform(0.0, 1.0))
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    evidence = seeded(uniform, draws={"p": p})
    # the normals reach beyond the cut, so that most of the share, not all of it, is missing
    assert abs(evidence.value - dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0))) < 0.04
    assert "draws on the boundary" in evidence.verdict.names


def test_deterministic_and_summed_out_sites_are_ignored():
    def model(x):
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        pyro.deterministic("twice", 2 * loc)
        with pyro.plate("rows", len(x)):
            side = pyro.sample("side", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc * (2 * side - 1), 1.0), obs=x)

    x = torch.tensor([0.3])
    exact = dist.Normal(0.0, 2**0.5).log_prob(x).item()
    loc = dist.Normal(0.15, 0.5**0.5).sample((4, 1000))
    loc = torch.where(torch.rand(4, 1000) < 0.5, loc, -loc)
    draws = {"loc": loc, "twice": 2 * loc, "side": torch.ones(4, 1000, 1)}
    assert_close(seeded(model, x, draws=draws), exact)


def test_scoped_sites_are_found_in_arviz_data():
    def model(x):
        with scope(prefix="outer"):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.tensor(0.5)
    z = (0.25 + 0.5**0.5 * torch.randn(4, 500)).numpy()
    container = _arviz.from_groups({"posterior": {"outer/z": z}})
    assert list(container["posterior"].data_vars) == ["outer.z"]
    assert_close(seeded(model, x, draws=container), dist.Normal(0.0, 2**0.5).log_prob(x).item())


def test_draws_of_other_data_are_seen(samples):
    inputs, targets = DATA
    verdict = seeded(regression, inputs, targets + 1.0, draws=samples).verdict
    assert "draws of another posterior" in verdict.names
    narrow = {"weights": 0.5 * (samples["weights"] - samples["weights"].mean((0, 1)))}
    narrow["weights"] += samples["weights"].mean((0, 1))
    verdict = seeded(regression, *DATA, draws=narrow).verdict
    assert "draws of another posterior" in verdict.names
    assert "stretched" in str(verdict)


def test_chains_that_disagree_are_seen(samples):
    weights = samples["weights"].clone()
    weights[0] += weights.std((0, 1))
    verdict = seeded(regression, *DATA, draws={"weights": weights}).verdict
    assert "chains in disagreement" in verdict.names
    assert "at site 'weights'" in str(verdict)


def test_exact_draws_raise_no_finding():
    # 40 runs of three coordinates: the false-alarm rate is told by five standard errors.
    for seed in range(40):
        pyro.set_rng_seed(seed)
        draws = {"weights": regression_draws(DATA, 4, 100)}
        verdict = bridge_evidence(regression, *DATA, draws=draws).verdict
        assert verdict.trusted, verdict


@pytest.mark.parametrize(
    ("draws", "error", "message"),
    [
        ({"weights": torch.zeros(2000)}, ValueError, r"\(chain, draw, \*site shape\)"),
        ({"weights": torch.zeros(2000, 3)}, ValueError, "of the model's site"),
        ({"w": torch.zeros(4, 500, 3)}, ValueError, r"got none of \['weights'\]"),
        ({}, ValueError, "at every site"),
        (3.0, TypeError, "draws must be a VectorizedMCMC"),
        (
            VectorizedMCMC(AutoMALA(regression), num_samples=5, disable_progbar=True),
            ValueError,
            "has run",
        ),
        (MCMC(NUTS(regression), num_samples=5, disable_progbar=True), ValueError, "has run"),
    ],
)
def test_what_is_no_posterior_is_refused(draws, error, message):
    with pytest.raises(error, match=message):
        bridge_evidence(regression, *DATA, draws=draws)


def test_models_without_an_evidence_are_refused():
    def prior():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="observed site"):
        bridge_evidence(prior, draws={"z": torch.randn(4, 100)})


def test_a_factor_that_forbids_the_draws_is_told():
    def ordered():
        m = pyro.sample("m", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("order", torch.where(m[..., 0] < m[..., 1], 0.0, -torch.inf))

    pyro.set_rng_seed(0)
    draws = torch.randn(4, 500, 2).sort(-1).values
    assert_close(seeded(ordered, draws={"m": draws}), -(2 * torch.ones(())).log().item(), 0.01)
    with pytest.raises(ValueError, match="with zero density"):
        bridge_evidence(ordered, draws={"m": torch.randn(4, 500, 2)})


def test_supports_may_depend_on_other_sites():
    def tanks(x):
        most = pyro.sample("most", dist.Pareto(1.0, 2.0))
        size = pyro.sample("size", dist.Uniform(0.0, most))
        pyro.sample("x", dist.Normal(size, 0.3), obs=x)

    pyro.set_rng_seed(0)
    x = torch.tensor(2.0)
    most = dist.Pareto(1.0, 2.0).sample((4_000_000,))
    size = most * torch.rand(4_000_000)
    weight = dist.Normal(size, 0.3).log_prob(x)
    chosen = weight.exp().multinomial(4000, replacement=True)  # so many that few are equal
    draws = {"most": most[chosen].reshape(4, 1000), "size": size[chosen].reshape(4, 1000)}
    exact = weight.double().exp().mean().log().item()
    assert_close(seeded(tanks, x, draws=draws), exact)


def test_a_model_that_fails_at_some_values():
    def model():
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        factor = torch.linalg.cholesky((2 - z)[..., None])  # there is none above 2
        pyro.sample("x", dist.Normal(0.0 * factor.sum((-2, -1)), 1.0), obs=torch.tensor(0.0))

    pyro.set_rng_seed(0)
    z = torch.special.ndtri(torch.special.ndtr(torch.tensor(2.0)) * torch.rand(4, 1000, 1))
    exact = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0)) + torch.special.log_ndtr(
        torch.tensor(2.0)
    )
    assert_close(seeded(model, draws={"z": z}), exact.item(), 0.01)
