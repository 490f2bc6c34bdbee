"""Run every benchmark, each in a process of its own, and keep its JSON in ``benchmarks/results``."""

import argparse
import pkgutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_SCRIPTS = {"__main__", "timing", "gradient_variance", "problems", "fresh_problems", "peers"}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--full", action="store_true", help="all repeats, where the default is the short form")
short = [] if parser.parse_args().full else ["--short"]
for module in pkgutil.iter_modules([str(HERE)]):
    if module.name not in NOT_SCRIPTS:
        print(f"== {module.name}", flush=True)
        output = HERE / "results" / f"{module.name}.json"
        command = [sys.executable, "-m", f"benchmarks.{module.name}", *short, "--output", str(output)]
        subprocess.run(command, check=True, cwd=HERE.parent)
