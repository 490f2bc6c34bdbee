"""
Classes from few labels: two priors coupled to the label beside classifiers of the same labels.

    python -m benchmarks.labels --threads 1

4,000 digits of 28 × 28 pixels train, 1,000 test. All train the generator, the prior and an
amortized guide; 10 or 100 of each class have a label. The classifier alone has the guide's layers
and sees the same shifted digits, but only those with a label, as does logistic regression. Samples
drawn given a class are judged by a classifier that learned from all labels, which the model never
sees. No setting was chosen by these digits or others. Each row is written when it is done, and
``--resume`` goes on after those that the output already has.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform, TanhTransform

from benchmarks.timing import arguments, earlier, report
from pyro_tkam.datasets import mnist5k, split
from pyro_tkam.metrics import train_classifier
from pyro_tkam.models import GaussianLikelihood, LabeledPrior, LabeledTKAM
from pyro_tkam.nn import KAN, LabeledAutoregressivePrior

LATENTS, CLASSES, PIXELS, NOISE = 16, 10, 784, 0.4
PER_CLASS, SEEDS, LABEL_WEIGHT, RATE = (10, 100), range(5), 30.0, 2e-3
PRIORS: dict[str, Callable[[], LabeledPrior | LabeledAutoregressivePrior]] = {
    "independent": lambda: LabeledPrior(CLASSES, LATENTS, "gaussian", grid_size=12),
    "autoregressive": lambda: LabeledAutoregressivePrior(
        CLASSES, LATENTS, grid_size=8, hidden=(64, 64)
    ),
}
UPDATES = {
    "classifier alone": 1000,
    "logistic regression": 0,
    "autoregressive": 1000,
    "independent": 2000,
}
"""Of each contender."""
Row = dict[str, Any]


def shifted(x: Tensor, most: int = 2) -> Tensor:
    """Move every image by up to ``most`` pixels each way."""
    padded = nn.functional.pad(x.unflatten(-1, (28, 28)), (most,) * 4)
    rows, columns = (torch.randint(2 * most + 1, (len(x), 1)) + torch.arange(28) for _ in range(2))
    return padded[
        torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]
    ].flatten(1)


def layers(out_features: int) -> list[nn.Module]:
    """Return the layers of the guide and of the classifier alone."""
    return [
        nn.Unflatten(-1, (1, 28, 28)),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 49, 128),
        nn.ReLU(),
        nn.Linear(128, out_features),
    ]


class Encoder(PyroModule):
    """
    The guide ``q(z | x)``: a Gaussian squeezed into the prior's interval [-4, 4].

    In training it sees digits moved by up to two pixels, so that latents do not tell where a digit
    stands.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = PyroModule[nn.Sequential](*layers(2 * LATENTS))

    def forward(self, x: Tensor, label: Tensor | None = None, size: int | None = None) -> None:
        """Draw the latents of data."""
        with pyro.plate(
            "data", size or len(x), subsample=torch.arange(len(x)) if len(x) < (size or 0) else None
        ):
            loc, log_scale = self.layers(shifted(x) if self.training else x).chunk(2, -1)
            noise = dist.Normal(loc, (log_scale - 1).clamp(-6, 2).exp())
            into = [
                AffineTransform(0.0, 0.25),
                TanhTransform(cache_size=1),
                AffineTransform(0.0, 3.999),
            ]
            pyro.sample("z", dist.TransformedDistribution(noise, into).to_event(1))


def make_model(prior: str) -> LabeledTKAM:
    """Return the model."""
    generator = KAN(
        [LATENTS, 162, PIXELS],
        "rbf",
        grid_size=8,
        layer_norm=True,
        bias=False,
        output="sigmoid",
    )
    return LabeledTKAM(
        PRIORS[prior](), generator, GaussianLikelihood(NOISE), label_weight=LABEL_WEIGHT
    )


def fit(prior: str, x: Tensor, label: Tensor, updates: int) -> tuple[LabeledTKAM, Encoder]:
    """Train on batches of 64 rows of all data and 36 of those with a label."""
    model, guide = make_model(prior), Encoder()
    loss = Trace_ELBO()(model, guide)
    energies = [p for name, p in model.named_parameters() if name.startswith("prior")]
    network = [p for name, p in loss.named_parameters() if "model.prior" not in name]
    optimizer = torch.optim.Adam(
        [{"params": network, "lr": 2e-3}, {"params": energies, "lr": 1e-2}]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [2e-3, 1e-2], total_steps=updates, pct_start=0.1
    )
    labeled = (label >= 0).nonzero().squeeze(-1)
    for _ in range(updates):
        some = torch.cat(
            [torch.randint(len(x), (64,)), labeled[torch.randint(len(labeled), (36,))]]
        )
        optimizer.zero_grad()
        (loss(x[some], label[some]) / len(some)).backward()
        nn.utils.clip_grad_norm_(loss.parameters(), 100.0)
        optimizer.step()
        schedule.step()
    guide.eval()
    return model, guide


