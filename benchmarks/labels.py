"""
Classes from few labels: the label-coupled prior against logistic regression, and samples of given
classes.

    python -m benchmarks.labels --threads 1

4,000 digits of 28 × 28 pixels train, 1,000 test. All train the generator, the prior and an
amortized guide; 100 of them, ten of each class, have a label. Logistic regression has the same 100.
Samples drawn given a class are judged by a classifier that learned from all labels, which the model
never sees.
"""

from statistics import mean

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform, TanhTransform

from benchmarks.timing import arguments, report
from pyro_tkam.datasets import mnist5k, split
from pyro_tkam.metrics import train_classifier
from pyro_tkam.models import GaussianLikelihood, LabeledPrior, LabeledTKAM
from pyro_tkam.nn import KAN

LATENTS, CLASSES, PIXELS, NOISE = 16, 10, 784, 0.4


def shifted(x: Tensor, most: int = 2) -> Tensor:
    """Move every image by up to ``most`` pixels each way."""
    padded = nn.functional.pad(x.unflatten(-1, (28, 28)), (most,) * 4)
    rows, columns = (torch.randint(2 * most + 1, (len(x), 1)) + torch.arange(28) for _ in range(2))
    return padded[
        torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]
    ].flatten(1)


class Encoder(PyroModule):
    """
    The guide ``q(z | x)``: a Gaussian squeezed into the prior's interval [-4, 4].

    In training it sees digits moved by up to two pixels, so that latents do not tell where a digit
    stands.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = PyroModule[nn.Sequential](
            nn.Unflatten(-1, (1, 28, 28)),
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * 49, 128),
            nn.ReLU(),
            nn.Linear(128, 2 * LATENTS),
        )

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


def make_model(label_weight: float) -> LabeledTKAM:
    """Return the model."""
    prior = LabeledPrior(CLASSES, LATENTS, "gaussian", grid_size=12)
    generator = KAN(
        [LATENTS, 162, PIXELS],
        "rbf",
        grid_size=8,
        layer_norm=True,
        bias=False,
        output="sigmoid",
    )
    return LabeledTKAM(prior, generator, GaussianLikelihood(NOISE), label_weight=label_weight)


def fit(x: Tensor, label: Tensor, updates: int, label_weight: float) -> tuple[LabeledTKAM, Encoder]:
    """Train on batches of 64 rows of all data and 36 of those with a label."""
    model, guide = make_model(label_weight), Encoder()
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


def logistic_regression(x: Tensor, label: Tensor, test: Tensor) -> Tensor:
    """Return scikit-learn's classes."""
    from sklearn.linear_model import LogisticRegression

    return torch.tensor(
        LogisticRegression(max_iter=2000).fit(x.numpy(), label.numpy()).predict(test.numpy())
    )


def one_run(seed: int, updates: int, label_weight: float, per_class: int = 10) -> dict[str, float]:
    """Train on one draw of labels and score."""
    pyro.set_rng_seed(seed)
    pyro.clear_param_store()
    images, classes = mnist5k()
    train, test = split(len(images), 1000)
    x, y = images.flatten(1)[train], classes[train]
    held_out, held_out_y = images.flatten(1)[test], classes[test]
    chosen = torch.cat(
        [
            (y == c).nonzero().squeeze(-1)[torch.randperm(int((y == c).sum()))[:per_class]]
            for c in range(CLASSES)
        ]
    )
    label = torch.full_like(y, -1)
    label[chosen] = y[chosen]
    baseline = logistic_regression(x[chosen], y[chosen], held_out)
    model, guide = fit(x, label, updates, label_weight)
    wanted = torch.arange(CLASSES).repeat(100)
    samples = model.generate(wanted).unflatten(-1, (28, 28))
    judge = train_classifier(images[train], y, members=1)
    said = judge(samples.unsqueeze(1)).argmax(-1)
    return {
        "accuracy": float((predict(model, guide, held_out) == held_out_y).double().mean()),
        "logistic_regression": float((baseline == held_out_y).double().mean()),
        "right_class_samples": float((said == wanted).double().mean()),
        "judge_on_held_out": float(
            (judge(images[test].unsqueeze(1)).argmax(-1) == held_out_y).double().mean()
        ),
    }


def main() -> None:
    """Run some draws of labels and print."""
    options = arguments(__doc__)
    runs = [
        one_run(seed, 300 if options.short else 2000, 30.0)
        for seed in range(1 if options.short else 3)
    ]
    report(
        {"runs": runs, "mean": {name: mean(run[name] for run in runs) for name in runs[0]}},
        options.output,
    )


if __name__ == "__main__":
    main()
