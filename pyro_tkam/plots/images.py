"""Grids of images."""

import math

import torch
from torch import Tensor

from pyro_tkam._checks import text, whole_number
from pyro_tkam.ops._arguments import dense
from pyro_tkam.plots.axes import Axes, axes_or_new


def are_images(data: Tensor) -> bool:
    """
    Tell whether :func:`image_grid` can show these data.

    :param data: shape ``(num, *event)``.
    :raises TypeError: for what is no tensor.
    """
    dense("data", data)
    return data.numel() > 0 and (data.dim() == 3 or (data.dim() == 4 and data.shape[1] == 3))


def image_grid(
    images: Tensor, axes: Axes | None = None, *, columns: int | None = None, title: str = ""
) -> Axes:
    """
    Show images in a grid, from 0 to 1: gray ones white on black, others in color.

    :param images: shape ``(num, height, width)`` or ``(num, 3, height, width)``.
    :param axes: where to draw; None makes a figure.
    :param columns: images per row; None makes the grid square.
    :param title: a line above.
    :return: the axes.
    :raises TypeError: for what is no tensor of real numbers.
    :raises ValueError: for other shapes.
    """
    dense("images", images)
    if images.is_complex():
        raise TypeError(f"images must hold real numbers, got {images.dtype}")
    if not are_images(images):
        raise ValueError(
            "images must have shape (num, height, width) or (num, 3, height, width), all at least "
            f"1, got {tuple(images.shape)}"
        )
    text("title", title)
    if columns is None:
        columns = math.ceil(math.sqrt(len(images)))
    columns = whole_number("columns", columns, 1)
    rows = math.ceil(len(images) / columns)
    axes = axes_or_new(axes, columns / 2, rows / 2)
    values = images.detach().cpu()
    if values.dtype != torch.float32:  # matplotlib takes no half precision and no booleans
        values = values.double()
    tiled = _tile(values, rows, columns).numpy()
    axes.imshow(tiled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize="medium")
    return axes


def _tile(images: Tensor, rows: int, columns: int) -> Tensor:
    """Lay images side by side, one pixel apart, channels last."""
    num, *channels, height, width = images.shape
    tiles = images.new_zeros(rows * columns, *channels, height + 1, width + 1)
    tiles[:num, ..., :-1, :-1] = images
    grid = tiles.unflatten(0, (rows, columns)).movedim((0, 1), (-4, -2))
    wide = grid.flatten(-2).flatten(-3, -2)[..., :-1, :-1]
    return wide.movedim(0, -1).clamp(0, 1) if channels else wide
