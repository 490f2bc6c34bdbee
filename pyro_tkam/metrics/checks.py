"""Checks of images, their classes, and networks that read them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import function
from pyro_tkam.ops._arguments import dense, finite

LARGEST_CLASS = 9999
"""Above this, a number is taken for a mistake and not for a class."""


def rows_of(name: str, value: Any, least: int = 1) -> None:
    """
    Refuse what is no tensor of finite rows.

    :param name: of the argument.
    :param value: shape ``(num, *event)``.
    :param least: the smallest number of rows.
    :raises TypeError: for another type.
    :raises ValueError: for fewer rows, rows without elements, NaN and infinities.
    """
    dense(name, value)
    if value.dim() < 2 or len(value) < least or value.numel() == 0:
        raise ValueError(
            f"{name} must have shape (num, *event) with num >= {least}, got {tuple(value.shape)}"
        )
    finite(name, value)


def of_one_kind(name: str, value: Tensor, like: Tensor, of: str) -> None:
    """
    Refuse what has rows of another shape, dtype or device.

    :param name: of the argument.
    :param value: shape ``(num, *event)``.
    :param like: another argument, of shape ``(num, *event)``.
    :param of: its name.
    :raises TypeError: for another dtype.
    :raises ValueError: for another shape or device.
    """
    if value.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"{name} must have rows of shape {tuple(like.shape[1:])}, as {of} has, got "
            f"{tuple(value.shape)}"
        )
    if value.dtype != like.dtype:
        raise TypeError(f"{name} must have the dtype of {of}, {like.dtype}, got {value.dtype}")
    if value.device != like.device:
        raise ValueError(f"{name} must be on {like.device}, as {of} is, got {value.device}")


def classes(labels: Any, images: Tensor) -> None:
    """
    Refuse what is no class for each image.

    :param labels: an int64 tensor of shape ``(num,)``, from 0.
    :param images: the images.
    :raises TypeError: for another type.
    :raises ValueError: for another shape or device, and numbers that are no classes.
    """
    dense("labels", labels)
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must have the dtype torch.int64, got {labels.dtype}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(images)},), a class for each image, got "
            f"{tuple(labels.shape)}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels must be on {images.device}, as images is, got {labels.device}")
    low = int(labels.min())
    high = int(labels.max())
    if low < 0 or high > LARGEST_CLASS:
        raise ValueError(
            f"labels must be classes from 0 to {LARGEST_CLASS}, got {low if low < 0 else high}"
        )


def outputs_of(name: str, network: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """
    Return what a network makes of images.

    :param name: of the network.
    :param network: from images to a row of numbers for each.
    :param images: shape ``(num, channels, height, width)``.
    :return: shape ``(num, outputs)``.
    :raises TypeError: for a network that returns something else.
    :raises ValueError: for images of a shape or dtype that the network does not take.
    """
    function(name, network, "images")
    try:
        found = network(images)
    except (IndexError, RuntimeError) as error:
        raise ValueError(
            f"images must be valid for {name}, got {images.dtype} of shape "
            f"{tuple(images.shape)}: {error}"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(images):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"{name} must return a row of numbers for each image, got {got}")
    return found
