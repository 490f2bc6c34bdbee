from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import init_to_sample, init_to_value
from pyro.infer.mcmc.util import initialize_model
from scipy import stats
from torch import Tensor

from pyro_tkam.infer.mcmc.initialization import find_start, given_start
from pyro_tkam.infer.model.coordinates import StandardNormal
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.handlers import DrawDetached
from pyro_tkam.infer.model.potential import PotentialDensity
from tests.infer.models import LOCAL_PLATES, MODELS, ROWS, local_latents, rolled

every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    return


def total(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).sum(-1)


@every_model
def test_prior_plus_likelihood_is_pyros_joint(name: str) -> None:
    model, args = MODELS[name]
    density = ModelDensity(model, args)
    position = density.draw_start(4)
    _, potential, _, _ = initialize_model(model, args)
    split = density.split(position)
    expected = torch.stack([-potential(density.layout.unflatten(each)) for each in position])
    torch.testing.assert_close(
        total(split.log_prior + split.log_likelihood), expected, rtol=1e-4, atol=1e-4
    )
    assert density._split.failure is None


@every_model
def test_gradients_are_those_of_the_terms(name: str) -> None:
    model, args = MODELS[name]
    density = ModelDensity(model, args)
    position = density.draw_start(3)
    split, point = density.split(position), density.point(position)
    leaf = position.clone().requires_grad_()
    log_prior, log_likelihood = density.log_terms(leaf)
    (prior_gradient,) = torch.autograd.grad(log_prior.sum(), leaf, retain_graph=True)
    torch.testing.assert_close(split.prior_gradient, prior_gradient, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        split.prior_gradient + split.likelihood_gradient, point.gradient, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(point.log_density, log_prior + log_likelihood, rtol=1e-4, atol=1e-4)


@every_model
@pytest.mark.parametrize("standard_normal", [False, True])
def test_every_vectorization_equals_the_loop(name: str, standard_normal: bool) -> None:
    model, args = MODELS[name]
    loop = ModelDensity(
        model, args, vectorization="loop", standard_normal=standard_normal, trace_graph=False
    )
    density = ModelDensity(model, args, standard_normal=standard_normal)
    assert density.vectorization == "vmap"
    position = loop.draw_start(6)
    expected, split = loop.split(position), density.split(position)
    for wanted, got in zip(vars(expected).values(), vars(split).values(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    for site, value in loop.constrain(position).items():
        torch.testing.assert_close(density.constrain(position)[site], value)
    if density.vectorization == "vmap" and not args:
        plated = ModelDensity(model, args, vectorization="plate", standard_normal=standard_normal)
        torch.testing.assert_close(
            plated.split(position).log_prior, expected.log_prior, rtol=1e-4, atol=1e-4
        )


@every_model
def test_local_plates_are_found(name: str) -> None:
    model, args = MODELS[name]
    density = ModelDensity(model, args)
    assert set(density.local_plates) == LOCAL_PLATES.get(name, set())
    assert density.split(density.draw_start(2)).log_prior.shape == (2, *density.layout.local_shape)


def test_local_terms_are_those_of_each_datum_alone() -> None:
    density = ModelDensity(local_latents, (ROWS,))
    position = density.draw_start(3)
    split = density.split(position)
    for datum in range(len(ROWS)):
        alone = ModelDensity(local_latents, (ROWS[datum : datum + 1],)).split(
            position[:, datum : datum + 1]
        )
        torch.testing.assert_close(split.log_prior[:, datum], alone.log_prior[:, 0])
        torch.testing.assert_close(split.log_likelihood[:, datum], alone.log_likelihood[:, 0])


def test_a_plate_that_hides_a_coupling_is_joint() -> None:
    assert ModelDensity(rolled, (ROWS,)).layout.local_shape == ()
    with pytest.raises(ValueError, match="batch_plates"):
        ModelDensity(rolled, (ROWS,), batch_plates=["data"])
    with pytest.raises(ValueError, match="batch_plates"):
        ModelDensity(local_latents, (ROWS,), batch_plates=["nowhere"])


def test_local_plates_can_be_declined() -> None:
    assert ModelDensity(local_latents, (ROWS,), batch_plates=()).layout.local_shape == ()


def test_delta_densities_and_marked_factors_are_prior() -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("moved", dist.Delta(z.exp(), log_density=z), obs=z.exp().detach())
        pyro.deterministic("square", z.square())
        unit = dist.Unit(-3 * z.square())
        pyro.sample(
            "prior_term", unit, obs=unit.sample(), infer={"is_auxiliary": True, "is_prior": True}
        )
        pyro.factor("likelihood_term", 5 * z)

    split = ModelDensity(model, trace_graph=False).split(torch.tensor([[0.5]]))
    expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5)) + 0.5 - 0.75
    assert split.log_likelihood.item() == pytest.approx(2.5)
    assert split.log_prior.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "name", ["eight schools", "local", "nested plates", "hierarchical", "correlation"]
)
def test_standard_normal_coordinates_change_variables_rightly(name: str) -> None:
    """
    The prior of ε is N(0, 1), and the likelihood at the values is that of the unconstrained
    coordinates.
    """
    model, args = MODELS[name]
    normal, plain = ModelDensity(model, args, standard_normal=True), ModelDensity(model, args)
    position = 0.7 * torch.randn(4, *normal.layout.local_shape, normal.layout.dim)
    values = normal.constrain(position)
    coordinates = {site: plain.transforms[site](value) for site, value in values.items()}
    split = normal.split(position)
    expected = plain.split(plain.layout.flatten(coordinates, 1))
    torch.testing.assert_close(split.log_likelihood, expected.log_likelihood, rtol=1e-3, atol=1e-3)
    if normal.prior_is_standard_normal:
        torch.testing.assert_close(
            split.log_prior, dist.Normal(0.0, 1.0).log_prob(position).sum(-1)
        )
        torch.testing.assert_close(split.prior_gradient, -position)
    kinds = {isinstance(site.coordinate, StandardNormal) for site in normal.layout.sites.values()}
    assert kinds == ({False, True} if name == "local" else {name != "correlation"})


