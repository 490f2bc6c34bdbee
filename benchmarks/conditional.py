"""
Digits of asked classes: the autoregressive prior with the label as context, all labels known.

    python -m benchmarks.conditional --threads 1

4,000 digits and their labels train the model of ``benchmarks.quality``, with the same decoder,
guide, batches and step sizes. Samples have labels drawn from the model's own ``p(y)``. Distances
are those of ``benchmarks.quality``; a sample is right if a committee of classifiers, which the
model never sees, tells the class that was asked for. ``--validate`` compares settings instead:
3,200 of the 4,000 digits train the model and the judges, and the other 800 take the place of the
held-out digits. Each row is written when it is done, and ``--resume`` goes on after those that the
output already has.
"""

import time
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.quality import GRID, HIGHEST_RATE, LATENTS, Judges, batches, descend
from benchmarks.timing import arguments, earlier, report
from pyro_tkam.datasets import mnist5k, split
from pyro_tkam.metrics import (
    classifier_features,
    embed,
    frechet_distance,
    train_classifier,
)
from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    GaussianLikelihood,
    LabeledTKAM,
    LatentGenerator,
)
from pyro_tkam.nn import LabeledAutoregressivePrior

CLASSES, SEEDS = 10, range(3)
UPDATES, VALIDATION_UPDATES = 4000, 2000
NOISES = (0.3, 0.2, 0.4)  # those that are compared
NOISE = 0.4
"""That of the most right samples whose Fréchet distance on validation digits is below 0.27."""


@dataclass(frozen=True)
class Digits:
    """Images of shape ``(N, 28, 28)`` and labels that train, and others that only judge."""

    images: Tensor
    labels: Tensor
    other_images: Tensor
    other_labels: Tensor

    @classmethod
    def standard(cls) -> "Digits":
        """Return the digits of the benchmarks."""
        data = mnist5k()
        rows, held_out = split(len(data.images), 1000, seed=0)
        return cls(
            data.images[rows], data.labels[rows], data.images[held_out], data.labels[held_out]
        )

    def validation(self) -> "Digits":
        """Return a part of the digits that train in place of the held-out ones."""
        rows, held_out = split(len(self.images), 800, seed=1)
        return Digits(
            self.images[rows], self.labels[rows], self.images[held_out], self.labels[held_out]
        )

    def judges(self) -> Judges:
        """Train what judges samples, with the seed of ``benchmarks.quality``."""
        torch.manual_seed(0)
        return Judges(
            classifier_features(self.images, self.labels),
            train_classifier(self.images, self.labels),
            self.images,
            self.other_images,
        )


def make_model(noise_scale: float) -> LabeledTKAM:
    """Return the model of ``benchmarks.quality`` with labels."""
    alike = TKAM.autoregressive(784, LATENTS, grid_size=GRID, noise_scale=noise_scale)
    generator, likelihood = alike.generator, alike.likelihood
    assert isinstance(generator, LatentGenerator)
    assert isinstance(likelihood, GaussianLikelihood)
    return LabeledTKAM(LabeledAutoregressivePrior(CLASSES, LATENTS), generator, likelihood)


def fit(digits: Digits, seed: int, updates: int, noise_scale: float) -> LabeledTKAM:
    """Train with all labels."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    model = make_model(noise_scale)
    objective = pyro.infer.Trace_ELBO()(model, AmortizedGuide(model))
    x, labels = digits.images.flatten(1), digits.labels
    update = descend(
        lambda rows: objective(x[rows], labels[rows]),
        (objective.parameters(), HIGHEST_RATE),
        falls=updates,
    )
    for rows in batches(len(x), updates):
        update(rows)
    return model


def right(classifier: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose most probable class is their label."""
    with torch.no_grad():
        said = torch.cat([classifier(part).argmax(-1) for part in images.unsqueeze(1).split(1000)])
    return float((said == labels).double().mean())


def measure(
    digits: Digits, judges: Judges, seed: int, updates: int, noise_scale: float
) -> dict[str, Any]:
    """Train one model and judge its samples."""
    start = time.process_time()
    model = fit(digits, seed, updates, noise_scale)
    seconds = time.process_time() - start
    with torch.no_grad():
        weights = model.prior().log_weights.exp()
    start = time.process_time()
    labels = [torch.multinomial(weights, 5500, replacement=True) for _ in range(4)]
    samples = torch.cat([model.generate(each) for each in labels]).reshape(-1, 28, 28)
    drawing = time.process_time() - start
    return {
        "seed": seed,
        "updates": updates,
        "noise": noise_scale,
        "right": right(judges.classifier, samples, torch.cat(labels)),
        **judges.measures(samples),
        "cpu_seconds_per_update": seconds / updates,
        "cpu_seconds_for_10000": drawing * 10_000 / len(samples),
    }


def main() -> None:
    """Train with every seed, or compare settings."""
    options = arguments(__doc__, ("--resume", "--validate"))
    seeds = range(1) if options.short else SEEDS
    updates = VALIDATION_UPDATES if options.validate else UPDATES
    updates = 100 if options.short else updates
    digits = Digits.standard()
    wanted = [(seed, updates, NOISE) for seed in seeds]
    kind = "validation" if options.validate else "runs"
    if options.validate:
        digits = digits.validation()
        wanted = [(0, updates, noise) for noise in NOISES]
    judges = digits.judges()
    results = earlier(options.output) if options.resume else {}
    if not options.validate:
        real, other = (embed(judges.features, each) for each in (digits.images, judges.held_out))
        results["held_out_frechet"] = frechet_distance(real, other)
        results["held_out_right"] = right(
            judges.classifier, digits.other_images, digits.other_labels
        )
    runs = results.setdefault(kind, [])
    done = {(run["seed"], run["updates"], run["noise"]) for run in runs}
    for each in wanted:
        if each not in done:
            runs.append(measure(digits, judges, *each))
            report(results, options.output)


if __name__ == "__main__":
    main()
