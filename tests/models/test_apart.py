"""Which models' data no shape can couple: those keep data apart, all others say that it is open."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.infer.model import plates
from pyro_tkam.infer.model.structure import plate_structure
from pyro_tkam.models import (
    TKAM,
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    JointPrior,
    KARTGenerator,
    LatentGenerator,
    MixturePrior,
    TiltedPrior,
)
from pyro_tkam.nn import AutoregressivePrior, KANLayer, UnivariateFunctions
from tests.models.small import COUPLINGS

ROWS = 6
APART: dict[str, Callable[[], TKAM]] = {
    **COUPLINGS,
    "autoregressive": lambda: TKAM.autoregressive(6, 4, 2, context_widths=(8,)),
    "autoregressive, KAN": lambda: TKAM.autoregressive(6, 3, context="kan", context_widths=(5,)),
    "data of two dimensions": lambda: TKAM.mixture((2, 3), 4, 3),
    "a perceptron": lambda: TKAM(
        TiltedPrior((3,), "gaussian"),
        generator(nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 6)), (6,)),
        BernoulliLikelihood(1),
    ),
}


def generator(network: nn.Module, shape: tuple[int, ...]) -> LatentGenerator:
    return LatentGenerator(network, shape, mean=0.0, spread=1.0)


def over(generator: Any, likelihood: Any = None, prior: Any = None, **options: Any) -> TKAM:
    prior = TiltedPrior((3,), "gaussian", grid_size=5) if prior is None else prior
    likelihood = GaussianLikelihood(0.5) if likelihood is None else likelihood
    return TKAM(prior, generator, likelihood, **options)


def a_mixture_for_each_row() -> TKAM:
    """Weights with a dimension for rows, which a user has put in place of a mixture's."""
    model = TKAM.mixture(4, 3, 2)
    assert isinstance(model.prior, MixturePrior)
    model.prior.logits = nn.Parameter(torch.randn(ROWS, 3, 2))
    return model


OPEN: dict[str, Callable[[], TKAM]] = {
    "a likelihood over rows": lambda: over(
        generator(nn.Linear(3, 4), (4,)), GaussianLikelihood(0.5, event_dim=2)
    ),
    "a likelihood of each element": lambda: over(
        generator(nn.Linear(3, ROWS), (ROWS,)), BernoulliLikelihood(0)
    ),
    "symbols": lambda: over(generator(nn.Linear(3, 4), (4,)), CategoricalLikelihood(0)),
    "one uniform for all": lambda: over(
        generator(nn.Linear(3, 4), (4,)), prior=TiltedPrior((3, 2)), coupling="shared"
    ),
    "functions that add dimensions": lambda: over(generator(UnivariateFunctions((2, 1, 3)), (6,))),
    "functions of sums that add dimensions": lambda: over(
        KARTGenerator(UnivariateFunctions((2, 1, 3)), (6,), mean=0.0, spread=1.0),
        prior=TiltedPrior((3, 2), "gaussian"),
        coupling="shared",
    ),
    "functions that add dimensions in a sequence": lambda: over(
        generator(nn.Sequential(UnivariateFunctions((2, 1, 3)), nn.Linear(3, 2)), (4,)),
        prior=AutoregressivePrior(3, hidden=(8,)),
    ),
    "a generator in a generator": lambda: over(
        generator(KARTGenerator(nn.Linear(ROWS, 4 * ROWS), (ROWS, 4), mean=0.0, spread=1.0), (4,)),
    ),
    "an energy of several rows": lambda: over(
        generator(nn.Linear(3, 4), (4,)), prior=JointPrior(energy_of_several_rows(), 3)
    ),
    "a vector of weights": lambda: over(
        generator(nn.Sequential(vector_of_weights(), nn.Linear(ROWS, ROWS)), (1,))
    ),
    "a bias with rows": lambda: over(generator(layer_with(bias=(2, 1, 4)), (8,))),
    "scales with rows": lambda: over(generator(layer_with(scale=(2, 1, 4, 1)), (8,))),
    "a mean with rows": lambda: over(mean_with_rows()),
    "no shape of data": lambda: over(nn.Linear(3, 4)),
    "a user's module": lambda: over(generator(OverRows(), (3,))),
}


