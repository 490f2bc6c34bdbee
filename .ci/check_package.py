"""
Check a built sdist and wheel: contents, version, and that the README's examples run where only the
wheel is.

python .ci/check_package.py dist
"""

import email
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = """
import pathlib, sys
import pyro_tkam
from pyro_tkam import diagnostics, distributions, infer, models, nn
assert pathlib.Path(sys.prefix) in pathlib.Path(pyro_tkam.__file__).parents, pyro_tkam.__file__
"""


def check_wheel(wheel: Path) -> str:
    """
    Return the version in a wheel that holds the package's files, its typing mark and license, and
    nothing else.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        version = str(email.message_from_bytes(archive.read(metadata))["Version"])
    info = metadata.removesuffix("METADATA")
    files = (
        path for path in (ROOT / "pyro_tkam").rglob("*") if path.is_file() and path.suffix != ".pyc"
    )
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    found = {name for name in names if not name.startswith(info)}
    if found != expected:
        raise SystemExit(f"{wheel.name}: differs from the source in {sorted(found ^ expected)}")
    if f"{info}licenses/LICENSE" not in names:
        raise SystemExit(f"{wheel.name}: has no license")
    return version


def check_sdist(sdist: Path) -> None:
    """Check that a source distribution has what is needed to test and to document it."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "constraints.txt",
        "Makefile",
        "conftest.py",
        "pyro_tkam/py.typed",
        "tests/test_readme.py",
        "docs/conf.py",
        "benchmarks/timing.py",
    }
    if missing := needed - names:
        raise SystemExit(f"{sdist.name}: lacks {sorted(missing)}")


def installed_version(wheel: Path) -> str:
    """
    Install a wheel into an environment of its own, run the README's examples there, those with
    formulas after their extra is installed too, and return its version.
    """
    examples = re.findall(
        r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    core = [each for each in examples if "pyro_tkam.symbolic" not in each]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        for extra, blocks in (("", core), ("[symbolic]", examples)):
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            constraint = ["--constraint", str(ROOT / "constraints.txt")]
            subprocess.run([*pip, *constraint, f"{wheel.resolve()}{extra}"], check=True)
            code = "".join([IMPORTED, *blocks, "print(pyro_tkam.__version__)\n"])
            done = subprocess.run(
                [python, "-c", code], check=True, cwd=folder, stdout=subprocess.PIPE, text=True
            )
        return done.stdout.splitlines()[-1]


def main(folder: Path) -> None:
    """Check the one wheel and the one sdist of a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_sdist(sdist)
    versions = {check_wheel(wheel), installed_version(wheel)}
    if len(versions) != 1:
        raise SystemExit(f"{wheel.name}: says it is {' and '.join(sorted(versions))}")
    print(
        f"{sdist.name}, {wheel.name}: complete, version {versions.pop()} runs the README's examples"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
