"""A KAN before and after pruning: parameters, error, and processor seconds of 10,000 evaluations.

    python -m benchmarks.pruning [--short] [--output results.json]

``y = exp(sin(π x₁) + x₂²)``, standardized, of four inputs of which two have no effect, from 1,000
points; a network of widths 4, 20, 1 learns it with a penalty on its functions and is pruned twice,
with some updates between.
"""

import math
from time import process_time
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.timing import arguments, best_side_by_side, report
from pyro_tkam.nn import KAN


def fit(
    network: KAN, x: Tensor, y: Tensor, updates: int, penalty: float, learning_rate: float
) -> float:
    """Minimize the mean squared error and the penalty; return the last error."""
    optimizer = torch.optim.Adam(network.parameters(), learning_rate)
    error = torch.zeros(())
    for _ in range(updates):
        optimizer.zero_grad()
        error = (network(x).squeeze(-1) - y).square().mean()
        (error + penalty * network.regularization(x) if penalty else error).backward()
        optimizer.step()
    return error.item()


def main() -> None:
    """Train, prune, and time both networks side by side."""
    options = arguments(__doc__)
    pyro.set_rng_seed(0)
    x = 2 * torch.rand(1000, 4) - 1
    y = torch.exp(torch.sin(math.pi * x[:, 0]) + x[:, 1] ** 2)
    y = (y - y.mean()) / y.std()
    grids: dict[str, Any] = {
        "low": -1.0,
        "high": 1.0,
        "hidden_low": -3.0,
        "hidden_high": 3.0,
        "grid_size": 8,
    }
    network = KAN([4, 20, 1], **grids)
    updates = 100 if options.short else 400
    errors = {"before": fit(network, x, y, updates, 3e-3, 0.01)}
    pruned = network.prune(x)
    errors["after"] = fit(pruned, x, y, updates, 0.0, 0.003)
    pruned = pruned.prune(x)
    networks = {"before": network, "after": pruned}
    points = 2 * torch.rand(10_000, 4) - 1
    with torch.no_grad():
        calls = {name: (lambda each=each: each(points)) for name, each in networks.items()}
        seconds = best_side_by_side(calls, 5 if options.short else 20, process_time)
    report(
        {
            name: {
                "widths": each.widths,
                "parameters": sum(p.numel() for p in each.parameters()),
                "mean_squared_error": errors[name],
                "cpu_seconds": seconds[name],
            }
            for name, each in networks.items()
        },
        options.output,
    )


if __name__ == "__main__":
    main()
