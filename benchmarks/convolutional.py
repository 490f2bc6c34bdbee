"""
Seconds and memory of an update of the published models of SVHN and CIFAR-10, at full size.

    python -m benchmarks.convolutional --threads 1 --output results.json
    python -m benchmarks.convolutional --threads 1 --short

Every row of Sec. 4.3 of Raj 2025 (mixture or deep prior; maximum likelihood or steppingstone; both
convolutional generators), with its latents, chains, temperatures and batch of 100 images, on
patches of 32 × 32 pixels of color photographs in place of the data sets. Each row runs 20 updates
in a process of its own; those that the output already has are not run again. With ``--short``, it
runs one update with chains of 2 and one with chains of 6 steps, from which the seconds at the
published number of steps follow: chains cost the same at every step and keep nothing of it. Seconds
are those of the processor; hours are of the published 8,000 updates.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import pyro
import torch

from benchmarks.timing import arguments, earlier, peak_memory_mib, report
from pyro_tkam.datasets import color_patches
from pyro_tkam.paper.experiments import EXPERIMENTS

UPDATES = 20
SHORT = (2, 6)
ROWS = [name for name in EXPERIMENTS if name.startswith(("svhn", "cifar10"))]


@dataclass(frozen=True)
class Measured:
    """Processor seconds of each update, the largest resident size, and what was trained."""

    seconds: list[float]
    peak_mib: float
    parameters: int
    losses: list[float]


def measure(name: str, updates: int, num_steps: int | None, threads: int) -> Measured:
    """
    Run updates of a row in this process.

    :param name: the experiment.
    :param updates: how many.
    :param num_steps: steps of each chain; None takes the published number.
    :param threads: of torch.
    """
    torch.set_num_threads(threads)
    pyro.set_rng_seed(0)
    row = EXPERIMENTS[name]
    scale = row.scale("paper")
    if num_steps is not None:
        scale = replace(scale, objective={**scale.objective, "num_steps": num_steps})
    images = color_patches(32).images
    model = row.model(scale, images.shape[1:])
    loss = row.elbo(scale)(model, None)
    loss(images[:2], size=len(images)).backward()  # to warm up
    optimizer = torch.optim.Adam(model.parameters(), scale.learning_rate)
    seconds, losses = [], []
    for _ in range(updates):
        batch = images[torch.randperm(len(images))[: scale.batch_size]]
        start = time.process_time()
        optimizer.zero_grad()
        value = loss(batch, size=len(images)) / len(images)
        value.backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
        losses.append(value.item())
    size = sum(parameter.numel() for parameter in model.parameters())
    return Measured(seconds, peak_memory_mib(), size, losses)


def apart(*options: Any) -> Measured:
    """Measure in a fresh process, whose peak is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(measure, *options).result()


def described(name: str, threads: int, *, short: bool) -> dict[str, Any]:
    """Measure a row and return its figures."""
    scale = EXPERIMENTS[name].scale("paper")
    steps = scale.objective["num_steps"]
    if short:
        runs = [apart(name, 1, number, threads) for number in SHORT]
        few, more = (run.seconds[0] for run in runs)
        seconds = few + (steps - SHORT[0]) * (more - few) / (SHORT[1] - SHORT[0])
        found = {"updates": 0, "steps_run": list(SHORT), "seconds_of_these": [few, more]}
        last = runs[-1]
    else:
        last = apart(name, UPDATES, None, threads)
        seconds = median(last.seconds)
        found = {"updates": UPDATES, "losses": last.losses}
    return {
        **found,
        "chain_steps": steps,
        "batch_size": scale.batch_size,
        "parameters": last.parameters,
        "seconds_an_update": seconds,
        "peak_mib": last.peak_mib,
        "hours_of_a_full_run": seconds * scale.updates / 3600,
    }


def main() -> None:
    """Measure all rows and print."""
    options = arguments(__doc__)
    rows: dict[str, Any] = earlier(options.output).get("rows", {})
    for name in ROWS:
        if rows.get(name, {}).get("updates") != UPDATES:
            rows[name] = described(name, options.threads, short=options.short)
            report({"rows": rows}, options.output)


if __name__ == "__main__":
    main()
