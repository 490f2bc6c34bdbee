"""The tutorials run as scripts, on small settings, and what they claim holds there too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted(path.name for path in (ROOT / "tutorials").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs(name):
    environment = {**os.environ, "PYRO_TKAM_SMALL": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tutorials" / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]


def test_there_are_tutorials():
    assert len(TUTORIALS) == 11
