"""What a formula misses: noise in the targets, or something that another formula would have."""

from __future__ import annotations

import math

import torch

from pyro_tkam.nn import KAN
from pyro_tkam.symbolic.least_squares import Data, Fit

#: standard errors beyond which a difference is clear
_CLEAR = 3.0
_MOST_SAMPLES = 1000


def advice(fit: Fit, net: KAN, data: Data, tolerance: float) -> str | None:
    """
    Return what the formula and the network miss, and what may help; None if only noise is missed.

    :param fit: the formula.
    :param net: the network that it comes from, in float64.
    :param data: all samples.
    :param tolerance: share of the variance that does not matter.
    """
    learned = Data(data.x, (data.y - net(data.x)) / data.scale)
    missed = Data(data.x, (data.y - fit.network(data.x)) / data.scale)
    count = _count(net)
    if not (_is_clearly_smaller(learned, count, missed, fit) or has_pattern(missed)):
        return None
    loss = float(learned.y.square().mean())
    ways = ["prune it", "add forms to library="]
    if loss > tolerance and has_pattern(learned):
        ways.insert(0, "fit it longer or from another seed")
    return (
        f"the formula misses {100 * fit.loss:.2g}% of the variance of y and the network "
        f"{100 * loss:.2g}%: {', '.join(ways[:-1])} or {ways[-1]}"
    )


def _count(net: KAN) -> int:
    """Return the number of parameters of the edges that are not masked, and of the biases."""
    return sum(
        int(layer.mask.sum()) * layer.bound().weights.shape[-1]
        + (0 if layer.bias is None else layer.bias.numel())
        for layer in net.layers
    )


def _is_clearly_smaller(learned: Data, count: int, missed: Data, fit: Fit) -> bool:
    """Tell whether a network's residuals are smaller than by fitting noise: an F test."""
    left = learned.y.numel() - count
    if left <= 0:  # it could have fitted any noise
        return False
    more = max(count - int(fit.network.free.sum()), 1)
    own = float(learned.y.square().sum())
    gain = (float(missed.y.square().sum()) - own) / more
    return gain > own / left * (1 + _CLEAR * math.sqrt(2 / more + 2 / left))


def has_pattern(residuals: Data) -> bool:
    """
    Tell whether residuals at neighboring inputs are more alike than independent noise would be.

    The sum of products of each residual and that of the nearest input has mean zero for noise of
    any variances; a pair that are nearest to each other counts twice.
    """
    few = residuals.thinned(_MOST_SAMPLES)
    spread = few.x.std(0)
    x = few.x / torch.where(spread > 0, spread, 1.0)
    nearest = torch.cdist(x, x).fill_diagonal_(math.inf).argmin(-1)
    products = (few.y * few.y[nearest]).sum(-1)
    is_mutual = nearest[nearest] == torch.arange(len(nearest))
    variance = products.square().sum() + products[is_mutual].square().sum()
    return bool(products.sum() > _CLEAR * variance.sqrt())