@torch.no_grad()
def predict(model: LabeledTKAM, guide: Encoder, x: Tensor, draws: int = 20) -> Tensor:
    """Return the most probable class, averaged over draws of the guide."""
    votes = torch.zeros(())
    for _ in range(draws):
        with pyro.poutine.trace() as tracing:
            guide(x)
        votes = votes + model.prior().label_logits(tracing.trace.nodes["z"]["value"]).exp()
    return votes.argmax(-1)


def classifier_alone(x: Tensor, label: Tensor, updates: int) -> nn.Module:
    """Train the guide's layers on batches of 36 of the digits with a label."""
    network = nn.Sequential(*layers(CLASSES))
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=updates, pct_start=0.1
    )
    for _ in range(updates):
        some = torch.randint(len(x), (36,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(shifted(x[some])), label[some]).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def logistic_regression(x: Tensor, label: Tensor, test: Tensor) -> Tensor:
    """Return scikit-learn's classes."""
    from sklearn.linear_model import LogisticRegression

    return torch.tensor(
        LogisticRegression(max_iter=2000).fit(x.numpy(), label.numpy()).predict(test.numpy())
    )


@dataclass(frozen=True)
class Digits:
    """Flat images and classes that train, and others that test."""

    x: Tensor
    y: Tensor
    other_x: Tensor
    other_y: Tensor

    @classmethod
    def standard(cls) -> "Digits":
        """Return the digits of the benchmark."""
        images, classes = mnist5k()
        train, test = split(len(images), 1000)
        x = images.flatten(1)
        return cls(x[train], classes[train], x[test], classes[test])

    def with_label(self, per_class: int) -> Tensor:
        """Draw the rows that have a label."""
        members = [(self.y == c).nonzero().squeeze(-1) for c in range(CLASSES)]
        return torch.cat([rows[torch.randperm(len(rows))[:per_class]] for rows in members])

    def right(self, said: Tensor) -> float:
        """Return the share of right classes of the test."""
        return float((said == self.other_y).double().mean())


def measure(digits: Digits, name: str, per_class: int, seed: int, updates: int) -> Row:
    """Train one contender on one draw of labels and score it."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    chosen = digits.with_label(per_class)
    x, y = digits.x[chosen], digits.y[chosen]
    row: Row = {"name": name, "per_class": per_class, "seed": seed, "updates": updates}
    start = time.process_time()
    if name == "logistic regression":
        return row | {"accuracy": digits.right(logistic_regression(x, y, digits.other_x))}
    if name == "classifier alone":
        network = classifier_alone(x, y, updates)
        seconds = time.process_time() - start
        with torch.no_grad():
            accuracy = digits.right(network(digits.other_x).argmax(-1))
        return row | {"accuracy": accuracy, "cpu_seconds": seconds}
    label = torch.full_like(digits.y, -1)
    label[chosen] = y
    model, guide = fit(name, digits.x, label, updates)
    seconds = time.process_time() - start
    accuracy = digits.right(predict(model, guide, digits.other_x))
    return row | {"accuracy": accuracy, "cpu_seconds": seconds} | judged(model, digits)


def judged(model: LabeledTKAM, digits: Digits) -> dict[str, float]:
    """Return the shares of samples and of test digits whose class the judge tells."""
    wanted = torch.arange(CLASSES).repeat(100)
    samples = model.generate(wanted)
    judge = train_classifier(digits.x.unflatten(-1, (28, 28)), digits.y, members=1)

    def says(x: Tensor) -> Tensor:
        told: Tensor = judge(x.unflatten(-1, (1, 28, 28))).argmax(-1)
        return told

    return {
        "right_class_samples": float((says(samples) == wanted).double().mean()),
        "judge_on_held_out": digits.right(says(digits.other_x)),
    }


def main() -> None:
    """Run every contender on some draws of labels."""
    options = arguments(__doc__, ("--resume",))
    digits = Digits.standard()
    results = earlier(options.output) if options.resume else {}
    runs = results.setdefault("runs", [])
    done = {(run["name"], run["per_class"], run["seed"]) for run in runs}
    seeds = range(1) if options.short else SEEDS
    for name, seed, per_class in itertools.product(UPDATES, seeds, PER_CLASS):
        if (name, per_class, seed) not in done:
            updates = min(UPDATES[name], 300) if options.short else UPDATES[name]
            runs.append(measure(digits, name, per_class, seed, updates))
            report(results, options.output)


if __name__ == "__main__":
    main()
