"""
Run every benchmark, each in a process of its own; keep its JSON and its seconds in
``benchmarks/results``.
"""

import argparse
import json
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
NOT_SCRIPTS = {
    "__main__",
    "fresh_processes",
    "fresh_regressions",
    "further_problems",
    "graphones",
    "large_problems",
    "peers",
    "posteriors",
    "problems",
    "random_problems",
    "statistical_models",
    "timing",
}


def scripts() -> list[str]:
    """Return the names of the benchmarks."""
    return [
        module.name
        for module in pkgutil.iter_modules([str(HERE)])
        if module.name not in NOT_SCRIPTS
    ]


def main() -> None:
    """Run them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="all repeats, where the default is the short form"
    )
    short = [] if parser.parse_args().full else ["--short"]
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    seconds = {}
    for name in scripts():
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            *short,
            "--output",
            str(results / f"{name}.json"),
        ]
        subprocess.run(command, check=True, cwd=HERE.parent)
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"== {name}: {seconds[name]} s", flush=True)
        (results / "seconds.json").write_text(json.dumps(seconds, indent=2) + "\n")
    print(f"== all: {sum(seconds.values()):.0f} s")


if __name__ == "__main__":
    main()
