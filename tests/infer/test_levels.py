"""Levels of import: the longest chain of modules that import one another, inside each folder."""

import ast
from pathlib import Path

import pytest

import pyro_tkam

ROOT = Path(pyro_tkam.__file__).parent
MOST_LEVELS = 5


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return which modules a file imports, as modules or for names in them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{each.name}" for each in node.names} | {node.module}
            found |= names & modules.keys()
    return found


@pytest.mark.parametrize("folder", ["model", "mcmc", "tempering", "objectives"])
def test_levels_of_import_are_few(folder: str) -> None:
    files = (ROOT / "infer" / folder).rglob("*.py")
    names = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
        for path in files
        if path.name != "__init__.py"
    }
    arrows = {name: imported(path, names) for name, path in names.items()}

    def chain(name: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        assert name not in above, f"a circle of imports: {above} to {name}"
        below = (chain(each, (*above, name)) for each in arrows[name])
        return (name, *max(below, key=len, default=()))

    longest = max(map(chain, names), key=len)
    assert len(longest) <= MOST_LEVELS, " > ".join(longest)
