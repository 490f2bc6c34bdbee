"""What the way from data to a formula costs and keeps, beside pykan where it is installed.

    python -m benchmarks.workflow --output docs/results/workflow.json

``steps`` are processor seconds of one step of Adam on 1,000 rows, plain and with the penalty, in
float32 on one thread; pykan's with and without its ``speed()``. ``far inputs`` are errors of the
default fit where one input lies in [100, 200], over ten seeds and both precisions. ``laws`` are
what constants moved between edges change, and by how much a formula differs from the network with
the same forms; both should be rounding errors.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import arguments, best_side_by_side, report
from pyro_tkam.nn import KAN, fit, fit_formulas
from pyro_tkam.symbolic import find_formula

WIDTHS = ([2, 5, 1], [10, 20, 1], [64, 64, 10])
ROWS = 1000
GRID_SIZE = 5


def stepper(
    parameters: Any, objective: Callable[[], Tensor], rate: float = 1e-3
) -> Callable[[], None]:
    """Return one step of Adam."""
    optimizer = torch.optim.Adam(parameters, rate)

    def step() -> None:
        optimizer.zero_grad()
        objective().backward()
        optimizer.step()

    return step


def steps_of(widths: Sequence[int]) -> dict[str, Callable[[], None]]:
    """Return what is timed for one network."""
    torch.manual_seed(0)
    x, y = torch.rand(ROWS, widths[0]) * 2 - 1, torch.rand(ROWS, widths[-1])
    net = KAN(widths, grid_size=GRID_SIZE)

    def squares(module: Callable[[Tensor], Tensor]) -> Tensor:
        return (module(x) - y).square().mean()

    def penalized() -> Tensor:
        outputs, penalty = net.penalized(x)
        return (outputs - y).square().mean() + 1e-3 * penalty

    steps = {
        "plain": stepper(net.parameters(), partial(squares, net)),
        "penalized": stepper(net.parameters(), penalized),
    }
    if importlib.util.find_spec("kan") is None:
        return steps
    import kan

    for name in ("pykan", "pykan speed()"):
        model = kan.KAN(width=list(widths), grid=GRID_SIZE, k=3, auto_save=False, seed=0)
        model = model.speed() if "speed" in name else model
        steps[name] = stepper(model.parameters(), partial(squares, model))
    return steps


def far_inputs(seed: int, dtype: torch.dtype) -> float:
    """Fit a wave and a parabola whose argument lies in [100, 200]; return the error."""
    torch.manual_seed(seed)
    net = KAN([2, 1], grid_size=8).to(dtype)
    x = torch.stack((6 * torch.rand(500) - 3, 100 + 100 * torch.rand(500)), -1).to(dtype)
    y = torch.sin(x[:, 0]) + (x[:, 1] / 50 - 3) ** 2
    return fit(net, x, y, steps=10).rmse


def one_edge() -> float:
    """Processor seconds of all forms on one function at 200 points."""
    s = torch.linspace(-1, 1, 200, dtype=torch.double)
    start = process_time()
    fit_formulas(s, (3 * s).sin())
    return process_time() - start


def moved_constants() -> dict[str, float]:
    """Move constants between two edges; return by how much scores, penalty and output change."""
    torch.manual_seed(0)
    net, x = KAN([2, 3, 1]).double(), torch.rand(ROWS, 2, dtype=torch.double)

    def measured() -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            return net(x), net.regularization(x), torch.cat([s.flatten() for s in net.sizes(x)])

    before = measured()
    last = net.layers[-1]
    with torch.no_grad():  # splines of all intervals sum to one
        for edge, constant in ((0, 5.0), (1, -5.0)):
            last.coefficients[edge, :, 0] += constant / last.scale[0, 0]
    changes = [float((new - old).abs().max()) for new, old in zip(measured(), before, strict=True)]
    pruned = net.prune(x)
    return dict(zip(("outputs", "penalty", "sizes"), changes, strict=True)) | {
        "nodes kept": float(pruned.nodes[1].count)
    }


def formula_and_network() -> float:
    """Return the largest difference between a formula and the network fixed to its forms."""
    torch.manual_seed(0)
    x = torch.rand(300, 2, dtype=torch.double)
    net = KAN([2, 1], grid_size=5).double()
    y = torch.sin(3 * x[:, :1]) + x[:, 1:].square()
    fit(net, x, y, steps=5)
    formula = find_formula(net, x, y)
    with torch.no_grad():
        return float((formula(x) - formula.to_module()(x)).abs().max())


def main() -> None:
    """Measure, and write what came out."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    repeats = 3 if options.short else 8
    steps = {
        str(widths): best_side_by_side(steps_of(widths), repeats, process_time) for widths in WIDTHS
    }
    far = {
        str(dtype).removeprefix("torch."): [
            far_inputs(seed, dtype) for seed in range(2 if options.short else 10)
        ]
        for dtype in (torch.float32, torch.float64)
    }
    names = ["pyro-tkam"] + ["pykan"] * (importlib.util.find_spec("kan") is not None)
    results = {
        "versions": {name: importlib.metadata.version(name) for name in names},
        "steps": steps,
        "far inputs": far,
        "one edge, seconds": min(one_edge() for _ in range(3)),
        "laws": {
            "moved constants": moved_constants(),
            "formula and network": formula_and_network(),
        },
    }
    report(results, options.output)


if __name__ == "__main__":
    main()
