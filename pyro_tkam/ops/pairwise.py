"""Inner products and squared distances between all pairs of two batches, by one matrix product."""

import torch
from torch import Tensor

_WITHOUT_DOUBLE = ("mps",)  # devices


def inner_product(left: Tensor, right: Tensor) -> Tensor:
    """
    Return ``Σ_d left_d right_d`` over the last dimension, without a tensor of all pairs times
    ``d``.

    Where the two batches broadcast against each other, the sums are one matrix product.

    :param left: shape ``(*batch_left, d)``.
    :param right: shape ``(*batch_right, d)``.
    :return: shape ``broadcast(batch_left, batch_right)``.

    >>> inner_product(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([[3.0, 4.0], [1.0,
    ...     1.0]]))
    tensor([[3., 1.],
            [7., 2.]])
    """
    shape = torch.broadcast_shapes(left.shape[:-1], right.shape[:-1])
    if not _broadcasts(shape, left, right):
        return (left * right).sum(-1)
    rank = len(shape)
    size = left.shape[-1]
    left = left.reshape((1,) * (rank + 1 - left.dim()) + left.shape)
    right = right.reshape((1,) * (rank + 1 - right.dim()) + right.shape)
    rows = [i for i in range(rank) if right.shape[i] == 1]
    columns = [i for i in range(rank) if left.shape[i] == 1 and i not in rows]
    both = [i for i in range(rank) if i not in rows and i not in columns]
    order = both + rows + columns
    common = [shape[i] for i in both]
    left = left.permute(*order, rank).reshape(*common, -1, size)
    right = right.permute(*order, rank).reshape(*common, -1, size)
    product = (left @ right.mT).reshape([shape[i] for i in order])
    return product.permute([order.index(i) for i in range(rank)])


def squared_distance(left: Tensor, right: Tensor) -> Tensor:
    """
    Return ``Σ_d (left - right)_d²`` over the last dimension, without a tensor of all pairs times
    ``d``.

    Where the two batches broadcast against each other, the square is expanded about the mean of
    ``right`` and the cross terms are one matrix product. The terms cancel where the data lie far
    apart compared with the distances, so that they are summed in double precision where the device
    has it.

    :param left: shape ``(*batch_left, d)``.
    :param right: shape ``(*batch_right, d)``.
    :return: shape ``broadcast(batch_left, batch_right)``.

    >>> squared_distance(torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]]), torch.tensor([[3.0, 4.0],
    ...     [1.0, 1.0]]))
    tensor([[25.,  2.],
            [13.,  0.]])
    """
    if not _broadcasts(torch.broadcast_shapes(left.shape[:-1], right.shape[:-1]), left, right):
        return (left - right).square().sum(-1)
    dtype = torch.promote_types(left.dtype, right.dtype)
    if left.device.type not in _WITHOUT_DOUBLE:
        left = left.double()
        right = right.double()
    center = right.detach().flatten(0, -2).mean(0)
    left = left - center
    right = right - center
    squares = left.square().sum(-1) + right.square().sum(-1)
    return (squares - 2 * inner_product(left, right)).clamp_min(0).to(dtype)


def _broadcasts(shape: torch.Size, left: Tensor, right: Tensor) -> bool:
    """Tell whether there are more pairs than rows in either batch."""
    return shape.numel() > max(left.shape[:-1].numel(), right.shape[:-1].numel())
