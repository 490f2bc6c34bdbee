"""Models of this package aren't tried for coupled data; what a user has changed is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pyro_tkam.infer.model import plates
from pyro_tkam.infer.model.draws import plate_structure
from pyro_tkam.infer.model.known import treats_each_datum_alone
from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    GaussianLikelihood,
    LatentGenerator,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import ConvGenerator, SequenceGenerator
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
    with monkeypatch.context() as patch:
        patch.setattr(plates, "_coupled", None)  # no trial is made
        spared = plate_structure(model, data, {})
    monkeypatch.setattr(plates, "treats_each_datum_alone", lambda model: False)
    tried = plate_structure(model, data, {})
    assert list(spared.plates) == ["data"]
    assert tried.plates == spared.plates


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
    network.forward = lambda x: nn.functional.linear(x, network.weight)  # type: ignore[method-assign]
    return with_generator(network)


def parametrized() -> TKAM:
    network = nn.Linear(3, WIDTH)
    parametrize.register_parametrization(network, "weight", nn.Identity())
    return with_generator(network)


def subclass() -> TKAM:
    model = with_generator(nn.Linear(3, WIDTH))
    return Mixing(model.prior, model.generator, model.likelihood)


UNKNOWN: dict[str, Callable[[], Any]] = {
    "a network of a user": lambda: with_generator(nn.Sequential(nn.Linear(3, WIDTH), OverRows())),
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
