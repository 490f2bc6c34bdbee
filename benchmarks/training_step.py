"""
One full gradient step of importance MLE at the paper's sizes, by the number of inner indices, and
its memory.

    python -m benchmarks.training_step

The published seconds are those of Raj 2025 (arXiv:2506.14167, Sec. A.2) on a GTX 1650 with 20 CPU
threads.
"""

import subprocess
import sys
from collections.abc import Callable

import pyro
import torch

from benchmarks.timing import arguments, best_of, peak_memory_mib, report
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM

PUBLISHED = {10: 0.2504, 20: 0.4758, 30: 0.8555, 40: 1.5108, 50: 2.1609}
NUM_PARTICLES = BATCH = 100


def step_of(latent_dim: int, coupling: str) -> Callable[[], None]:
    """Return a call that takes one gradient of the loss."""
    pyro.set_rng_seed(0)
    model = TKAM.kart(784, latent_dim, coupling=coupling)
    loss = ImportanceMLE(NUM_PARTICLES)(model, None)
    x = torch.rand(BATCH, 784)
    loss(x)

    def step() -> None:
        loss.zero_grad(set_to_none=True)
        loss(x).backward()

    return step


def peak_of_a_step(coupling: str, threads: int) -> float:
    """Return by how many MiB five steps at P = 40 raise the peak of a fresh process."""
    code = (
        "import torch; from benchmarks.timing import peak_memory_mib; from "
        "benchmarks.training_step import step_of\n"
        f"torch.set_num_threads({threads}); before = peak_memory_mib(); step = step_of(40, "
        f"{coupling!r})\n"
        "for _ in range(5): step()\n"
        "print(peak_memory_mib() - before)"
    )
    return float(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
    )


def main() -> None:
    """Time a step of both couplings for P = 10, ..., 50."""
    options = arguments(__doc__)
    repeats = 5 if options.short else 20
    results = {
        coupling: [
            {
                "latent_dim": latent_dim,
                "seconds": best_of(step_of(latent_dim, coupling), repeats),
                "published_seconds": published,
            }
            for latent_dim, published in PUBLISHED.items()
        ]
        for coupling in ("independent", "shared")
    }
    memory = {coupling: peak_of_a_step(coupling, options.threads) for coupling in results}
    report(
        {"gradient_step": results, "peak_mib": memory, "process_peak_mib": peak_memory_mib()},
        options.output,
    )


if __name__ == "__main__":
    main()
