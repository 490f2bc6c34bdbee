"""Check a built sdist and wheel: contents, version, and that what is installed from the wheel imports.

python .ci/check_package.py dist
"""

import email
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = """
import pathlib, sys
import pyro_tkam, pyro_tkam.__main__
from pyro_tkam import datasets, diagnostics, distributions, infer, metrics, models, nn, plots, train
where = pathlib.Path(pyro_tkam.__file__).parent
assert where.parent == pathlib.Path(sys.argv[1]), where
print(pyro_tkam.__version__)
"""


def check_wheel(wheel: Path) -> str:
    """Return the version in a wheel that holds the package's files, its typing mark and licence, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        version = str(email.message_from_bytes(archive.read(metadata))["Version"])
    info = metadata.removesuffix("METADATA")
    files = (path for path in (ROOT / "pyro_tkam").rglob("*") if path.is_file() and path.suffix != ".pyc")
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    found = {name for name in names if not name.startswith(info)}
    if found != expected:
        raise SystemExit(f"{wheel.name}: differs from the source in {sorted(found ^ expected)}")
    if f"{info}licenses/LICENSE" not in names:
        raise SystemExit(f"{wheel.name}: has no licence")
    return version


def check_sdist(sdist: Path) -> None:
    """Check that a source distribution has what is needed to test and to document it."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {
        "pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "constraints.txt",
        "Makefile", "conftest.py", "pyro_tkam/py.typed", "tests/test_readme.py", "docs/conf.py", "benchmarks/timing.py",
    }  # fmt: skip
    if missing := needed - names:
        raise SystemExit(f"{sdist.name}: lacks {sorted(missing)}")


def installed_version(wheel: Path) -> str:
    """Install a wheel into an empty folder, import all of it from elsewhere, and return the version that it says."""
    with tempfile.TemporaryDirectory() as folder:
        target, elsewhere = Path(folder).resolve() / "site", Path(folder) / "elsewhere"
        elsewhere.mkdir()
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(target), str(wheel.resolve())], check=True)
        code = f"import sys; sys.path.insert(0, sys.argv[1])\n{IMPORTED}"
        command = [sys.executable, "-W", "ignore", "-c", code, str(target)]
        done = subprocess.run(command, check=True, cwd=elsewhere, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()


def main(folder: Path) -> None:
    """Check the one wheel and the one sdist of a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_sdist(sdist)
    versions = {check_wheel(wheel), installed_version(wheel)}
    if len(versions) != 1:
        raise SystemExit(f"{wheel.name}: says it is {' and '.join(sorted(versions))}")
    print(f"{sdist.name}, {wheel.name}: complete, version {versions.pop()} imports")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
