"""The smoke tests of versions: what is declared is what they try."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("test_versions", ROOT / ".ci" / "test_versions.py")
versions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(versions)


def test_the_oldest_versions_are_those_declared():
    pins = dict(each.split("==") for each in versions.floors())
    declared = (ROOT / "pyproject.toml").read_text()
    for name, version in pins.items():
        assert f'"{name}>={version}"' in declared
    assert {"torch", "pyro-ppl", "numpy", "lightning", "sympy"} <= pins.keys()
    assert pins["scikit-learn"] == "1.6"  # two extras need it: the newer floor counts


def test_smoke_tests_exist():
    for each in versions.SMOKE:
        assert (ROOT / each).is_file()


def test_the_workflow_runs_what_must_hold():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.search(r"^ *- run: \.ci/run$", workflow, flags=re.MULTILINE)
