"""Points that lead a batch."""

from torch import Tensor


def aligned(points: Tensor, rank: int) -> Tensor:
    """Insert dimensions after the first, so that the rest broadcasts with a batch of that rank."""
    return points.reshape(points.shape[0], *[1] * (rank - points.dim() + 1), *points.shape[1:])
