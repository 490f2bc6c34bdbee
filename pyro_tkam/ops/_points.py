"""Points that lead a batch."""

import torch
from torch import Tensor


def aligned(points: Tensor, rank: int) -> Tensor:
    """Insert dimensions after the first, so that the rest broadcasts with a batch of that rank."""
    return points.reshape(points.shape[0], *[1] * (rank - points.dim() + 1), *points.shape[1:])


def broadcasts_to(small: torch.Size, large: torch.Size) -> bool:
    """Tell whether one shape broadcasts to another, which stays as it is."""
    aligned = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(size in (1, wanted) for size, wanted in aligned)
