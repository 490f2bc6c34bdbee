"""Which data are independent: every room decides alike."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import (
    ULA,
    ImportanceSampling,
    LangevinMLE,
    ModelDensity,
)
from pyro_tkam.infer.model import plates
from pyro_tkam.infer.model.plates import CoupledDataError
from pyro_tkam.infer.model.structure import plate_structure
from pyro_tkam.infer.objectives.structure import KnownStructure

Y = torch.tensor([1.5, 2.0, 1.0, 1.3, 2.1, 0.4, -0.3])
SWAPPED = torch.tensor([0, 2, 1, 3, 4, 5, 6])
FRIENDLY = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def independent(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        z = pyro.sample("z", dist.Uniform(0.0, rate))
        angle = pyro.sample("angle", dist.VonMises(0.0, 1.0))
        pyro.sample("y", dist.Normal(z + angle.cos(), 0.5), obs=y)


def pair(y: Tensor) -> None:
    """Data 1 and 2 alone."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(z + FRIENDLY * z[..., SWAPPED], 0.5), obs=y)


def capacity(y: Tensor) -> None:
    """A factor that most draws of the prior do not touch."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        excess = torch.relu(z.sum(-1, keepdim=True) - 12)
        pyro.factor("capacity", (-20 * excess).expand(z.shape))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def normalized(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        centered = z - z.mean(-1, keepdim=True)
        pyro.sample("y", dist.Normal(centered / z.std(-1, keepdim=True), 0.5), obs=y)


def by_support(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        top = pyro.sample("top", dist.Gamma(2.0, 1.0))
        z = pyro.sample("z", dist.Uniform(0.0, top.roll(1, -1)))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


def far_away(y: Tensor) -> None:
    """The prior lies far from zero, where coordinates start."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(100.0, 1.0))
        pyro.factor("smooth", -1e-3 * (z - z.roll(1, -1)).square())
        pyro.sample("y", dist.Normal(z - 100, 0.5), obs=y)


def of_counts(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Poisson(2.0))
        pyro.sample("y", dist.Normal(0.0, 0.5 + k.roll(1, -1)), obs=y)


COUPLED = [pair, capacity, normalized, by_support, far_away]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("model", [independent, *COUPLED], ids=lambda model: model.__name__)
def test_chains_and_weights_decide_alike(model: Callable, seed: int) -> None:
    """A miss of a coupling of all data has a probability below 1e-5, that of one pair 1e-5."""
    pyro.set_rng_seed(seed)
    names = ["data"] if model is independent else []
    assert list(ModelDensity(model, (Y,)).local_plates) == names
    structure = plate_structure(model, (Y,), {})
    assert list(structure.plates) == names
    assert structure.coupled == (() if names else ("data",))


MANY = torch.linspace(-1.0, 2.0, 70)


def pair_of_many(y: Tensor) -> None:
    """Data 31 and 32 alone, and only where the first lies in half of its prior."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        k = pyro.sample("k", dist.Poisson(2.0))
        meets = torch.zeros(len(y))
        meets[32] = 1.0
        before = (z[..., 0] > 0).float().roll(1, -1) * k.roll(1, -1)
        pyro.sample("y", dist.Normal(z.sum(-1) + meets * before, 0.5), obs=y)


def of_own_prior(y: Tensor) -> None:
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(y, 1.0))
        pyro.sample("y", dist.Normal(z, 0.5), obs=y)


@pytest.mark.parametrize("seed", range(5))
def test_many_data_that_share_draws_decide_alike(seed: int) -> None:
    pyro.set_rng_seed(seed)
    assert plate_structure(independent, (MANY,), {}).coupled == ()
    assert plate_structure(of_own_prior, (MANY,), {}).coupled == ()
    assert plate_structure(pair_of_many, (MANY,), {}).coupled == ("data",)
    assert plate_structure(normalized, (MANY,), {}).coupled == ("data",)


def test_what_shows_only_between_far_sides_is_seen() -> None:
    """Draws move to different sides: where all or none lie beyond a step, it is not seen."""

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            far = (z > 6).to(z).amax(-1, keepdim=True)
            pyro.sample("y", dist.Normal(z + 3 * far, 1.0), obs=y)

    for seed in range(20):
        pyro.set_rng_seed(seed)
        assert plate_structure(model, (torch.zeros(20),), {}).coupled == ("data",)


@pytest.mark.parametrize("coupling", [0.0, 1.0])
def test_noise_of_a_model_is_not_taken_for_a_coupling(coupling: float) -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            noise = 1 + 0.1 * torch.rand_like(z)
            last = z[..., -1:] * (torch.arange(len(y)) == 0)
            pyro.sample("y", dist.Normal(noise * z + coupling * last, 1.0), obs=y)

    for seed in range(10):
        pyro.set_rng_seed(seed)
        assert plate_structure(model, (Y,), {}).coupled == ("data",) * int(coupling)


def test_trials_of_many_data_take_few_draws_of_each() -> None:
    """A prior may cost more to draw than to score."""
    drawn = []

    class Counted(dist.Normal):
        def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
            value = super().rsample(sample_shape)
            drawn.append(value.numel())
            return value

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", Counted(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    size = 3000
    assert plate_structure(model, (torch.zeros(size),), {}).coupled == ()
    assert sum(drawn) < 8 * size  # with the first runs


@pytest.mark.parametrize("noisy", [False, True])
def test_trials_evaluate_few_positions(noisy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve mixtures of twelve draws, and three times three of moved ones; more under noise."""
    evaluated = []
    terms = plates._terms

    def counted(runner: Any, position: Tensor, seed: Tensor) -> dict[str, Tensor]:
        evaluated.append(len(position))
        return terms(runner, position, seed)

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            noise = torch.rand_like(z) if noisy else 1.0
            pyro.sample("y", dist.Normal(noise * z, 1.0), obs=y)

    monkeypatch.setattr(plates, "_terms", counted)
    pyro.set_rng_seed(0)
    assert plate_structure(model, (Y,), {}).coupled == ()
    if noisy:
        assert sum(evaluated) > 42
    else:
        assert evaluated == [12, 12, 3, 3, 3, 3, 3, 3]