def energy_of_several_rows() -> nn.Module:
    inner = generator(UnivariateFunctions((2, 1, 3), noise_scale=30.0), (6,))
    return nn.Sequential(inner, nn.Linear(6, 1))


def vector_of_weights() -> nn.Module:
    """A layer whose output lacks the last dimension."""
    layer = nn.Linear(3, 1, bias=False)
    layer.weight = nn.Parameter(torch.randn(3))
    return layer


def layer_with(**shapes: tuple[int, ...]) -> nn.Module:
    layer = KANLayer(3, 4)
    for name, shape in shapes.items():
        setattr(layer, name, nn.Parameter(torch.randn(shape)))
    return layer


def mean_with_rows() -> LatentGenerator:
    made = generator(nn.Linear(3, 4), (8,))
    made.mean = torch.tensor([0.0, 1.0]).reshape(2, 1, 1)  # type: ignore[assignment]
    return made


class OverRows(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z - z.mean(-2, keepdim=True)


@pytest.mark.parametrize("name", APART)
def test_a_model_says_for_which_latents_it_keeps_data_apart(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = APART[name]()
    assert model.dims_apart == (2 if name == "independent" else 1)
    x = model.generate(ROWS).round()
    for known in (True, False):  # untried, then in full
        monkeypatch.setattr(plates, "treats_each_datum_alone", lambda model, known=known: known)
        assert list(plate_structure(model, (x,), {}).plates) == ["data"]


@pytest.mark.parametrize("name", OPEN)
def test_a_model_whose_shapes_could_couple_data_says_nothing(name: str) -> None:
    assert OPEN[name]().dims_apart is None


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("a likelihood over rows", (ROWS, 4)),
        ("functions that add dimensions", (6,)),
        ("functions of sums that add dimensions", (6,)),
        ("functions that add dimensions in a sequence", (4,)),
        ("a generator in a generator", (4,)),
        ("an energy of several rows", (4,)),
        ("a vector of weights", (1,)),
        ("a bias with rows", (8,)),
        ("scales with rows", (8,)),
    ],
)
def test_shapes_that_couple_data_are_tried_and_found(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    assert not plate_structure(OPEN[name](), (torch.ones(ROWS, *shape),), {}).plates


def sums_over_rows() -> TKAM:
    network = KARTGenerator(nn.Linear(ROWS, 4), (4,), mean=0.0, spread=1.0)
    return over(network, prior=TiltedPrior((3,), "gaussian", grid_size=5))


@pytest.mark.parametrize(
    ("make", "dims"), [(a_mixture_for_each_row, 1), (sums_over_rows, 2)], ids=["weights", "sums"]
)
def test_latents_of_other_dimensions_than_a_model_says_are_tried(
    make: Callable[[], TKAM], dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    tried: list[Any] = []

    def known_couples(*given: Any) -> bool:
        tried.append(given)
        return False

    monkeypatch.setattr(plates, "_known_couples", known_couples)
    model = make()
    assert model.dims_apart == dims
    plates.independent_plates(*trial(model))
    assert tried


def trial(model: TKAM) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Return the terms of a run and its plates, as they are handed to the decision."""
    with torch.no_grad():
        trace = plates.poutine.trace(model).get_trace(size=ROWS)
    return plates.trial_terms(model, (), {"size": ROWS}, trace, 1), plates.common_plates(trace)


@pytest.mark.parametrize("name", COUPLINGS)
def test_a_first_call_runs_the_model_once_before_the_step(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = COUPLINGS[name]()
    calls = 0
    forward = TKAM.forward

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(TKAM, "forward", counted)
    loss = ImportanceMLE(10)(model, None)
    loss(torch.rand(ROWS, 6))
    assert calls == 2
    loss(torch.rand(ROWS, 6))
    assert calls == 3
