"""
Samples of Fashion-MNIST: the autoregressive prior beside a variational autoencoder, on the data and
updates of the paper's models.

    python -m benchmarks.fashion --threads 1 --data FOLDER

The models are those of :mod:`benchmarks.quality`, with the settings chosen there on digits. They
take the paper's 2,000 updates of 100 of its 20,000 images, like the rows of
``python -m pyro_tkam reproduce fashion --scale paper``, whose Fréchet distance is the same: from
samples to 1,000 images of the published test set, in the features of a small classifier of the
training images, extrapolated to infinitely many samples. As many images again, which no model has
seen, tell copies from typical samples: copies are nearer to the training images than to those.
Rows that the output already has are not run again. Without ``--data``, digits stand in, to try the
code.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality import TUNED, UPDATES, Judges, Setting, measure
from benchmarks.timing import arguments, earlier, report, with_error
from pyro_tkam.metrics import classifier_features, copies, train_classifier
from pyro_tkam.paper.experiments import DATA, EXPERIMENTS

SETTINGS = {
    "autoregressive, 81 blocks": Setting(width=324),
    "vae": Setting(0.4, width=324),
}
"""The best of the grid on digits, for as many updates."""


@dataclass(frozen=True)
class WithUnseen(Judges):
    """Judges that also have as many images as were trained on, which no model has seen."""

    unseen: Tensor

    def measures(self, samples: Tensor) -> dict[str, float]:
        """Add the median distance to the nearest unseen image."""
        near = copies(samples[:1000], self.unseen, self.held_out).distance.median()
        return super().measures(samples) | {"nearest_unseen": float(near)}


def judged(folder: Path | None) -> WithUnseen:
    """Return the paper's images, and what judges samples of them."""
    scale = EXPERIMENTS["fashion-gaussian-rbf"].scale("paper")
    load = DATA["mnist5k" if folder is None else scale.data]
    num = 2000 if folder is None else scale.training
    images = load(folder, 2 * num, scale.held_out)
    assert images.labels is not None
    training, labels = images.training[:num], images.labels[:num]
    torch.manual_seed(0)
    return WithUnseen(
        classifier_features(training, labels),
        train_classifier(training, labels),
        training,
        images.held_out,
        images.training[num:],
    )


def ratios(runs: list[dict[str, Any]], figure: str) -> list[float]:
    """Return the first contender's figure over the last's, seed by seed."""
    first, last = (
        [run[figure] for run in runs if run["name"] == setting.name(name)]
        for name, setting in SETTINGS.items()
    )
    return [one / other for one, other in zip(first, last, strict=True)]


def main() -> None:
    """Train both with every seed."""
    options = arguments(__doc__, paths=("--data",))
    seeds, updates = (range(2), 100) if options.short else (range(3), UPDATES)
    judges = judged(options.data)
    x = judges.training.flatten(1)
    results = earlier(options.output)
    runs = results.setdefault("runs", [])
    done = {(run["name"], run["seed"]) for run in runs}
    for seed in seeds:
        for contender, setting in SETTINGS.items():
            name, make = setting.name(contender), partial(TUNED[contender], setting)
            if (name, seed) not in done:
                runs.append(measure(name, make, seed, updates, x, judges))
                report(results, options.output)
    found = ratios(runs, "frechet_to_held_out_extrapolated")
    results["autoregressive_over_vae"] = with_error(found)
    report(results, options.output)


if __name__ == "__main__":
    main()
