"""Optional dependencies: a missing one is an error that names the extra to install."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """
    Say which extra to install where an import inside the block fails.

    :param extra: name of the extra in ``pip install 'pyro-tkam[extra]'``.
    :raises ImportError: for a package that is not installed.

    >>> with needs("plots"):
    ...     import math
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pyro_tkam"):
            raise
        raise ImportError(
            f"{error.name} is not installed: pip install 'pyro-tkam[{extra}]'"
        ) from error
