"""Shared by the benchmarks: timing, peak memory, and the JSON that they print."""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyro
import torch


def best_of(call: Callable[[], object], repeats: int = 10) -> float:
    """Return the least wall seconds of several calls, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def best_side_by_side(
    calls: Mapping[str, Callable[[], object]],
    repeats: int = 10,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """
    Return the least seconds (wall, by default) of each call, taking turns so that all meet the same
    conditions.
    """
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def peak_memory_mib() -> float:
    """Return the largest resident size of this process so far, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def processor() -> str:
    """Return the processor's model where the system tells it, else its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """Return what the figures came from."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pyro": pyro.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": processor(),
    }


def arguments(
    description: str | None, flags: Sequence[str] = (), paths: Sequence[str] = ()
) -> argparse.Namespace:
    """Parse ``--threads``, ``--output``, ``--short`` and a benchmark's own flags and paths."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    parser.add_argument("--short", action="store_true", help="fewer repeats")
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    for path in paths:
        parser.add_argument(path, type=Path)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    return parsed


def with_error(values: Sequence[float]) -> dict[str, float]:
    """Return the mean over seeds and its standard error."""
    return {"mean": fmean(values), "standard_error": stdev(values) / math.sqrt(len(values))}


def earlier(output: Path | None) -> dict[str, Any]:
    """Return what an output has."""
    return json.loads(output.read_text()) if output is not None and output.is_file() else {}


def report(results: dict[str, Any], output: Path | None) -> None:
    """Print the results as JSON, with the environment, and write them where asked."""
    text = json.dumps({"environment": environment(), **results}, indent=2)
    print(text)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text + "\n")
