from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_value,
)

from pyro_tkam.infer import (
    MALA,
    ImportanceMLE,
    ImportanceSampling,
    ImportanceWeightedELBO,
    LangevinMLE,
)
from pyro_tkam.infer.model.draws import draw_particles
from pyro_tkam.infer.model.plates import common_plates
from pyro_tkam.infer.model.structure import plate_structure

X = torch.linspace(-1, 1, 6)


def local(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def covariate(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.detach(), 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def hierarchical(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def global_latent(x: torch.Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 0.5), obs=x)


def nested(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("repeat", 3, dim=-2):
            pyro.sample("x", dist.Normal(z, 0.5), obs=x.expand(3, -1))


@pytest.mark.parametrize(
    ("model", "dims", "particle_dim", "exchangeable"),
    [
        (local, (-1,), -2, True),
        (covariate, (-1,), -2, False),
        (hierarchical, (-1,), -2, False),
        (global_latent, (), -2, True),
        (nested, (-1,), -3, True),
    ],
)
def test_finds_local_plates(model, dims, particle_dim, exchangeable) -> None:
    structure = plate_structure(model, (X,), {})
    assert (structure.local_dims, structure.particle_dim) == (dims, particle_dim)
    assert structure.exchangeable == exchangeable


@pytest.mark.parametrize(
    ("model", "shape"),
    [(local, (6,)), (covariate, (6,)), (hierarchical, (6,)), (global_latent, ()), (nested, (6,))],
)
def test_log_densities_equal_a_loop_over_particles(model, shape) -> None:
    """Each particle scored alone by Pyro's own trace, with its values expanded over the data."""
    pyro.set_rng_seed(0)
    particles = draw_particles(model, None, 4, plate_structure(model, (X,), {}), X)
    assert particles.log_likelihood.shape == (4, *shape)
    for s in range(4):
        values = {
            name: value[s].squeeze().expand(shape) for name, value in particles.values.items()
        }
        conditioned = pyro.poutine.condition(model, values)
        trace = pyro.poutine.trace(conditioned).get_trace(X)
        trace.compute_log_prob()
        likelihood = trace.nodes["x"]["log_prob"]
        prior = sum(trace.nodes[name]["log_prob"] for name in values)
        keep = likelihood.sum(0) if model is nested else likelihood if shape else likelihood.sum()
        torch.testing.assert_close(particles.log_likelihood[s], keep)
        torch.testing.assert_close(particles.log_prior[s].expand(shape), prior)


def test_draws_of_an_exchangeable_prior_are_shared_by_the_data_and_independent() -> None:
    pyro.set_rng_seed(0)
    values = draw_particles(local, None, 2000, plate_structure(local, (X,), {}), X).values["z"]
    assert values.shape == (2000, 1)
    assert values.unique().numel() == 2000
    # mean and variance within 5 standard errors: false alarms below 2e-6
    assert abs(values.mean()) < 5 / 2000**0.5
    assert abs(values.var() - 1) < 5 * (2 / 2000) ** 0.5


def test_draws_that_depend_on_data_are_not_shared() -> None:
    values = draw_particles(covariate, None, 5, plate_structure(covariate, (X,), {}), X).values["z"]
    assert values.shape == (5, 6)


def conditional(x: torch.Tensor, c: torch.Tensor) -> None:
    weight = pyro.param("weight", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(weight * c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("first", [6, 1], ids=["a prior that starts alike", "a first batch of one"])
def test_draws_are_no_longer_shared_once_priors_differ(first) -> None:
    objective = ImportanceMLE(20_000)
    if first == 1:
        pyro.param("weight", torch.tensor(1.5))
    objective.loss(conditional, None, X[:first], 2 * X[:first])
    pyro.get_param_store()["weight"] = torch.tensor(1.5)
    exact = dist.Normal(3 * X, 2**0.5).log_prob(X).sum()
    assert abs(objective.loss(conditional, None, X, 2 * X) + exact) < 0.1


def test_labels_with_priors_that_agree_in_one_class_are_not_shared() -> None:
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3]])
    levels = torch.tensor([0.0, 1.0, 3.0])

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", 2):
            k = pyro.sample("k", dist.Categorical(probs))
            pyro.sample("x", dist.Normal(levels[k], 0.5), obs=x)

    x = torch.tensor([1.0, 3.0])
    exact = (probs.log() + dist.Normal(levels, 0.5).log_prob(x[:, None])).logsumexp(-1)
    for seed in range(8):
        pyro.set_rng_seed(seed)
        evidence = ImportanceSampling(model, num_particles=10_000).run(x).evidence
        torch.testing.assert_close(evidence.per_datum, exact, atol=0.1, rtol=0)


def unplated(x: torch.Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    eta = pyro.sample("eta", dist.Normal(torch.zeros(len(x)), 1.0))
    pyro.sample("x", dist.Normal(mu + eta, 1.0), obs=x)


@pytest.mark.parametrize("num", [3, 1000], ids=["few particles", "as many data as particles"])
def test_batches_without_a_plate_are_one_datum(num) -> None:
    x = X[:3] if num == 3 else torch.zeros(1000)
    structure = plate_structure(unplated, (x,), {})
    assert (structure.local_dims, structure.particle_dim) == ((), -2)
    assert draw_particles(unplated, None, 1000, structure, x).log_weights.shape == (1000,)


def test_evidence_of_batches_without_a_plate_is_the_joint_one() -> None:
    x = torch.tensor([1.5, 2.5, 3.5])
    exact = dist.MultivariateNormal(torch.zeros(3), torch.ones(3, 3) + 2 * torch.eye(3)).log_prob(x)
    assert (
        abs(ImportanceSampling(unplated, num_particles=100_000).run(x).evidence.value - exact)
        < 0.05
    )
    assert abs(ImportanceMLE(100_000).loss(unplated, None, x) + exact) < 0.05


def walk(x: torch.Tensor) -> None:
    with pyro.plate("time", len(x)):
        step = pyro.sample("step", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(step.cumsum(-1), 1.0), obs=x)


def furthest(x: torch.Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z - z.max(-1, keepdim=True).values, 0.5), obs=x)


def test_plates_that_couple_their_data_are_weighed_as_a_whole() -> None:
    x = torch.tensor([0.5, -0.2, 1.0])
    lower = torch.ones(3, 3).tril()
    exact = dist.MultivariateNormal(torch.zeros(3), lower @ lower.T + torch.eye(3)).log_prob(x)
    evidence = ImportanceSampling(walk, num_particles=100_000).run(x).evidence
    assert evidence.per_datum is None
    assert abs(evidence.value - exact) < 0.05


@pytest.mark.parametrize("model", [walk, furthest, local], ids=lambda model: model.__name__)
def test_coupling_is_seen_whatever_is_drawn(model) -> None:
    for seed in range(20):
        pyro.set_rng_seed(seed)
        state = torch.get_rng_state()
        drawn = pyro.poutine.trace(model).get_trace(X)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        structure = plate_structure(model, (X,), {})
        assert structure.coupled == (() if model is local else tuple(common_plates(drawn)))
        assert torch.equal(torch.get_rng_state(), after)
        assert bool(MALA(model).density((X,), {}, None).layout.local_dims) == (model is local)


@pytest.mark.parametrize("make", [AutoNormal, AutoDiagonalNormal, AutoMultivariateNormal])
def test_guides_may_draw_all_data_at_once(make) -> None:
    """A joint guide is drawn particle by particle; at the posterior's means few are enough."""
    at_means = init_to_value(values={"z": 0.8 * X})
    guide = make(local, init_loc_fn=at_means, init_scale=0.5)  # wider than the posterior, 0.447
    guide(X)
    exact = dist.Normal(0.0, 1.25**0.5).log_prob(X).sum()
    found = ImportanceSampling(local, guide, num_particles=1000).run(X).evidence
    assert abs(found.value - exact) < 0.05
    assert abs(ImportanceMLE(1000).loss(local, guide, X) + exact) < 0.05
    assert abs(ImportanceWeightedELBO(1000).loss(local, guide, X) + exact) < 0.05


def deterministic(x: torch.Tensor) -> None:
    scale = pyro.deterministic("scale", torch.tensor(1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, scale))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def test_what_is_recorded_outside_the_plate_is_no_site() -> None:
    assert plate_structure(deterministic, (X,), {}).local_dims == (-1,)
    assert (
        ImportanceSampling(deterministic, num_particles=100).run(X).evidence.per_datum is not None
    )
    assert LangevinMLE(MALA, num_steps=1, step_size=0.1).loss(deterministic, None, X) > 0


@pytest.mark.parametrize("model", [local, covariate, global_latent])
def test_a_model_runs_once_where_its_first_draws_serve(model) -> None:
    structure, calls = plate_structure(model, (X,), {}), []

    def counted(x: torch.Tensor) -> None:
        calls.append(len(x))
        model(x)

    draw_particles(counted, None, 4, structure, X)
    assert len(calls) == 1
    calls.clear()
    draw_particles(counted, None, 4, replace(structure, exchangeable=True), X)
    assert len(calls) == (2 if model is covariate else 1)


def only_observed(x: torch.Tensor) -> None:
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def only_latent(x: torch.Tensor) -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(("model", "kind"), [(only_observed, "latent"), (only_latent, "observed")])
def test_refuses_models_without_latent_or_observed_sites(model, kind: str) -> None:
    with pytest.raises(ValueError, match=f"no {kind} site"):
        plate_structure(model, (torch.zeros(()),), {})
