"""L-BFGS on rescaled weights, so that all weights of a network have a similar effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_tkam.nn.kan import KAN


class UnitLBFGS(torch.optim.LBFGS):
    r"""
    L-BFGS with a strong Wolfe line search on the weights of a network, each multiplied by a unit.

    The unit of a base function's weight is the root mean square of that function over the samples,
    but at least 1; all other weights have unit 1. Far from zero, a base function is about as large
    as its argument. In the curvature, its weight would outweigh all others by the square of that
    size.

    :param net: the network.
    :param samples: inputs of the network, shape ``(N, widths[0])``.
    """

    def __init__(self, net: KAN, samples: Tensor) -> None:
        self._own = list(net.parameters())
        super().__init__(
            [torch.nn.Parameter(each.detach().clone()) for each in self._own],
            line_search_fn="strong_wolfe",
            tolerance_grad=1e-14,
            tolerance_change=1e-16,
        )
        self.measure(net, samples)

    def measure(self, net: KAN, samples: Tensor) -> None:
        """Recompute the units from the current network; the curvature history is dropped."""
        units: dict[int, Tensor] = {}
        with torch.no_grad():
            for layer, inputs in net.layer_inputs(samples):
                if layer.base_weight is not None:
                    sizes = layer.bound().activation(inputs).square().mean(0).sqrt()
                    units[id(layer.base_weight)] = sizes.clamp(min=1.0)
        self._units = [units.get(id(each), torch.ones_like(each)) for each in self._own]
        self.state.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Make one step; the closure evaluates the network and its gradients."""
        scaled = self.param_groups[0]["params"]
        for value, own, unit in zip(scaled, self._own, self._units, strict=True):
            value.copy_(own * unit)

        def in_units() -> Any:
            self._restore()
            for own in self._own:
                own.grad = None
            with torch.enable_grad():
                loss = closure()
            for value, own, unit in zip(scaled, self._own, self._units, strict=True):
                value.grad = None if own.grad is None else own.grad / unit
            return loss

        loss = super().step(in_units)
        self._restore()
        return loss

    @torch.no_grad()
    def _restore(self) -> None:
        """Copy the rescaled weights back to the network."""
        scaled = self.param_groups[0]["params"]
        for value, own, unit in zip(scaled, self._own, self._units, strict=True):
            own.copy_(value / unit)
