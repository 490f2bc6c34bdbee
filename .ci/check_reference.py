"""Check that the API reference of a built site has every public name.

python .ci/check_reference.py docs/_build/html

Public are the names in ``__all__`` of every package, and of every module that has a place of its
own in the reference.
"""

import importlib
import pkgutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

KINDS = ("py:class", "py:data", "py:exception", "py:function", "py:module")


def inventory(site: Path) -> Iterator[tuple[str, str]]:
    """Yield name and kind of everything that a site's ``objects.inv`` lists."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    for line in zlib.decompress(content).decode().splitlines():
        yield tuple(line.split(" ", 2)[:2])


def public_packages(root: str) -> set[str]:
    """Return a package and those in it, but for private ones."""
    found = pkgutil.walk_packages(importlib.import_module(root).__path__, f"{root}.")
    return {root} | {each.name for each in found if each.ispkg and "._" not in each.name}


def missing_names(site: Path, root: str) -> list[str]:
    """
    Return the public names that the site leaves out; it may have an object under another module's
    name.
    """
    entries = {name: kind for name, kind in inventory(site) if kind in KINDS}
    modules = {name for name, kind in entries.items() if kind == "py:module"}
    documented = set()
    for name in entries.keys() - modules:
        home, _, own = name.rpartition(".")
        documented.add(id(getattr(importlib.import_module(home), own)))
    missing = []
    for module in sorted(public_packages(root) | modules):
        content = importlib.import_module(module)
        names = getattr(content, "__all__", ())
        missing += [
            f"{module}.{name}" for name in names if id(getattr(content, name)) not in documented
        ]
    return missing


if __name__ == "__main__":
    found = missing_names(Path(sys.argv[1]), "pyro_tkam")
    print(
        "\n".join(f"not in the reference: {name}" for name in found)
        or "the reference has every public name"
    )
    sys.exit(bool(found))
