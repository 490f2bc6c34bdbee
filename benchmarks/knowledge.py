"""
Updates that prior knowledge saves: runs from a prior fitted to what is known, beside runs without.

    python -m benchmarks.knowledge [--short] [--output results.json]

Planted: a decoder is known and so is the formula of the latent's density. Digits: a decoder starts
from principal components, and the prior is fitted to their scores. Held-out log evidence of both
runs as they train, by equal draws.
"""

from collections.abc import Callable
from typing import Any

import pyro
import torch
import torch.distributions as dist
from torch import Tensor

from benchmarks.timing import arguments, report
from pyro_tkam.datasets import digits, split
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, GaussianLikelihood, TiltedPrior

EVERY = 10
FORMULA = "exp(-(z + 2)**2 / 0.18) + 1.4*exp(-(z - 1)**2 / 0.5)"
TARGET = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.3, 0.7])),
    dist.Normal(torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.5])),
)  # the same density


def known_decoder(z: Tensor) -> Tensor:
    """Return three functions of a latent."""
    return torch.cat([torch.sin(z), z, z.square() / 4], -1)


def evidence_curve(
    model: TKAM,
    x: Tensor,
    held_out: Tensor,
    groups: list[dict[str, Any]],
    batch_size: int = 100,
    updates: int = 80,
) -> Tensor:
    """
    Train a model; return its held-out log evidence a datum every few updates, always by the same
    uniform draws.
    """
    objective, value = ImportanceMLE(100)(model, None), ImportanceMLE(4000)
    optimizer = torch.optim.Adam(groups)
    curve = []
    for update in range(updates + 1):
        if update % EVERY == 0:
            with torch.random.fork_rng():
                pyro.set_rng_seed(1)
                curve.append(-value.loss(model, None, held_out) / len(held_out))
        loss = objective(x[torch.randint(len(x), (batch_size,))], size=len(x)) / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.tensor(curve)


def planted(seed: int, informed: bool) -> Tensor:
    """Train a prior under a known decoder; the formula of its density is known or not."""
    pyro.set_rng_seed(100 + seed)
    x, held_out = (
        known_decoder(TARGET.sample((n, 1))) + 0.1 * torch.randn(n, 3) for n in (1000, 200)
    )
    pyro.set_rng_seed(seed)
    prior = TiltedPrior((1,), "gaussian", basis="bspline")
    if informed:
        prior.fit(formula=FORMULA)
    model = TKAM(prior, known_decoder, GaussianLikelihood(0.1))
    return evidence_curve(model, x, held_out, [{"params": model.parameters(), "lr": 0.02}])


def on_digits(seed: int, informed: bool, latents: int = 4) -> Tensor:
    """
    Train a prior and a decoder that starts from principal components; their scores' distribution is
    known or not.
    """
    images, _ = digits()
    train, test = split(len(images), 397)
    x, held_out = images.flatten(1)[train], images.flatten(1)[test[:200]]
    left, spread, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    decoder = torch.nn.Linear(latents, x.shape[1])
    with torch.no_grad():
        decoder.weight.copy_((axes[:latents] * spread[:latents, None] / len(x) ** 0.5).T)
        decoder.bias.copy_(x.mean(0))
    pyro.set_rng_seed(seed)
    prior = TiltedPrior((latents,), "gaussian", basis="bspline", grid_size=10)
    if informed:
        prior.fit((left[:, :latents] * len(x) ** 0.5).clamp(-4, 4), ridge=1e-3)
    model = TKAM(prior, decoder, GaussianLikelihood(0.2))
    groups = [
        {"params": prior.parameters(), "lr": 0.01},
        {"params": decoder.parameters(), "lr": 1e-3},
    ]
    return evidence_curve(model, x, held_out, groups, batch_size=400)


CASES: dict[str, Callable[[int, bool], Tensor]] = {"planted": planted, "digits": on_digits}


def updates_to(curve: Tensor, level: Tensor) -> int | None:
    """Return the first update at which a curve reaches a level, None if it never does."""
    reached = (curve >= level).nonzero()
    return EVERY * int(reached[0]) if len(reached) else None


def compared(train: Callable[[int, bool], Tensor], seed: int) -> dict[str, Any]:
    """Return both curves, and after how many updates each has what the uninformed run ends with."""
    uninformed, informed = train(seed, False), train(seed, True)
    final = uninformed[-3:].mean()
    return {
        "uninformed": uninformed.tolist(),
        "informed": informed.tolist(),
        "final": final.item(),
        "updates": EVERY * (len(uninformed) - 1),
        "uninformed_updates": updates_to(uninformed, final),
        "informed_updates": updates_to(informed, final),
    }


def main() -> None:
    """Compare and report."""
    options = arguments(__doc__)
    seeds = range(1 if options.short else 3)
    report(
        {name: [compared(train, seed) for seed in seeds] for name, train in CASES.items()},
        options.output,
    )


if __name__ == "__main__":
    main()
