"""The folder for generated data."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """
    Return the folder in which this package keeps data that are expensive to compute.

    It is ``pyro-tkam`` in ``$XDG_CACHE_HOME``, or in ``~/.cache`` if that variable is unset or
    empty.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyro-tkam"
