"""Digits as three modalities of one latent: upper half, lower half and label, each from the others.

    python -m benchmarks.multimodal --threads 1

1,400 digits of 8 × 8 pixels train, 397 test; in training a tenth of the labels and of the lower
halves are missing. Posterior means are by importance sampling from the prior. A half's error is its
root mean square over pixels, beside that of predicting the mean training half, and of linear
regression from the other half.
"""

from statistics import mean

import pyro
import torch
from torch import Tensor, nn

from benchmarks.timing import arguments, report
from pyro_tkam.datasets import digits, split
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import (
    CategoricalLikelihood,
    GaussianLikelihood,
    Heads,
    LatentGenerator,
    MixturePrior,
    MultimodalTKAM,
    TiltedPrior,
)
from pyro_tkam.nn import KAN

LATENTS, FEATURES, NOISE = 24, 80, 0.2


def make_model() -> MultimodalTKAM:
    """Return a mixture prior, one shared KAN layer, and one for each modality."""
    shared = LatentGenerator(
        KAN([LATENTS, FEATURES], "rbf", grid_size=10, bias=False),
        (FEATURES,),
        mean=0.5,
        spread=12**-0.5,
    )
    heads = {
        "upper": KAN([FEATURES, 32], "rbf", grid_size=10, bias=False, output="sigmoid"),
        "lower": KAN([FEATURES, 32], "rbf", grid_size=10, bias=False, output="sigmoid"),
        "label": KAN([FEATURES, 10], "rbf", grid_size=10, bias=False),
    }
    likelihoods = {
        "upper": GaussianLikelihood(NOISE),
        "lower": GaussianLikelihood(NOISE),
        "label": CategoricalLikelihood(event_dim=0),
    }
    prior = MixturePrior(TiltedPrior((LATENTS, 8), grid_size=10))
    return MultimodalTKAM(
        prior, Heads(heads, nn.Sequential(shared, nn.LayerNorm(FEATURES))), likelihoods
    )


def fit(model: MultimodalTKAM, data: dict[str, Tensor], updates: int, particles: int) -> None:
    """Train by importance MLE."""
    rows = len(data["label"])
    there = {"lower": torch.rand(rows) > 0.1, "label": torch.rand(rows) > 0.1}
    loss = ImportanceMLE(particles)(model, None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        some = torch.randint(rows, (100,))
        optimizer.zero_grad()
        batch, masks = (
            {name: value[some] for name, value in part.items()} for part in (data, there)
        )
        (loss(batch, observed=masks) / len(some)).backward()
        optimizer.step()
        schedule.step()


def linear(x: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """Return ridge regression's predictions."""
    ones, ones_test = (torch.cat([part, torch.ones(len(part), 1)], -1) for part in (x, test))
    return ones_test @ torch.linalg.solve(
        ones.T @ ones + 1e-2 * torch.eye(ones.shape[1]), ones.T @ y
    )


def one_run(seed: int, *, short: bool) -> dict[str, float]:
    """Train, complete, and return shares of right labels and errors of halves."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    images, label = digits()
    halves = dict(zip(("upper", "lower"), images.flatten(1).chunk(2, -1), strict=True))
    train, test = split(len(images), 397)
    data = {name: value[train] for name, value in {**halves, "label": label}.items()}
    held_out = {name: value[test] for name, value in {**halves, "label": label}.items()}
    model = make_model()
    fit(model, data, 100 if short else 1500, 300)
    results: dict[str, float] = {}
    for given in (("upper", "lower"), ("upper",), ("lower",)):
        known = {name: held_out[name] for name in given}
        found = model.conditional(known, num_particles=2000 if short else 20_000)
        right = (found["label"].argmax(-1) == held_out["label"]).double().mean()
        results[f"label_from_{'_and_'.join(given)}"] = float(right)
        for other in set(halves) - set(given):
            regression = linear(data[given[0]], data[other], held_out[given[0]])
            guesses = {"model": found[other], "mean": data[other].mean(0), "linear": regression}
            for name, guess in guesses.items():
                results[f"{other}_by_{name}"] = float(
                    (guess - held_out[other]).square().mean().sqrt()
                )
    return results


def main() -> None:
    """Run some seeds and print."""
    options = arguments(__doc__)
    runs = [one_run(seed, short=options.short) for seed in range(1 if options.short else 3)]
    report(
        {"runs": runs, "mean": {name: mean(run[name] for run in runs) for name in runs[0]}},
        options.output,
    )


if __name__ == "__main__":
    main()
