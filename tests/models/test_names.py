"""Two modules of one kind share names in Pyro's store: training the wrong one is not silent."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule

from pyro_tkam.infer import ULA, ImportanceMLE, LangevinMLE
from pyro_tkam.models import TKAM, AmortizedGuide, PairELBO, PairGuide
from tests.models.small import COUPLINGS, labeled, multimodal

ROWS = 6
X = torch.rand(ROWS, 6)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
PAIR = torch.tensor([[1, 2, 0], [3, 0, 0]])


def seq2seq() -> Any:
    small: dict[str, Any] = {"width": 8, "num_heads": 2, "num_layers": 1, "context_widths": (8,)}
    return TKAM.seq2seq(4, 4, max_source=3, max_target=3, latent_dim=2, **small)


MODELS: dict[str, tuple[Callable[[], Any], tuple[Any, ...]]] = {
    **{name: (make, (X,)) for name, make in COUPLINGS.items()},
    "labeled": (lambda: labeled(6), (X, LABELS)),
    "multimodal": (lambda: multimodal(6), ({"image": X, "label": LABELS},)),
}


def svi(model: Any, guide: Any = None, loss: Any = None) -> SVI:
    return SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss or ImportanceMLE(5))


def numbers(model: Any) -> list[torch.Tensor]:
    return [each.detach().clone() for each in model.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_a_second_model_under_svi_says_that_the_first_would_be_trained(name: str) -> None:
    make, data = MODELS[name]
    first, second = make(), make()
    svi(first).step(*data)
    before = numbers(second)
    with pytest.warns(UserWarning, match="holds another tensor as '.*', which SVI trains in place"):
        svi(second).step(*data)
    assert all(map(torch.equal, numbers(second), before))


@pytest.mark.parametrize("way", ["clear", "scope"])
def test_what_the_warning_advises_trains_the_second(way: str) -> None:
    first, second = COUPLINGS["mixture"](), COUPLINGS["mixture"]()
    svi(first).step(X)
    before = numbers(second)
    if way == "clear":
        pyro.clear_param_store()
        svi(second).step(X)
    else:
        with pyro.get_param_store().scope():
            svi(second).step(X)
    assert not all(map(torch.equal, numbers(second), before))


def test_a_second_model_that_svi_does_not_train_is_silent() -> None:
    first, second = COUPLINGS["mixture"](), COUPLINGS["mixture"]()
    svi(first).step(X)
    optimizer = torch.optim.Adam(second.parameters())
    before = numbers(second)
    ImportanceMLE(5)(second, None)(X).backward()
    optimizer.step()
    second.generate(3)
    assert not all(map(torch.equal, numbers(second), before))


def test_one_model_is_silent_however_often_it_is_trained_and_with_random_weights() -> None:
    model = COUPLINGS["mixture"]()
    guide = AmortizedGuide(model)
    training = svi(model, guide, Trace_ELBO())
    for _ in range(3):
        training.step(X)
    model.generate(3)
    svi(model, guide, Trace_ELBO()).step(X)


def test_a_second_guide_says_so() -> None:
    model = COUPLINGS["mixture"]()
    svi(model, AmortizedGuide(model), Trace_ELBO()).step(X)
    with pytest.warns(UserWarning, match="in place of this AmortizedGuide's"):
        svi(model, AmortizedGuide(model), Trace_ELBO()).step(X)


def test_a_second_model_of_sequences_and_its_guide_say_so() -> None:
    def step() -> None:
        model = seq2seq()
        svi(model, PairGuide(model), PairELBO()).step(PAIR, PAIR)

    step()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        step()
    messages = " ".join(str(each.message) for each in told)
    assert "this Seq2SeqTKAM's" in messages
    assert "this PairGuide's" in messages


def test_a_second_model_of_another_kind_with_parts_of_the_same_names_says_so() -> None:
    svi(COUPLINGS["independent"]()).step(X)
    with pytest.warns(UserWarning, match="as 'generator"):
        svi(COUPLINGS["mixture"]()).step(X)


def test_two_models_that_share_a_prior_are_trained() -> None:
    one, other = COUPLINGS["mixture"](), COUPLINGS["mixture"]()
    other.prior = one.prior
    before = numbers(one)
    svi(one).step(X)
    assert not all(map(torch.equal, numbers(one), before))
    with pytest.warns(UserWarning, match="as 'generator"):
        svi(other).step(X)


def test_models_that_a_function_names_are_silent() -> None:
    named = {name: COUPLINGS["mixture"]() for name in ("first", "second")}
    for name, model in named.items():
        before = numbers(model)
        svi(lambda x, name=name, model=model: pyro.module(name, model)(x)).step(X)
        assert not all(map(torch.equal, numbers(model), before))


def test_parameters_that_are_hidden_from_svi_are_silent() -> None:
    first, second = COUPLINGS["mixture"](), COUPLINGS["mixture"]()
    svi(first, AmortizedGuide(first), Trace_ELBO()).step(X)
    guide = AmortizedGuide(second)
    pyro.clear_param_store()
    svi(first).step(X)
    svi(pyro.poutine.block(second, hide_types=["param"]), guide, Trace_ELBO()).step(X)


def test_a_guide_that_is_a_function_is_silent_under_an_optimizer_of_torch() -> None:
    first, second = COUPLINGS["mixture"](), COUPLINGS["mixture"]()
    guides = [AmortizedGuide(model) for model in (first, second)]
    for model, guide in zip((first, second), guides, strict=True):
        LangevinMLE(ULA, num_steps=1)(model, lambda x, guide=guide: guide(x))(X).backward()


def test_modules_with_names_of_their_own_are_silent() -> None:
    class Two(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.one = COUPLINGS["mixture"]()
            self.other = COUPLINGS["mixture"]()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(x)

    two = Two()
    before = numbers(two.other)
    svi(two).step(X)
    svi(two).step(X)
    assert not all(map(torch.equal, numbers(two.other), before))
