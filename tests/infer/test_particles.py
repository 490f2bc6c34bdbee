import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer.particles import draw_particles, plate_structure

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
    structure = plate_structure(model, X)
    assert (structure.local_dims, structure.particle_dim) == (dims, particle_dim)
    assert structure.exchangeable == exchangeable


@pytest.mark.parametrize(
    ("model", "shape"), [(local, (6,)), (covariate, (6,)), (hierarchical, (6,)), (global_latent, ()), (nested, (6,))]
)
def test_log_densities_equal_a_loop_over_particles(model, shape) -> None:
    """Each particle scored alone by Pyro's own trace, with its values expanded over the data."""
    pyro.set_rng_seed(0)
    particles = draw_particles(model, None, 4, plate_structure(model, X), X)
    assert particles.log_likelihood.shape == (4, *shape)
    for s in range(4):
        values = {name: value[s].squeeze().expand(shape) for name, value in particles.values.items()}
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
    values = draw_particles(local, None, 2000, plate_structure(local, X), X).values["z"]
    assert values.shape == (2000, 1)
    assert values.unique().numel() == 2000
    # mean and variance within 5 standard errors: false alarms below 2e-6
    assert abs(values.mean()) < 5 / 2000**0.5
    assert abs(values.var() - 1) < 5 * (2 / 2000) ** 0.5


def test_draws_that_depend_on_data_are_not_shared() -> None:
    values = draw_particles(covariate, None, 5, plate_structure(covariate, X), X).values["z"]
    assert values.shape == (5, 6)


def only_observed(x: torch.Tensor) -> None:
    pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def only_latent(x: torch.Tensor) -> None:
    pyro.sample("z", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize(("model", "kind"), [(only_observed, "latent"), (only_latent, "observed")])
def test_refuses_models_without_latent_or_observed_sites(model, kind: str) -> None:
    with pytest.raises(ValueError, match=f"no {kind} site"):
        plate_structure(model, torch.zeros(()))