@pytest.mark.parametrize("name", ["eight schools", "local", "hierarchical", "correlation"])
@pytest.mark.parametrize("standard_normal", [False, True])
def test_prior_draws_have_the_sites_marginals(name: str, standard_normal: bool) -> None:
    """KS on the first element of each site, p > 1e-4: false alarm below 2e-3 over all calls."""
    model, args = MODELS[name]
    density = ModelDensity(model, args, standard_normal=standard_normal)
    assert density.can_sample_prior()
    values = density.constrain(density.sample_prior(2000))
    pyro.set_rng_seed(1)
    with DrawDetached():  # torch's own draws of LKJ are biased
        traces = [poutine.trace(poutine.uncondition(model)).get_trace(*args) for _ in range(1000)]
    for site, value in values.items():
        direct = torch.stack([trace.nodes[site]["value"].flatten()[-1] for trace in traces])
        assert stats.ks_2samp(value.reshape(2000, -1)[:, -1].numpy(), direct.numpy()).pvalue > 1e-4


def test_start_is_searched_and_a_hopeless_one_names_its_site() -> None:
    def half(z_min: float) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("x", torch.where(z > z_min, 0.0, torch.nan))

    with pyro.validation_enabled(False):
        density, hopeless = ModelDensity(half, (1.5,)), ModelDensity(half, (50.0,))
        sparse = ModelDensity(half, (2.05,))
    assert (find_start(density, 20).position > 1.5).all()
    rare = find_start(sparse, 64, sparse.sample_prior)  # 2% of draws are finite
    assert (rare.position > 2.05).all()
    assert len(rare.position.unique()) == 64
    with pytest.raises(ValueError, match="'x' is not finite"):
        find_start(hopeless, 2)
    with pytest.raises(ValueError, match="'x' is not finite"):
        given_start(hopeless, {"z": torch.zeros(2)}, 2)


def test_models_that_cannot_be_sampled_are_refused() -> None:
    def poisson() -> None:
        count = pyro.sample("count", dist.Poisson(3.0))
        pyro.sample("x", dist.Normal(count, 1.0), obs=torch.tensor(1.0))

    def subsampled() -> None:
        with pyro.plate("data", 5, subsample_size=2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def random() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("noise", z * torch.randn(()))

    def improper() -> None:
        pyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))

    def empty() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.tensor(0.0))

    with pytest.raises(
        ValueError, match=r"model must have discrete sites.*, got 'count' \(Poisson\)"
    ):
        ModelDensity(poisson)
    with pytest.raises(NotImplementedError, match="subsample"):
        ModelDensity(subsampled)
    with pytest.raises(ValueError, match="random numbers"):
        ModelDensity(random)
    with pytest.raises(ValueError, match="'flat'"):
        ModelDensity(improper)
    with pytest.raises(
        ValueError, match="model must have a continuous latent site to sample, got none"
    ):
        ModelDensity(empty)
    with pytest.raises(ValueError, match="vectorization"):
        ModelDensity(rolled, (ROWS,), vectorization="magic")
    start = init_to_value(values={"flat": torch.tensor(0.2)})
    assert not ModelDensity(improper, init_strategy=start).can_sample_prior()


def test_a_model_that_changes_its_sites_is_refused() -> None:
    calls = []

    def unstable() -> None:
        calls.append(1)
        pyro.sample("z", dist.Normal(0.0, 1.0))
        if len(calls) > 1:
            pyro.sample("late", dist.Normal(0.0, 1.0))

    with pytest.raises(
        ValueError, match=r"model must keep its sites between calls, \['z'\], got \['z', 'late'\]"
    ):
        ModelDensity(unstable)


def test_plates_with_wrong_dimensions_are_refused() -> None:
    def wrong() -> None:
        with pyro.plate("data", 5):
            pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))

    with pytest.raises(ValueError, match="data"):
        ModelDensity(wrong)


