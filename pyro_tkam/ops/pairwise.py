"""Squared distances between all pairs of two batches, by one matrix product."""

import torch
from torch import Tensor


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """
    Return ``Σ_d (left - right)_d²`` over the last dimension, without a tensor of all pairs times ``d``.

    Where the two batches broadcast against each other, the square is expanded about the mean of ``right`` (so that
    single precision loses little) and the cross terms are one matrix product.

    :param left: shape ``(*batch_left, d)``.
    :param right: shape ``(*batch_right, d)``.
    :return: shape ``broadcast(batch_left, batch_right)``.

    >>> squared_distance(torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]]))
    tensor([[25.,  2.],
            [13.,  0.]])
    """
    shape = torch.broadcast_shapes(left.shape[:-1], right.shape[:-1])
    if shape.numel() <= max(left.shape[:-1].numel(), right.shape[:-1].numel()):
        return (left - right).square().sum(-1)
    rank, size = len(shape), left.shape[-1]
    left = left.reshape((1,) * (rank + 1 - left.dim()) + left.shape)
    right = right.reshape((1,) * (rank + 1 - right.dim()) + right.shape)
    rows = [i for i in range(rank) if right.shape[i] == 1]
    columns = [i for i in range(rank) if left.shape[i] == 1 and i not in rows]
    both = [i for i in range(rank) if i not in rows and i not in columns]
    order = both + rows + columns
    left_sizes, right_sizes = ([t.shape[i] for i in order] for t in (left, right))
    pairs = [len(both), len(both) + len(rows)]
    left = left.permute(*order, rank).reshape(*left_sizes[: pairs[0]], -1, size)
    right = right.permute(*order, rank).reshape(*right_sizes[: pairs[0]], -1, size)
    centre = right.detach().mean(tuple(range(len(both) + 1)))
    left, right = left - centre, right - centre
    cross = left @ right.mT
    squares = left.square().sum(-1)[..., :, None] + right.square().sum(-1)[..., None, :]
    distance = (squares - 2 * cross).clamp_min(0).reshape([shape[i] for i in order])
    return distance.permute([order.index(i) for i in range(rank)])
