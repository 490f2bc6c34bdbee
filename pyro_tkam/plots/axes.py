"""Figures without pyplot's global state, so any process can draw, with or without a screen."""

from os import PathLike
from typing import Any

from pyro_tkam._optional import needs

#: ``matplotlib.axes.Axes`` and ``matplotlib.figure.Figure``
Axes = Any
Figure = Any


def new_figure(width: float = 6.0, height: float = 4.0) -> Figure:
    """
    Make an empty figure that no window and no global list refers to.

    :param width: inches.
    :param height: inches.
    :raises ImportError: without the extra ``plots``.
    """
    with needs("plots"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained")


def axes_or_new(axes: Axes | None, width: float = 6.0, height: float = 4.0) -> Axes:
    """
    Return the axes, or those of a new figure.

    :param axes: axes, or None.
    :param width: inches of a new figure.
    :param height: inches of a new figure.
    """
    return new_figure(width, height).subplots() if axes is None else axes


def save(axes: Axes, path: str | PathLike[str], dpi: int = 120) -> None:
    """
    Write the figure of some axes as a picture.

    :param axes: axes that a function of this package returned.
    :param path: file whose suffix names the format.
    :param dpi: dots per inch.
    """
    axes.figure.savefig(path, dpi=dpi)
