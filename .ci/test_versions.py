"""Run smoke tests at the oldest versions that are declared and at the newest releases.

python .ci/test_versions.py FOLDER OUTPUT

Environments are made in ``FOLDER`` for every Python that is present; results are written to
``OUTPUT`` after each. An environment that is there already is used as it is.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = ("train", "datasets", "metrics", "plots", "symbolic", "sklearn")
SHOWN = ("torch", "pyro-ppl", "numpy", "arviz", "lightning", "scikit-learn", "matplotlib")
SMOKE = (
    "tests/test_readme.py",
    "tests/test_arviz.py",
    "tests/test_sklearn.py",
    "tests/distributions/test_mixture.py",
    "tests/distributions/test_autoregressive.py",
    "tests/nn/test_kan.py",
    "tests/models/test_tkam.py",
    "tests/infer/mcmc/test_ensemble.py",
    "tests/infer/mcmc/test_kernels.py",
    "tests/infer/evidence/test_automatic.py",
    "tests/train/test_run.py",
)
REQUIREMENT = re.compile(r"([\w-]+)(\[[\w,-]+\])?>=([\w.]+)")


def floors() -> list[str]:
    """Return the project's requirements, each pinned to the oldest version that it declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = list(project["dependencies"])
    for extra in EXTRAS:
        declared += project["optional-dependencies"][extra]
    oldest: dict[str, tuple[list[int], str]] = {}
    for each in declared:
        name, options, version = REQUIREMENT.match(each).groups()
        key = ([int(part) for part in version.split(".")], f"{name}{options or ''}=={version}")
        oldest[name] = max(key, oldest.get(name, key))
    return [pinned for _, pinned in oldest.values()]


def find_python(version: str) -> str | None:
    """Return a Python of a version that can make environments; names on PATH may be shims."""
    candidates = [f"python{version}"]
    for pattern in (f".pyenv/versions/{version}.*", f".local/share/uv/python/cpython-{version}*"):
        candidates += [str(path) for path in sorted(Path.home().glob(f"{pattern}/bin/python3"))]
    for each in candidates:
        command = [each, "-c", "import ensurepip, venv"]
        if shutil.which(each) and subprocess.run(command, capture_output=True).returncode == 0:
            return each
    return None


def environments() -> Iterator[tuple[str, str, list[str]]]:
    """Yield a name, a Python and requirements for each that can be made here."""
    everything = f"{ROOT}[{','.join(EXTRAS)}]"
    for version in PYTHONS:
        python = find_python(version)
        if python is None:
            print(f"no Python {version} is present", flush=True)
            continue
        if version == PYTHONS[0]:
            yield f"oldest, Python {version}", python, [everything, *floors()]
        yield f"newest, Python {version}", python, ["--upgrade", everything]


def install(python: str, folder: Path, requirements: list[str]) -> Path:
    """Make an environment, unless it is there, and return its Python."""
    own = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        pip = [own, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, *requirements, "pytest", "pytest-xdist"], check=True)
        (folder / ".ready").touch()
    return own


def tested(python: Path) -> dict[str, object]:
    """Run the smoke tests with an environment; return its versions and how many tests failed."""
    ask = f"from importlib.metadata import version; print(*map(version, {SHOWN!r}))"
    versions = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True)
    command = [python, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", *SMOKE]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(run.stdout[-3000:], flush=True)
    counts = dict.fromkeys(("passed", "failed", "errors"), 0)
    for number, outcome in re.findall(r"(\d+) (passed|failed|errors?)", run.stdout):
        counts["errors" if outcome.startswith("error") else outcome] = int(number)
    return {**dict(zip(SHOWN, versions.stdout.split(), strict=True)), **counts}


def main(folder: Path, output: Path) -> int:
    """Test all environments; return 1 if a test failed in one of them."""
    rows = []
    for name, python, requirements in environments():
        print(f"== {name}", flush=True)
        place = folder / re.sub(r"\W+", "-", name.lower())
        rows.append({"name": name, **tested(install(python, place, requirements))})
        output.write_text(json.dumps({"tests": SMOKE, "environments": rows}, indent=2) + "\n")
    return int(any(row["failed"] or row["errors"] or not row["passed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()))
