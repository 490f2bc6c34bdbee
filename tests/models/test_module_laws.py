"""Every module that owns parameters, through the laws of tests/laws/module.py."""

from __future__ import annotations

import pytest
import torch

from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    BernoulliLikelihood,
    GaussianLikelihood,
    Heads,
    JointPrior,
    LabeledPrior,
    LabeledTKAM,
    MixturePrior,
    MultimodalTKAM,
    PairGuide,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import (
    KAN,
    AutoregressivePrior,
    ConvGenerator,
    Encoded,
    KANEdges,
    KANLayer,
    SequenceEncoder,
    SequenceGenerator,
    UnivariateFunctions,
)
from tests.laws import module as laws

SMALL = {"grid_size": 4}
SHORT = ShortRunULA(num_steps=3)


def evaluate(module):
    return module(torch.rand(4, 3))


def draw(prior):
    return prior().sample((4,))


def generate(model):
    return model.generate(4)


def guided():
    return AmortizedGuide(TKAM.mixture(3, 2, 2, **SMALL), hidden=(5,))


def decoder():
    return SequenceGenerator(3, 7, 5, width=8, num_heads=2, num_layers=1)


def multimodal():
    heads = Heads({"image": KAN([3, 4], **SMALL), "bits": torch.nn.Linear(3, 2)})
    likelihoods = {"image": GaussianLikelihood(0.5, learned=True), "bits": BernoulliLikelihood()}
    return MultimodalTKAM(MixturePrior(TiltedPrior((3, 2), **SMALL)), heads, likelihoods)


def two_sequences():
    return TKAM.seq2seq(
        5,
        6,
        max_source=4,
        max_target=3,
        latent_dim=2,
        width=8,
        num_heads=2,
        num_layers=1,
        context_widths=(5,),
    )


def one_and_the_same(make):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return make()


MODULES = {
    "functions": (lambda: UnivariateFunctions(3, **SMALL), evaluate),
    "polynomials": (lambda: UnivariateFunctions(3, "chebyshev", trainable_width=True), evaluate),
    "edges": (lambda: KANEdges(3, 2, **SMALL), evaluate),
    "layer": (lambda: KANLayer(3, 2, "bspline", **SMALL), evaluate),
    "widths": (lambda: KANLayer(3, 2, "rbf", trainable_width=True, **SMALL), evaluate),
    "network": (lambda: KAN([3, 4, 2], **SMALL), evaluate),
    "images": (lambda: ConvGenerator(3, (4, 1), (4, 4), (1, 2), (0, 1)), evaluate),
    "tilted": (lambda: TiltedPrior((3, 2), "gaussian", **SMALL), draw),
    "learned reference": (lambda: TiltedPrior(3, "learnable_gaussian", **SMALL), draw),
    "mixture": (lambda: MixturePrior(TiltedPrior((3, 2), **SMALL)), draw),
    "labeled": (lambda: LabeledPrior(2, 3, **SMALL), draw),
    "joint": (lambda: JointPrior(KAN([3, 4, 1], **SMALL), 3, sampler=SHORT), draw),
    "kart": (lambda: TKAM.kart((2, 2), 2, **SMALL), generate),
    "kart, shared": (lambda: TKAM.kart((2, 2), 2, coupling="shared", **SMALL), generate),
    "mixture model": (lambda: TKAM.mixture((2, 2), 3, 2, **SMALL), generate),
    "autoregressive": (lambda: AutoregressivePrior(3, hidden=(5,)), draw),
    "autoregressive, KAN": (
        lambda: AutoregressivePrior(3, 2, hidden=(5,), context="kan", num_components=2, moves=True),
        draw,
    ),
    "autoregressive model": (
        lambda: TKAM.autoregressive((2, 2), 3, context_widths=(5,), **SMALL),
        generate,
    ),
    "deep model": (lambda: TKAM.deep((2, 2), 3, sampler=SHORT, **SMALL), generate),
    "labeled model": (
        lambda: LabeledTKAM(
            LabeledPrior(2, 3, **SMALL), KAN([3, 4], **SMALL), GaussianLikelihood(0.5)
        ),
        lambda model: model.generate(torch.tensor([0, 1, 1])),
    ),
    "texts": (
        decoder,
        lambda module: module(torch.rand(4, 3), torch.zeros(4, 5, dtype=torch.int64)),
    ),
    "learned noise": (
        lambda: GaussianLikelihood(0.5, learned=True),
        lambda module: module(torch.rand(4, 3)).sample(),
    ),
    "text likelihood": (
        lambda: SequenceLikelihood(decoder()),
        lambda module: module(torch.rand(4, 3)).log_prob(torch.zeros(4, 5, dtype=torch.int64)),
    ),
    "multimodal model": (multimodal, lambda model: torch.cat(list(model.generate(4).values()), -1)),
    "guide": (guided, evaluate),
    "encoder of sequences": (
        lambda: SequenceEncoder(7, 5, width=8, num_heads=2, num_layers=1),
        lambda module: module(torch.tensor([[2, 3, 0], [4, 5, 6]])).features,
    ),
    "two sequences": (two_sequences, lambda model: torch.cat(model.generate(20), -1)),
    "guide of two sequences": (
        lambda: PairGuide(one_and_the_same(two_sequences)),  # a guide's state is not the model's
        lambda guide: guide.posterior(
            Encoded(torch.rand(2, 4, 8), torch.ones(2, 4, dtype=torch.bool)),
            torch.tensor([[2, 3], [4, 0]]),
        ).sample(),
    ),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("law", laws.ALL, ids=lambda law: law.__name__)
def test_law(law, name):
    law(*MODULES[name])


class Forgetful(torch.nn.Linear):
    """Its state is not all that it computes with."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("shift", torch.randn(2), persistent=False)

    def forward(self, z):
        return super().forward(z) + self.shift


class Fading(torch.nn.Linear):
    """Its pickles lose the bias."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def __setstate__(self, state):
        super().__setstate__(state)
        self.bias.data.zero_()


class Unique(torch.nn.Linear):
    """Its copies are itself."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize(
    ("law", "wrong"),
    [
        (laws.state_dict_restores_it, Forgetful),
        (laws.pickling_keeps_it, Fading),
        (laws.copies_are_equal_and_independent, Fading),
        (laws.copies_are_equal_and_independent, Unique),
    ],
)
def test_laws_refuse_what_breaks_them(law, wrong):
    with pytest.raises(AssertionError):
        law(wrong, lambda module: module(torch.ones(3, 2)))
