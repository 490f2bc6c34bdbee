"""The check of the site's links finds a missing page and a missing anchor, and nothing else."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location(
    "check_links", Path(__file__).parents[1] / ".ci" / "check_links.py"
)
check_links = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_links)


def test_only_broken_links_are_found(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other.html").write_text(
        '<p id="here"></p><a href="../index.html">up</a>'
    )
    good = (
        '<a href="folder/other.html#here">a</a><a href="#top">b</a><a '
        'href="https://example.org/x">c</a>'
    )
    bad = '<a href="absent.html">d</a><a href="folder/other.html#there">e</a><img src="absent.png">'
    index = tmp_path / "index.html"
    index.write_text(f'<h1 id="top"></h1>{good}')
    assert check_links.broken_links(tmp_path) == []
    index.write_text(f'<h1 id="top"></h1>{good}{bad}')
    wanted = [
        "index.html: absent.html",
        "index.html: folder/other.html#there",
        "index.html: absent.png",
    ]
    assert check_links.broken_links(tmp_path) == wanted
