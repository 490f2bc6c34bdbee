"""
KAN layers 81 → 162 → 784 beside an MLP and the peers on PyPI, and a bank of 81 × 40 functions at
100 draws.

    python -m benchmarks.kan

Layers run on one thread and are timed by its processor seconds, which other load on the machine
disturbs least; the bank runs on ``--threads`` and is timed by the clock on the wall. The peers are
timed where they are installed: ``pip install inkan flashkan``.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import process_time

import torch
from torch import Tensor, nn

from benchmarks.timing import arguments, best_side_by_side, peak_memory_mib, report
from pyro_tkam.nn import KAN, UnivariateFunctions

WIDTHS = (81, 162, 784)
GRID_SIZE = 20


def _pairs(layer: Callable[[int, int], nn.Module]) -> nn.Module:
    return nn.Sequential(*(layer(*pair) for pair in pairwise(WIDTHS)))


def _ours(basis: str) -> nn.Module:
    return KAN(
        WIDTHS, basis, low=-1.0, high=1.0, grid_size=GRID_SIZE, bias=False, extrapolation="zero"
    )


def _peer(package: str) -> nn.Module:
    module = importlib.import_module(package)
    return _pairs(lambda fan_in, fan_out: module.KANLayer(fan_in, fan_out, grid_size=GRID_SIZE))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: nn.Sequential(nn.Linear(81, 162), nn.SiLU(), nn.Linear(162, 784)),
    "rbf": lambda: _ours("rbf"),
    "bspline": lambda: _ours("bspline"),
    "inkan": lambda: _peer("inkan"),
    "flashkan": lambda: _peer("flashkan"),
}
PEERS = [name for name in ("inkan", "flashkan") if importlib.util.find_spec(name)]
INSTALLED = ["mlp", "rbf", "bspline", *PEERS]


def forward_of(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a call that evaluates the network without gradients."""

    def forward() -> None:
        with torch.no_grad():
            network(x)

    return forward


def step_of(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a call that evaluates the network and the gradients of its parameters."""
    upper = torch.randn(len(x), WIDTHS[-1])

    def step() -> None:
        network.zero_grad(set_to_none=True)
        network(x).backward(upper)

    return step


def layers(batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Time all networks in turns."""
    torch.manual_seed(0)
    x = 2 * torch.rand(batch, WIDTHS[0]) - 1
    networks = {name: NETWORKS[name]() for name in INSTALLED}
    steps = best_side_by_side(
        {name: step_of(network, x) for name, network in networks.items()}, repeats, process_time
    )
    forwards = best_side_by_side(
        {name: forward_of(network, x) for name, network in networks.items()}, repeats, process_time
    )
    return {
        name: {
            "step_seconds": steps[name],
            "forward_seconds": forwards[name],
            "step_by_mlp": steps[name] / steps["mlp"],
            "forward_by_mlp": forwards[name] / forwards["mlp"],
        }
        for name in networks
    }


def beside_peers(timed: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the B-splines' times over the best peer's."""
    measures = ("step_seconds", "forward_seconds")
    return {
        each: timed["bspline"][each] / min(timed[peer][each] for peer in PEERS) for each in measures
    }


def rise_of_a_step(step: Callable[[], None], module: nn.Module) -> float:
    """
    Return by how many MiB a step raises the resident size of this process, gradients included
    (Linux).
    """
    step()
    module.zero_grad(set_to_none=True)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak_memory_mib()
    step()
    return peak_memory_mib() - before


def network_rise(name: str) -> float:
    """Return the rise of a step at batch 1000."""
    torch.set_num_threads(1)
    network = NETWORKS[name]()
    return rise_of_a_step(step_of(network, 2 * torch.rand(1000, WIDTHS[0]) - 1), network)


def bank_steps() -> tuple[UnivariateFunctions, dict[str, Callable[[], None]]]:
    """
    Return a bank of RBF functions, and calls for its values and gradients: ours, and plain dense
    PyTorch.
    """
    bank = UnivariateFunctions((81, 40), "rbf", grid_size=GRID_SIZE)
    z, upper = torch.rand(100, 81, 40), torch.randn(100, 81, 40)
    assert bank.scale is not None
    assert bank.base_weight is not None
    scale, base_weight = bank.scale, bank.base_weight

    def ours() -> None:
        bank.zero_grad(set_to_none=True)
        bank(z).backward(upper)

    def dense() -> None:
        bank.zero_grad(set_to_none=True)
        centers = bank.basis.grid
        values = torch.exp(-0.5 * ((z.unsqueeze(-1) - centers) / (centers[1] - centers[0])) ** 2)
        total = scale * (values * bank.coefficients).sum(-1) + base_weight * nn.functional.silu(z)
        total.backward(upper)

    return bank, {"ours": ours, "dense": dense}


def bank_rise(name: str) -> float:
    """Return the rise of a step of the bank."""
    bank, steps = bank_steps()
    return rise_of_a_step(steps[name], bank)


def in_fresh_process(call: str) -> float:
    """
    Return what a function of this module returns in a process whose freed memory goes back at once.
    """
    code = f"import benchmarks.kan as kan; print(kan.{call})"
    environment = {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout)


def main() -> None:
    """Time layers and the bank, and measure the memory of a step."""
    options = arguments(__doc__)
    repeats = {100: 10, 1000: 10} if options.short else {100: 200, 1000: 40}
    bank = best_side_by_side(bank_steps()[1], repeats[1000])
    torch.set_num_threads(1)
    timed = {str(batch): layers(batch, repeats[batch]) for batch in (100, 1000)}
    results = {
        "peers": {name: importlib.metadata.version(name) for name in PEERS},
        "layers": timed,
        "bspline_by_best_peer": {batch: beside_peers(times) for batch, times in timed.items()}
        if PEERS
        else None,
        "layers_peak_mib_batch_1000": {
            name: in_fresh_process(f"network_rise({name!r})") for name in INSTALLED
        },
        "bank": {"threads": options.threads, "step_seconds": bank},
        "bank_peak_mib": {name: in_fresh_process(f"bank_rise({name!r})") for name in bank},
    }
    report(results, options.output)


if __name__ == "__main__":
    main()
