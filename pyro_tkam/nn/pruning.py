"""
Smaller modules that compute the same: functions and nodes that contribute little are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.grids import check_learned
from pyro_tkam.nn.regularizers import mean_sizes

if TYPE_CHECKING:
    from pyro_tkam.nn.kan import KAN, KANLayer
    from pyro_tkam.nn.univariate import UnivariateFunctions

Bank = TypeVar("Bank", bound="UnivariateFunctions")


@torch.no_grad()
def prune_functions(bank: Bank, threshold: float, samples: Tensor | None) -> Bank:
    """Return a copy in which small functions are zero."""
    check_learned(bank, weight_names(bank), "pruning")
    kept = _kept(bank, threshold, samples, "bank")
    pruned = unseen_copy(bank)
    _zero_others(pruned, kept)
    return pruned


@torch.no_grad()
def prune_network(network: KAN, threshold: float, samples: Tensor | None) -> KAN:
    """Return a copy without small edges, and without the hidden nodes that no edge leaves."""
    for layer in network.layers:
        check_learned(layer, weight_names(layer), "pruning")
    inputs = (
        [(layer, None) for layer in network.layers]
        if samples is None
        else network.layer_inputs(samples)
    )
    kept = [
        _kept(layer, threshold, s, f"layer {number}") for number, (layer, s) in enumerate(inputs)
    ]
    pruned = unseen_copy(network)
    for layer, mask in zip(pruned.layers, kept, strict=True):
        _zero_others(layer, mask)
    if network.has_independent_nodes:
        for number in reversed(range(len(pruned.layers) - 1)):
            kept[number] = _drop_nodes(pruned.layers, number, kept[number], kept[number + 1])
        pruned.widths = [layer.in_features for layer in pruned.layers] + pruned.widths[-1:]
    return pruned


def weight_names(bank: UnivariateFunctions) -> tuple[str, ...]:
    """Return the names of what a bank learns for each function."""
    return ("coefficients", "scale", "base_weight") if bank.basis.has_base else ("coefficients",)


def select(bank: UnivariateFunctions, *index: Tensor) -> None:
    """
    Keep some functions of a bank, in place.

    :param index: one tensor of indices for each dimension of the bank's batch, as in advanced
        indexing.
    """
    old, grid = bank.batch_shape, bank.basis.grid
    chosen = bank._in_bank_order(bank.coefficients)[index]
    bank.batch_shape = chosen.shape[:-1]
    bank.replace_coefficients(chosen)
    if bank.scale is not None and bank.base_weight is not None:
        scale = bank.scale.detach().expand(old)[index]
        bank.scale = nn.Parameter(
            scale[tuple(slice(size) for size in bank._scale_shape())].contiguous()
        )
        bank.base_weight = nn.Parameter(bank.base_weight.detach()[index].contiguous())
    if grid.dim() > 1:
        own = grid.expand(*old, -1)[index]
        own = own[(0,) * (len(old) + 1 - grid.dim())]
        shared = tuple(slice(1) if size == 1 else slice(None) for size in grid.shape[:-1])
        with unseen(bank):
            functions = bank.basis.bound()
        bank.basis.place(
            functions.from_grid(own[shared].contiguous(), functions.width, functions.degree)
        )


def _kept(bank: UnivariateFunctions, threshold: float, samples: Tensor | None, name: str) -> Tensor:
    """Return which functions stay."""
    threshold = _checks.number("threshold", threshold)
    if threshold < 0:
        raise ValueError(f"threshold must be at least 0, got {threshold}")
    sizes = mean_sizes(bank.bound(), samples)
    kept = sizes >= threshold
    if not bool(kept.any()):
        raise ValueError(
            f"threshold must be at most {float(sizes.max())}, the largest size of a function in "
            f"{name}, got {threshold:g}, which empties it"
        )
    return kept


def _zero_others(bank: UnivariateFunctions, kept: Tensor) -> None:
    bank._in_bank_order(bank.coefficients).masked_fill_(~kept.unsqueeze(-1), 0.0)
    if bank.base_weight is not None:
        bank.base_weight.masked_fill_(~kept, 0.0)


def _drop_nodes(layers: nn.ModuleList, number: int, kept: Tensor, following: Tensor) -> Tensor:
    """
    Remove outputs of a layer that the next does not read, in both; return which edges of the layer
    stay.
    """
    layer, reader = (cast("KANLayer", layers[i]) for i in (number, number + 1))
    nodes = following.any(0).nonzero().squeeze(-1)
    if not bool(kept[nodes].any()):
        raise ValueError(
            f"threshold empties layer {number}: no edge of it reaches a node that the next layer "
            "reads"
        )
    every = torch.arange(reader.out_features, device=nodes.device)
    select(reader, every.unsqueeze(-1), nodes)
    every = torch.arange(layer.in_features, device=nodes.device)
    select(layer, nodes.unsqueeze(-1), every)
    return kept[nodes]