def test_terms_that_take_much_memory_are_mixed_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three positions at a time, evaluated one by one: couplings are seen all the same."""
    evaluated = []
    terms = plates._terms

    def counted(runner: Any, position: Tensor, seed: Tensor) -> dict[str, Tensor]:
        evaluated.append(len(position))
        return terms(runner, position, seed)

    monkeypatch.setattr(plates, "_terms", counted)
    monkeypatch.setattr(plates, "MIXED_ELEMENTS", 1)
    monkeypatch.setattr(plates, "BATCH_ELEMENTS", 1)
    pyro.set_rng_seed(0)
    assert plate_structure(independent, (Y,), {}).coupled == ()
    assert evaluated == [3, 1, 1, 1] * 7
    assert plate_structure(pair, (Y,), {}).coupled == ("data",)


def test_coupled_counts_are_weighed_jointly() -> None:
    assert plate_structure(of_counts, (Y,), {}).coupled == ("data",)


def narrow(y: Tensor) -> None:
    """Data meet only within a thousandth of 2.9, to which no trial leads."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        near = (-0.5 * ((z - 2.9) / 0.001).square()).exp().sum(-1, keepdim=True)
        pyro.sample("y", dist.Normal(z + near, 0.01), obs=y)


def test_a_coupling_that_only_the_run_meets_ends_it_by_name() -> None:
    pyro.set_rng_seed(0)
    density = ModelDensity(narrow, (torch.full((3,), 2.9),))
    assert list(density.local_plates) == ["data"]
    density.check_independence(torch.randn(50, 3, 1))
    with pytest.raises(CoupledDataError, match=r"plates \['data'\] couple their data"):
        density.check_independence(2.9 + 0.001 * torch.randn(50, 3, 1))


def test_a_late_finding_turns_weights_joint() -> None:
    def sharp(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Uniform(0.0, 1.0))
            both = ((z - 0.5).abs() < 0.02).float().sum(-1, keepdim=True)
            pyro.sample("y", dist.Normal((z - 0.5) * 100 + (both > 2.5), 0.5), obs=y)

    pyro.set_rng_seed(0)
    y = torch.zeros(3)
    assert list(plate_structure(sharp, (y,), {}).plates) == ["data"]
    draws = ImportanceSampling(sharp, num_particles=20_000).run(y)
    assert draws.evidence.per_datum is None


def test_neither_generator_nor_running_means_are_moved() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(1)

        def forward(self, y: Tensor) -> None:
            with pyro.plate("data", len(y)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample(
                    "y", dist.Normal(self.norm(z.reshape(-1, 1)).reshape(z.shape), 1.0), obs=y
                )

    model = Model()
    pyro.set_rng_seed(0)
    trace = pyro.poutine.trace(model).get_trace(Y)
    state, mean = torch.get_rng_state(), model.norm.running_mean.clone()
    with pytest.raises(ValueError, match="batch normalization in 'norm'"):
        plate_structure(model, (Y,), {}, trace=trace)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(model.norm.running_mean, mean)


def test_objectives_look_again_as_parameters_move() -> None:
    def learned(y: Tensor) -> None:
        weight = pyro.param("weight", torch.tensor(0.0))
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z + weight * z.roll(1, -1), 0.5), obs=y)

    pyro.clear_param_store()
    known = KnownStructure()
    assert known.of(learned, None, (Y,), {}).local_dims == (-1,)
    pyro.get_param_store()["weight"] = torch.tensor(1.0)
    found = [known.of(learned, None, (Y,), {}).local_dims for _ in range(3)]
    assert found[-1] == ()
    with pytest.raises(ValueError, match=r"independent data in its plates, got \['data'\]"):
        LangevinMLE(ULA, step_size=0.01).loss(learned, None, Y)
