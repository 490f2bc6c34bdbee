"""Figures without pyplot's global state, so any process can draw, with or without a screen."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

from pyro_tkam._checks import file_path, instance, length, sequence, whole_number
from pyro_tkam._optional import needs

#: ``matplotlib.axes.Axes`` and ``matplotlib.figure.Figure``
Axes = Any
Figure = Any


def new_figure(width: float = 6.0, height: float = 4.0) -> Figure:
    """
    Make an empty figure that no window and no global list refers to.

    :param width: inches.
    :param height: inches.
    :raises ValueError: for sizes that are not positive numbers.
    :raises ImportError: without the extra ``plots``.
    """
    width = length("width", width)
    height = length("height", height)
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
    if axes is None:
        return new_figure(width, height).subplots()
    check_axes("axes", axes)
    return axes


def check_axes(name: str, axes: Any) -> None:
    """
    Refuse what is no axes of matplotlib.

    :param name: of the argument.
    :param axes: its value.
    :raises TypeError: for another type.
    :raises ImportError: without the extra ``plots``.
    """
    with needs("plots"):
        from matplotlib.axes import Axes
    instance(name, axes, Axes, "matplotlib axes")


def panels_or_new(
    axes: Sequence[Axes] | None, num: int, of: str, width: float, height: float
) -> Sequence[Axes]:
    """
    Return the axes, or those of a new figure, side by side.

    :param axes: as many as there are panels, or None.
    :param num: number of panels.
    :param of: what has a panel.
    :param width: inches of a new panel.
    :param height: inches of a new panel.
    :raises TypeError: for what are no axes of matplotlib.
    :raises ValueError: for another number of axes.
    """
    if axes is None:
        return list(new_figure(width * num, height).subplots(1, num, squeeze=False)[0])
    check_panels(axes, num, of)
    return axes


def check_panels(axes: Any, num: int, of: str) -> None:
    """
    Refuse what is not one axes for each panel.

    :param axes: the argument's value.
    :param num: number of panels.
    :param of: what has a panel.
    :raises TypeError: for what are no axes of matplotlib.
    :raises ValueError: for another number of axes.
    """
    given = list(axes) if getattr(axes, "ndim", 0) == 1 else axes  # as subplots returns them
    sequence("axes", given, "matplotlib axes")
    if len(given) != num:
        raise ValueError(f"axes must hold {num} axes, one for each {of}, got {len(given)}")
    for each in given:
        check_axes("axes", each)


def save(axes: Axes, path: str | PathLike[str], dpi: int = 120) -> None:
    """
    Write the figure of some axes as a picture.

    :param axes: axes that a function of this package returned.
    :param path: file whose suffix names the format.
    :param dpi: dots per inch.
    :raises TypeError: for what is no axes and what is no path.
    :raises ValueError: for a format that matplotlib does not write, and other numbers.
    """
    check_axes("axes", axes)
    suffix = file_path("path", path).suffix.removeprefix(".").lower()
    known = axes.figure.canvas.get_supported_filetypes()
    if suffix and suffix not in known:
        raise ValueError(f"path must end in one of {sorted(known)}, got {str(path)!r}")
    dpi = whole_number("dpi", dpi, 1)
    axes.figure.savefig(path, dpi=dpi)