def test_double_precision_is_kept() -> None:
    def model() -> None:
        pyro.sample("z", dist.Gamma(torch.tensor(2.0).double(), torch.tensor(1.0).double()))

    density = ModelDensity(model)
    assert density.point(density.draw_start(3)).gradient.dtype == torch.float64
    assert density.sample_prior(3).dtype == torch.float64


@pytest.mark.parametrize("name", ["local", "mixture"])
@pytest.mark.parametrize("vectorization", ["plate", "loop"])
def test_data_in_double_precision_leave_the_terms_in_that_of_the_latents(
    name: str, vectorization: str
) -> None:
    model = MODELS[name][0]
    single = ModelDensity(model, (ROWS,), vectorization=vectorization)
    double = ModelDensity(model, (ROWS.double(),), vectorization=vectorization)
    position = single.draw_start(3)
    for wanted, got in zip(
        vars(single.split(position)).values(), vars(double.split(position)).values(), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_potentials_are_evaluated_by_site() -> None:
    def potential(params: dict[str, Tensor]) -> Tensor:
        return 0.5 * params["b"].square().sum() + 3 * params["a"].square()

    density = PotentialDensity(potential, {"b": torch.ones(2), "a": torch.tensor(1.0)})
    point = density.point(torch.tensor([[1.0, 2.0, 3.0]]))
    assert point.log_density.item() == pytest.approx(-(3 + 6.5))
    torch.testing.assert_close(point.gradient, torch.tensor([[-6.0, -2.0, -3.0]]))
    assert density.constrain(torch.tensor([[1.0, 2.0, 3.0]]))["b"].tolist() == [[2.0, 3.0]]


class Counted:
    """A model that counts its runs."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.runs = prior, 0

    def __call__(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        self.runs += 1
        with pyro.plate("data", len(x)):
            z = pyro.sample(
                "z", self.prior if mask is None else self.prior.expand((len(x),)).mask(mask)
            )
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("prior", "first", "second", "runs"),
    [
        (dist.Normal(0.0, 1.0), (torch.zeros(4),), (torch.ones(4),), 0),
        (dist.Normal(0.0, 1.0), (torch.zeros(4),), (torch.ones(3),), 1),
        (dist.Normal(0.0, 1.0), (torch.zeros(4),), (torch.ones(4).double(),), 1),
        (
            dist.Normal(0.0, 1.0),
            (torch.zeros(4), torch.ones(4) > 0),
            (torch.ones(4), torch.arange(4) > 1),
            1,
        ),
        (dist.Gamma(2.0, 1.0), (torch.zeros(4),), (torch.ones(4),), 1),
    ],
    ids=["known", "rows", "dtype", "mask", "unconstrained"],
)
def test_a_density_at_other_data_is_that_made_anew(
    prior: Any, first: tuple, second: tuple, runs: int
) -> None:
    """
    The model runs again wherever the values of the data could change more than the likelihood.
    """
    model = Counted(prior)
    density = ModelDensity(model, first, standard_normal=True)
    before = model.runs
    other = density.rebind(second, {})
    assert model.runs - before == runs
    expected = ModelDensity(model, second, standard_normal=True)
    position = expected.draw_start(2)
    torch.testing.assert_close(other.split_values(position), expected.split_values(position))
    torch.testing.assert_close(other.constrain(position), expected.constrain(position))


def test_latents_are_read_off_before_the_likelihood() -> None:
    seen = []

    def model() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
        b = pyro.sample("b", dist.Gamma(a.exp(), 1.0))
        seen.append("likelihood")
        pyro.sample("x", dist.Normal(b, 1.0), obs=torch.tensor(1.0))

    density = ModelDensity(model, vectorization="plate")
    seen.clear()
    values = density.constrain(torch.zeros(3, 2))
    assert seen == []
    assert values["b"].tolist() == [1.0, 1.0, 1.0]
    density.split_values(torch.zeros(3, 2))
    assert "likelihood" in seen


def test_many_data_are_evaluated_by_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randn(50)

    def model() -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 50):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=data)

    whole, position = ModelDensity(model), torch.randn(11, 1)
    assert whole.most_rows == 2**20 // 50
    monkeypatch.setattr("pyro_tkam.infer.model.density.CACHED_NUMBERS", 220)
    cut = ModelDensity(model)
    assert cut.most_rows == 4
    for name in ("log_density", "gradient"):
        torch.testing.assert_close(
            getattr(cut.point(position), name), getattr(whole.point(position), name)
        )


def test_first_values_beside_a_bound_where_coordinates_round() -> None:
    """Not a model that draws random numbers of its own, which the first run alone cannot tell."""

    def model() -> None:
        with pyro.plate("groups", 20):
            p = pyro.sample("p", dist.Beta(0.01, 0.01))
            pyro.sample("y", dist.Binomial(10.0, p), obs=torch.full((20,), 10.0))

    pyro.set_rng_seed(0)
    density = ModelDensity(model, (), batch_plates=(), init_strategy=init_to_sample)
    first = density.structure.trace.nodes["p"]["value"]
    assert (first > 1 - 1e-6).any()
    assert density.vectorization == "vmap"
