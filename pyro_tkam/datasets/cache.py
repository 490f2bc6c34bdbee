"""Where made data are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """
    Return the folder in which this package keeps what is costly to make.

    That is ``pyro-tkam`` in ``$XDG_CACHE_HOME``, or in ``~/.cache`` where that variable is unset or
    empty.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyro-tkam"
