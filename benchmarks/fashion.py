"""
Samples of Fashion-MNIST: the autoregressive prior beside a variational autoencoder, on the data and
updates of the paper's models.

    python -m benchmarks.fashion --threads 1 --data FOLDER

The models are those of :mod:`benchmarks.quality`, with the settings chosen there on digits. They
take the paper's 2,000 updates of 100 of its 20,000 images, like the rows of
``python -m pyro_tkam reproduce fashion --scale paper``, whose Fréchet distance is the same: from
samples to 1,000 images of the published test set, in the features of a small classifier of the
training images, extrapolated to infinitely many samples. Rows that the output already has are not
run again. Without ``--data``, digits stand in, to try the code.
"""

import argparse
import math
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.quality import TUNED, UPDATES, Judges, Setting, measure
from benchmarks.timing import earlier, report
from pyro_tkam.metrics import classifier_features, train_classifier
from pyro_tkam.paper.experiments import DATA, EXPERIMENTS

SETTINGS = {
    "autoregressive, 81 blocks": Setting(width=324),
    "vae": Setting(0.4, width=324),
}
"""The best of the grid on digits, for as many updates."""


def judged(folder: Path | None) -> Judges:
    """Return the paper's images, and what judges samples of them."""
    scale = EXPERIMENTS["fashion-gaussian-rbf"].scale("paper")
    load = DATA["mnist5k" if folder is None else scale.data]
    images = load(folder, *((4000, 1000) if folder is None else (scale.training, scale.held_out)))
    assert images.labels is not None
    torch.manual_seed(0)
    return Judges(
        classifier_features(images.training, images.labels),
        train_classifier(images.training, images.labels),
        images.training,
        images.held_out,
    )


def compared(runs: list[dict[str, Any]], figure: str) -> dict[str, float]:
    """Return the first contender's figure over the last's, paired by seed, with its error."""
    first, last = (
        [run[figure] for run in runs if run["name"] == setting.name(name)]
        for name, setting in SETTINGS.items()
    )
    ratios = [one / other for one, other in zip(first, last, strict=True)]
    return {"ratio": fmean(ratios), "standard_error": stdev(ratios) / math.sqrt(len(ratios))}


def main() -> None:
    """Train both with every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--data", type=Path, help="folder with the published files")
    parser.add_argument("--short", action="store_true", help="one seed, 100 updates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seeds, updates = (range(1), 100) if options.short else (range(3), UPDATES)
    judges = judged(options.data)
    results = earlier(options.output)
    runs = results.setdefault("runs", [])
    done = {(run["name"], run["seed"]) for run in runs}
    for seed in seeds:
        for name, setting in SETTINGS.items():
            if (setting.name(name), seed) not in done:
                make = partial(TUNED[name], setting)
                row = measure(
                    setting.name(name), make, seed, updates, judges.training.flatten(1), judges
                )
                runs.append(row)
                report(results, options.output)
    if len(seeds) > 1:
        results["autoregressive_over_vae"] = compared(runs, "frechet_to_held_out_extrapolated")
    report(results, options.output)


if __name__ == "__main__":
    main()
