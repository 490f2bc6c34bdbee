"""
Several modalities from one latent: exact evidence and conditionals on grids, missing rows, and bad
input.
"""

import math

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    GaussianLikelihood,
    Heads,
    MixturePrior,
    MultimodalTKAM,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import SequenceGenerator

X = {
    "image": torch.tensor([[0.4, -0.1], [1.0, 0.3], [-0.5, 0.2]]),
    "label": torch.tensor([2, 0, 1]),
}
OBSERVED = {"image": torch.tensor([True, False, True]), "label": torch.tensor([True, True, False])}


def model(coupling: str = "independent", latents: int = 1) -> MultimodalTKAM:
    pyro.set_rng_seed(3)
    heads = {
        "image": nn.Linear(latents, 2),
        "bits": nn.Linear(latents, 4),
        "label": nn.Linear(latents, 3),
    }
    for head in heads.values():
        nn.init.normal_(head.weight, std=2.0)
    likelihoods = {
        "image": GaussianLikelihood(0.3),
        "bits": BernoulliLikelihood(),
        "label": CategoricalLikelihood(event_dim=0),
    }
    prior = MixturePrior(TiltedPrior((latents, 2), grid_size=5))
    if coupling == "shared":
        prior, heads = TiltedPrior((latents, 1), grid_size=5), heads
        return MultimodalTKAM(prior, Heads(heads, _Sum()), likelihoods, coupling)
    return MultimodalTKAM(prior, Heads(heads), likelihoods)


