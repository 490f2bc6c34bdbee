"""Models of this package are tried little for coupled data; what a user has changed, in full."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pyro_tkam.infer import log_evidence
from pyro_tkam.infer.model import plates
from pyro_tkam.infer.model.known import treats_each_datum_alone
from pyro_tkam.infer.model.structure import plate_structure
from pyro_tkam.infer.model.trials import AGAIN, KNOWN, Effort, Trials
from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    BernoulliLikelihood,
    GaussianLikelihood,
    KARTGenerator,
    LatentGenerator,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import KAN, ConvGenerator, SequenceGenerator
from tests.models.small import COUPLINGS, labeled, multimodal

ROWS, WIDTH = 6, 6
X = torch.rand(ROWS, WIDTH)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
TEXT = torch.tensor([[1, 2, 0], [3, 0, 0], [2, 2, 1], [0, 0, 0], [1, 1, 3], [3, 2, 0]])


def with_generator(generator: Any) -> TKAM:
    return TKAM(TiltedPrior((3,), "gaussian", grid_size=5), generator, GaussianLikelihood(0.5))


def convolutional(batch_norm: bool = False) -> TKAM:
    network = ConvGenerator(3, (4, 1), (4, 2), (1, 2), (0, 1), batch_norm=batch_norm)
    generator = LatentGenerator(network, (1, 6, 6), mean=0.0, spread=1.0)
    return TKAM(TiltedPrior((3,), "gaussian"), generator, GaussianLikelihood(0.5, event_dim=3))


def text() -> TKAM:
    decoder = SequenceGenerator(3, 4, 3, width=8, num_heads=2, num_layers=1)
    return TKAM(TiltedPrior((3,), "gaussian"), nn.Identity(), SequenceLikelihood(decoder))


def sequences() -> nn.Module:
    small = {"width": 8, "num_heads": 2, "num_layers": 1, "context_widths": (8,)}
    return TKAM.seq2seq(4, 4, max_source=3, max_target=3, latent_dim=2, **small)


OURS: dict[str, tuple[Callable[[], Any], tuple[Any, ...]]] = {
    **{name: (make, (X,)) for name, make in COUPLINGS.items()},
    "autoregressive": (lambda: TKAM.autoregressive(6, 4, 2, context_widths=(8,)), (X,)),
    "autoregressive, KAN": (
        lambda: TKAM.autoregressive(6, 3, context="kan", context_widths=(5,)),
        (X,),
    ),
    "labeled": (lambda: labeled(WIDTH), (X, LABELS)),
    "multimodal": (lambda: multimodal(WIDTH), ({"image": X, "label": LABELS},)),
    "convolutional": (convolutional, (torch.rand(ROWS, 1, 6, 6),)),
    "text": (text, (TEXT,)),
    "sequences": (sequences, (TEXT, TEXT.flip(0))),
}


@pytest.mark.parametrize("name", OURS)
def test_a_known_model_would_pass_the_trials_that_it_is_spared(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    make, data = OURS[name]
    model = make()
    assert treats_each_datum_alone(model)
    few = plate_structure(model, data, {})
    monkeypatch.setattr(plates, "treats_each_datum_alone", lambda model: False)
    tried = plate_structure(model, data, {})
    assert list(few.plates) == ["data"]
    assert tried.plates == few.plates


@pytest.mark.parametrize(
    ("make", "expected"),
    [(lambda: with_generator(nn.Linear(3, WIDTH)), [KNOWN]), (COUPLINGS["mixture"], [])],
    ids=["a network without a shape of data", "shapes that cannot couple any"],
)
def test_a_known_model_is_tried_at_three_draws_or_none_and_never_again(
    make: Callable[[], Any], expected: list[Effort], monkeypatch: pytest.MonkeyPatch
) -> None:
    efforts: list[Effort] = []

    class Counted(Trials):
        def __init__(self, *args: Any) -> None:
            efforts.append(args[-1])
            super().__init__(*args)

    monkeypatch.setattr(plates, "Trials", Counted)
    model = make()
    plate_structure(model, (X,), {})
    plate_structure(model, (X,), {}, effort=AGAIN)
    assert efforts == expected


def scalar_latents(network: nn.Module, likelihood: Any) -> TKAM:
    return TKAM(TiltedPrior((), "gaussian", grid_size=5), network, likelihood)


def rows_as_channels() -> TKAM:
    network = nn.ConvTranspose2d(ROWS, ROWS, 1)
    return TKAM(TiltedPrior((3, 2), "gaussian"), network, GaussianLikelihood(0.5, event_dim=2))


def summed_over_rows() -> TKAM:
    generator = KARTGenerator(nn.Linear(ROWS, 4), (4,), mean=0.0, spread=1.0)
    return TKAM(TiltedPrior((3,), "gaussian"), generator, GaussianLikelihood(0.5))


COUPLED: dict[str, tuple[Callable[[], Any], Tensor]] = {
    "a matrix that mixes scalars": (
        lambda: scalar_latents(nn.Linear(ROWS, ROWS), BernoulliLikelihood(0)),
        torch.ones(ROWS),
    ),
    "a layer norm of scalars": (
        lambda: scalar_latents(nn.LayerNorm(ROWS), BernoulliLikelihood(0)),
        torch.ones(ROWS),
    ),
    "rows that are channels": (rows_as_channels, torch.rand(ROWS, 3, 2)),
    "sums over rows": (summed_over_rows, torch.rand(ROWS, 4)),
}


@pytest.mark.parametrize("name", COUPLED)
def test_data_that_are_coupled_by_their_shapes_are_found(name: str) -> None:
    torch.manual_seed(0)
    make, x = COUPLED[name]
    model = make()
    assert treats_each_datum_alone(model)
    assert not plate_structure(model, (x,), {}).plates


def test_the_evidence_of_data_coupled_by_their_shape_is_right() -> None:
    torch.manual_seed(0)
    mixing = nn.Linear(4, 4, bias=False)
    nn.init.normal_(mixing.weight, std=3.0)
    model = scalar_latents(mixing, BernoulliLikelihood(0))
    x = torch.tensor([1.0, 0.0, 1.0, 1.0])
    with torch.no_grad():
        z = model.prior().sample((400_000, 4))
        probability = model.likelihood(mixing(z)).log_prob(x).sum(-1).exp()
    assert probability.std() / probability.mean() / 400_000**0.5 < 0.01
    evidence = log_evidence(model, x)
    assert evidence.value == pytest.approx(probability.mean().log().item(), abs=0.03)


class OverRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True)


class Mixing(TKAM):
    pass


def hooked() -> TKAM:
    network = nn.Linear(3, WIDTH)
    network.register_forward_hook(lambda module, given, found: found - found.mean(-2, keepdim=True))
    return with_generator(network)


def replaced() -> TKAM:
    network = nn.Linear(3, WIDTH)
    setattr(network, "forward", lambda x: nn.functional.linear(x, network.weight))  # noqa: B010
    return with_generator(network)


def parametrized() -> TKAM:
    network = nn.Linear(3, WIDTH)
    parametrize.register_parametrization(network, "weight", nn.Identity())
    return with_generator(network)


def subclass() -> TKAM:
    model = with_generator(nn.Linear(3, WIDTH))
    return Mixing(model.prior, model.generator, model.likelihood)


def with_forms() -> TKAM:
    net = KAN([3, 4])
    centered = lambda u: u - u.mean(0, keepdim=True)  # noqa: E731
    return with_generator(net.fix({(0, 0, 0): (centered, (1.0, 0.0, 1.0, 0.0))}))


def scripted() -> TKAM:
    return with_generator(torch.jit.script(over_rows))


def over_rows(z: Tensor) -> Tensor:
    return z - z.mean(-2, keepdim=True)


def random_weights() -> TKAM:
    model = with_generator(nn.Linear(3, WIDTH))
    to_pyro_module_(model)
    model.generator.bias = PyroSample(dist.Normal(0.0, 1.0))
    return model


UNKNOWN: dict[str, Callable[[], Any]] = {
    "a network of a user": lambda: with_generator(nn.Sequential(nn.Linear(3, WIDTH), OverRows())),
    "a form": with_forms,
    "a scripted function": scripted,
    "a function of torch": lambda: with_generator(nn.functional.softmax),
    "random weights": random_weights,
    "a function": lambda: with_generator(lambda z: z @ torch.ones(3, WIDTH)),
    "rows made one": lambda: with_generator(nn.Flatten(0)),
    "normalization over rows": lambda: with_generator(nn.LayerNorm((ROWS, 3))),
    "batch normalization": lambda: convolutional(batch_norm=True),
    "a hook": hooked,
    "a method of an instance": replaced,
    "a parametrization": parametrized,
    "a subclass": subclass,
    "no module": lambda: lambda x: None,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_a_user_has_made_is_not_known(name: str) -> None:
    assert not treats_each_datum_alone(UNKNOWN[name]())


def test_a_guide_counts() -> None:
    model = TKAM.mixture(6, 4, 3)
    assert treats_each_datum_alone(model, AmortizedGuide(model))
    own = AmortizedGuide(model, encoder=nn.Sequential(OverRows(), nn.Linear(WIDTH, 8)))
    assert not treats_each_datum_alone(model, own)
