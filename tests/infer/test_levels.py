"""Levels of import: the longest chain of modules that import one another."""

import ast
from functools import cache
from pathlib import Path

import pytest

import pyro_tkam

ROOT = Path(pyro_tkam.__file__).parent
LEVELS = {
    "": 12,
    "model": 5,
    "mcmc": 5,
    "tempering": 5,
    "posterior": 5,
    "evidence": 5,
    "objectives": 5,
}
"""The most in each folder, and in all of infer."""


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return which modules a file imports, as modules or for names in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{each.name}" for each in node.names} | {node.module}
            found |= names & modules.keys()
    return found


@pytest.mark.parametrize(("folder", "most"), LEVELS.items())
def test_levels_of_import_are_few(folder: str, most: int) -> None:
    files = (ROOT / "infer" / folder).rglob("*.py")
    names = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
        for path in files
        if path.name != "__init__.py"
    }
    arrows = {name: imported(path, names) for name, path in names.items()}

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max(map(chain, arrows[name]), key=len, default=()))

    longest = max(map(chain, names), key=len)
    assert len(longest) <= most, " > ".join(longest)
