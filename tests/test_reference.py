"""The check of the site's reference finds a public name that is missing, and nothing else."""

import importlib.util
import sys
import zlib
from pathlib import Path

spec = importlib.util.spec_from_file_location(
    "check_reference", Path(__file__).parents[1] / ".ci" / "check_reference.py"
)
check_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_reference)


def write_inventory(site, *entries):
    lines = "".join(f"{name} {kind} 1 api.html#$ -\n" for name, kind in entries)
    head = b"# Sphinx inventory version 2\n# Project: x\n# Version: 1\n# The rest is compressed.\n"
    (site / "objects.inv").write_bytes(head + zlib.compress(lines.encode()))


def test_only_missing_names_are_found(tmp_path, monkeypatch):
    package = tmp_path / "package_to_document"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text(
        "from package_to_document.inner.parts import TABLE, function\n__all__ = ['TABLE', "
        "'function']\n"
    )
    (package / "inner" / "parts.py").write_text(
        "TABLE = {}\ndef function(): ...\ndef helper(): ...\n__all__ = ['TABLE', 'function', "
        "'helper']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    home = "package_to_document.inner"
    write_inventory(
        tmp_path, (f"{home}.TABLE", "py:data"), (f"{home}.parts.function", "py:function")
    )
    assert check_reference.missing_names(tmp_path, "package_to_document") == []
    write_inventory(tmp_path, (f"{home}.function", "py:function"), (f"{home}.parts", "py:module"))
    wanted = [f"{home}.TABLE", f"{home}.parts.TABLE", f"{home}.parts.helper"]
    assert check_reference.missing_names(tmp_path, "package_to_document") == wanted
    for name in [each for each in sys.modules if each.startswith("package_to_document")]:
        del sys.modules[name]
