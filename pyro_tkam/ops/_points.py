"""Points that lead a batch, and shapes that broadcast to one."""

from typing import Any

import torch
from torch import Tensor

from pyro_tkam.ops._arguments import shape


def aligned(points: Tensor, rank: int, lead: int = 1) -> Tensor:
    """
    Insert dimensions after the first ones, so that the rest broadcasts with a batch of that rank.
    """
    return points.reshape(
        *points.shape[:lead], *[1] * (rank - points.dim() + lead), *points.shape[lead:]
    )


def broadcasts_to(small: torch.Size, large: torch.Size) -> bool:
    """Tell whether one shape broadcasts to another, which stays as it is."""
    aligned = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(size in (1, wanted) for size, wanted in aligned)


def broadcast_together(one: torch.Size, other: torch.Size) -> bool:
    """Tell whether two shapes broadcast against each other."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def expanded_shape(small: torch.Size, batch_shape: Any) -> torch.Size:
    """
    Return the shape to which a distribution is expanded, and raise a ValueError where its own does
    not broadcast.
    """
    large = shape("batch_shape", batch_shape)
    if not broadcasts_to(small, large):
        raise ValueError(
            f"batch_shape must be one that {tuple(small)} broadcasts to, got {tuple(large)}"
        )
    return large
