"""
Inventories of other projects' manuals: short lists kept here, so that building fetches nothing.

The first line of ``inventories/NAME.txt`` is the address of a manual, each other one a name, its
role and its page there. A ``$`` at the end of a page stands for the name.
"""

import zlib
from pathlib import Path

HERE = Path(__file__).parent
HEADER = (
    "# Sphinx inventory version 2\n# Project: {}\n# Version:\n# The rest is compressed with zlib.\n"
)


def mapping() -> dict[str, tuple[str, str]]:
    """Write the inventories as Sphinx reads them; return addresses and files by project."""
    folder = HERE / "_build" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for listed in sorted((HERE / "inventories").glob("*.txt")):
        address, *entries = listed.read_text().split("\n")
        lines = [each.split() for each in entries if each]
        rows = "".join(f"{name} {role} 1 {page} -\n" for name, role, page in lines)
        file = folder / f"{listed.stem}.inv"
        file.write_bytes(HEADER.format(listed.stem).encode() + zlib.compress(rows.encode()))
        found[listed.stem] = (address, str(file))
    return found
