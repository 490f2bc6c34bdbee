"""Where made data are kept, and files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def cache_folder() -> Path:
    """
    Return the folder in which this package keeps what is costly to make.

    That is ``pyro-tkam`` in ``$XDG_CACHE_HOME``, or in ``~/.cache`` where that variable is unset or
    empty.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyro-tkam"


def write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """
    Write a file aside and rename it, so that a reader never sees a part of it, nor of another
    process's.

    :param path: the file; its folder is made if need be.
    :param write: writes the content to a binary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=path.name, suffix=".part", delete=False
    ) as aside:
        try:
            write(aside)
        except BaseException:
            os.unlink(aside.name)
            raise
    os.replace(aside.name, path)