class _Sum(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.sum(-1)


def exact(
    fn: MultimodalTKAM, x: dict[str, Tensor], observed: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """
    Return log evidence of each datum and posterior means, by the midpoint rule in the one latent's
    quantile.
    """
    u = (torch.arange(20_000) + 0.5) / 20_000
    with torch.no_grad():
        prior = fn.prior()
        z = prior.icdf(u[:, None]) if fn.coupling == "independent" else prior.icdf(u[:, None, None])
        outputs = fn.generator(z)
        log_lik = torch.zeros(len(u), 3)
        for name, value in x.items():
            terms = fn.likelihoods[name](outputs[name][:, None]).log_prob(value)
            log_lik = log_lik + torch.where(
                observed.get(name, torch.ones(3, dtype=torch.bool)), terms, 0.0
            )
        weights = log_lik.softmax(0)
        means = {
            name: weights.T @ fn.likelihoods[name].expected(output)
            for name, output in outputs.items()
        }
        return log_lik.logsumexp(0) - math.log(len(u)), means


@pytest.mark.parametrize("coupling", ["independent", "shared"])
@pytest.mark.parametrize("observed", [{}, OBSERVED], ids=["complete", "missing"])
def test_evidence_and_conditionals_equal_those_by_quadrature(coupling, observed) -> None:
    """
    20,000 draws: errors of a few per mille against tolerances of five standard errors; false alarms
    below 1e-5.
    """
    fn = model(coupling)
    evidence, means = exact(fn, X, observed)
    pyro.set_rng_seed(0)
    elbo = ImportanceMLE(20_000)
    elbo.loss(fn, None, X, observed=observed)
    torch.testing.assert_close(elbo.statistics.log_evidence, evidence, atol=0.05, rtol=0)
    found = fn.conditional(X, observed, num_particles=20_000)
    assert found["bits"].shape == (3, 4)
    for name, mean in means.items():
        torch.testing.assert_close(found[name], mean, atol=0.03, rtol=0)
    wrong, _ = exact(fn, X, {} if observed else OBSERVED)
    assert (wrong - evidence).abs().max() > 0.5  # the mask matters


def test_what_stands_in_missing_rows_does_not_matter() -> None:
    fn, results = model(), []
    for filler in (math.nan, 7.0):
        image = torch.where(OBSERVED["image"][:, None], X["image"], filler)
        label = torch.where(OBSERVED["label"], X["label"], 99)
        loss = ImportanceMLE(50)(fn, None)
        pyro.set_rng_seed(0)
        value = loss({"image": image, "label": label}, observed=OBSERVED)
        fn.zero_grad()
        value.backward()
        results.append(
            [value.detach(), *(p.grad.clone() for p in fn.parameters() if p.grad is not None)]
        )
    assert all(
        bool(a.isfinite().all()) and torch.equal(a, b) for a, b in zip(*results, strict=True)
    )


def test_completions_come_from_the_posterior() -> None:
    """
    The mean of 2,000 rows of equal data against the exact mean; five standard errors, false alarms
    below 1e-5.
    """
    fn = model()
    _, means = exact(fn, X, {})
    pyro.set_rng_seed(0)
    many = {name: value.repeat(2000, *[1] * (value.dim() - 1)) for name, value in X.items()}
    draws = fn.complete(many, num_particles=5000)["image"].reshape(2000, 3, 2)
    # the second for the 5,000 particles they share
    tolerance = 5 * draws.std(0) / math.sqrt(2000) + 0.02
    assert bool(((draws.mean(0) - means["image"]).abs() < tolerance).all())
    assert draws.std(0).min() > 0.01  # rows have draws of their own


def test_draws_of_all_modalities() -> None:
    fn = model(latents=3)
    drawn, generated = fn(size=5), fn.generate(5)
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {
        "image": (5, 2),
        "bits": (5, 4),
        "label": (5,),
    }
    assert {name: value.shape for name, value in generated.items()} == {
        name: v.shape for name, v in drawn.items()
    }
    trace = pyro.poutine.trace(fn).get_trace(X, size=12)
    assert set(trace.observation_nodes) == {"image", "label"}  # a modality left out has no site
    assert trace.nodes["image"]["scale"] == 4


def test_a_text_is_completed_and_has_no_mean() -> None:
    decoder = SequenceGenerator(1, 3, 4, width=8, num_heads=2, num_layers=1)
    heads = Heads({"text": nn.Identity(), "image": nn.Linear(1, 2)})
    likelihoods = {"text": SequenceLikelihood(decoder), "image": GaussianLikelihood(0.3)}
    fn = MultimodalTKAM(TiltedPrior((1,), "gaussian", grid_size=5), heads, likelihoods)
    with pytest.raises(
        NotImplementedError, match=r"SequenceLikelihood: a text has no mean; .* with complete"
    ):
        fn.conditional({"image": X["image"]}, num_particles=50)
    assert fn.complete({"image": X["image"]}, num_particles=50)["text"].shape == (3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model()({}), r"x must hold at least one.*, got \{\} rows"),
        (
            lambda: model()({"image": X["image"][:0]}),
            r"x must hold at least one.*, got \{'image'",
        ),
        (
            lambda: model()(observed=OBSERVED, size=2),
            r"observed must be None without x, got \['image', 'label'\]",
        ),
        (
            lambda: model()({"sound": X["label"]}),
            r"x must have names among \['bits', 'image', 'label'\], got 'sound'",
        ),
        (
            lambda: model()({"image": X["image"], "label": X["label"][:2]}),
            r"x must hold at least one.*, got \{'image'",
        ),
        (
            lambda: model()(X, observed={"bits": OBSERVED["label"]}),
            r"observed must have names among \['image', 'label'\], got 'bits'",
        ),
        (
            lambda: model()(X, observed={"label": torch.ones(3)}),
            r"observed must hold booleans of.*, got torch\.float32 of shape \(3,\)",
        ),
        (
            lambda: model()(X, observed={"label": torch.ones(2, dtype=torch.bool)}),
            r"observed must hold booleans of.*, got torch\.bool of shape \(2,\) for",
        ),
        (
            lambda: model()({"image": X["image"]}, observed={"image": OBSERVED["image"]}),
            r"observed must name at least one.*, got rows without any",
        ),
        (
            lambda: model()({"image": X["image"] * math.nan}),
            "image must be finite in observed rows, got NaN or infinite elements",
        ),
        (
            lambda: model()({"image": X["image"][:, :1]}),
            r"image must have rows of shape \(2,\), got \(1,\)",
        ),
        (
            lambda: ImportanceMLE(5).loss(model(), None, {"label": X["label"] + 1}),
            "got a datum outside it at the observed site 'label'",
        ),
        (lambda: model()(), "size must be the number of rows to draw, at least 1, got None"),
        (lambda: model()(size=-1), "size must be an integer of at least 1, got -1"),
        (lambda: model()(X, size=2), "size must be at least the 3 rows of the mini-batch, got 2"),
        (lambda: model().generate(0), r"num must be .*, got 0"),
        (
            lambda: MultimodalTKAM(None, None, {}),
            "likelihoods must hold one for each modality, got none",
        ),
    ],
)
def test_refuses_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_refuses_another_dtype() -> None:
    with pytest.raises(TypeError, match=r"image must have the dtype of the.*, got torch\.float64"):
        model()({"image": X["image"].double(), "label": X["label"]})
    with pytest.raises(TypeError, match=r"value must hold integers, got torch\.float32"):
        ImportanceMLE(5).loss(model(), None, {"label": X["label"].float()})


def test_a_generator_may_call_anything_its_heads():
    class Own(nn.Module):
        heads = 4

        def forward(self, z: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"image": z.repeat(1, 2)}

    prior = MixturePrior(TiltedPrior((2, 2), grid_size=5))
    model = MultimodalTKAM(prior, Own(), {"image": GaussianLikelihood(0.3)})
    assert set(model({"image": torch.rand(3, 4)})) == {"image"}
