"""The Levenberg-Marquardt method for networks: least squares in all weights at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_tkam.nn.constraints import refuse_constrained
from pyro_tkam.nn.symbolic import values_and_slopes

if TYPE_CHECKING:
    from pyro_tkam.nn.kan import KAN
    from pyro_tkam.nn.layers import KANLayer

_FIRST_DAMPING = 1e-2
_SMALLEST_DAMPING = 1e-10
#: tries for a smaller loss before a step is given up
_TRIES = 8


class Marquardt(torch.optim.Optimizer):
    r"""
    The Levenberg-Marquardt method on the weights of a network (Levenberg 1944, Marquardt 1963).

    With residuals :math:`r` and their derivatives :math:`J` in the weights, a step :math:`δ` solves
    :math:`(J^T J + λ t I)\, δ = J^T r`, where :math:`t` is the mean of the diagonal of
    :math:`J^T J`. The damping :math:`λ` decreases after a step that reduces the loss, and increases
    until there is one. Every datum must go through the network on its own.

    :param net: the network.
    :raises ValueError: for functions with a constraint.
    """

    def __init__(self, net: KAN) -> None:
        super().__init__(net.parameters(), {})
        for layer in net.layers:
            refuse_constrained(layer, "the Levenberg-Marquardt method")
        self._net = net
        self._damping = _FIRST_DAMPING

    @torch.no_grad()
    def step(self, batches: Sequence[tuple[Tensor, Tensor]]) -> float:  # type: ignore[override]
        """Make one step on inputs and targets; return the mean squared error before it."""
        start = self._loss(batches)
        normal, gradient = self._system(batches)
        weights = _weights(self._net)
        unit = normal.diagonal().mean()
        for _ in range(_TRIES):
            damped = normal.clone()
            damped.diagonal().add_(self._damping * unit)
            change = torch.linalg.solve_ex(damped, gradient).result
            if bool(change.isfinite().all()):
                _put(self._net, weights + change)
                if self._loss(batches) < start:
                    self._damping = max(self._damping / 4, _SMALLEST_DAMPING)
                    return start
            self._damping *= 4
        _put(self._net, weights)
        return start

    def _loss(self, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
        squares = [(self._net(x) - y).square().sum(dtype=torch.double) for x, y in batches]
        return float(sum(squares)) / sum(y.numel() for _, y in batches)

    def _system(self, batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return :math:`J^T J` and :math:`J^T r`."""
        systems = []
        for x, y in batches:
            outputs, derivatives = linearized(self._net, x)
            flat = derivatives.flatten(0, 1)
            systems.append((flat.mT @ flat, flat.mT @ (y - outputs).mT.flatten()))
        normals, gradients = zip(*systems, strict=True)
        return torch.stack(normals).sum(0), torch.stack(gradients).sum(0)


def linearized(net: KAN, x: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return the outputs ``(N, out)`` and their derivatives in the weights ``(out, N, weights)``.

    A sum of edges is linear in the weights of its edges, so its derivatives are the features of its
    inputs; one backward pass per output gives the derivatives of the outputs in the sums.
    """
    inputs: list[Tensor] = []
    sums: list[Tensor] = []
    with torch.enable_grad():
        s = x
        for number, layer in enumerate(net.layers):
            inputs.append(s.detach())
            sums.append(layer(s).requires_grad_())
            s = net._between(number, sums[-1])
        s = net._output(s)
        rows = [torch.autograd.grad(each.sum(), sums, retain_graph=True) for each in s.unbind(-1)]
    features = [_Features(layer, each) for layer, each in zip(net.layers, inputs, strict=True)]
    derivatives = [
        torch.cat([own.times(each) for own, each in zip(features, row, strict=True)], -1)
        for row in rows
    ]
    return s.detach(), torch.stack(derivatives)


class _Features:
    """The derivatives of a layer's sums in its weights, at some inputs."""

    def __init__(self, layer: KANLayer, s: Tensor) -> None:
        edges = layer.bound()
        self._edges = _learned(layer).nonzero().unbind(-1)
        self._of_edges = edges.features(s).detach()[:, self._edges[1]]
        self._has_bias = layer.bias is not None
        self._of_forms: Tensor | None = None
        if edges.fixed is not None:
            outputs, sources = edges.fixed.edges.unbind(-1)
            a, b, c, _ = edges.fixed.affine.detach().unbind(-1)
            own = s[:, sources]
            parts = [
                (form, u.unsqueeze(0))
                for form, u in zip(edges.fixed.forms, (a * own + b).unbind(-1), strict=True)
            ]
            values, slopes = values_and_slopes(parts)
            slopes = slopes.mT * c
            columns = (slopes * own, slopes, values.mT, torch.ones_like(own))
            counts = layer.mask[outputs, sources]
            self._of_forms = torch.stack(columns, -1) * counts.unsqueeze(-1)
            self._outputs = outputs

    def times(self, of_sums: Tensor) -> Tensor:
        """Multiply by the derivatives of an output in the sums, ``(N, out)``."""
        columns = [(of_sums[:, self._edges[0], None] * self._of_edges).flatten(1)]
        if self._of_forms is not None:
            columns.append((of_sums[:, self._outputs, None] * self._of_forms).flatten(1))
        return torch.cat(columns + [of_sums] * self._has_bias, -1)


def _learned(layer: KANLayer) -> Tensor:
    """Return which edges are learned curves, ``(out, in)``."""
    if layer.fixed is None:
        return layer.mask
    return layer.mask & ~layer.fixed.where(layer.batch_shape)


def _weights(net: KAN) -> Tensor:
    """Return all weights in the order of :func:`linearized`."""
    parts: list[Tensor] = []
    for layer in net.layers:
        parts.append(layer.bound().weights[_learned(layer)].flatten())
        if layer.fixed is not None:
            parts.append(layer.fixed.affine.flatten())
        if layer.bias is not None:
            parts.append(layer.bias)
    return torch.cat(parts).detach()


def _put(net: KAN, weights: Tensor) -> None:
    """Replace all weights, in the order of :func:`linearized`."""
    for layer in net.layers:
        old = layer.bound().weights.detach()
        learned = _learned(layer)
        own = old.clone()
        count = int(learned.sum()) * old.shape[-1]
        own[learned] = weights[:count].unflatten(0, (-1, old.shape[-1]))
        weights = weights[count:]
        if layer.base_weight is not None and layer.scale is not None:
            layer.base_weight.copy_(torch.where(learned, own[..., -1], layer.base_weight))
            own = own[..., :-1] / layer.scale.unsqueeze(-1)
        coefficients = layer._in_bank_order(layer.coefficients)
        coefficients.copy_(torch.where(learned.unsqueeze(-1), own, coefficients))
        for other in (None if layer.fixed is None else layer.fixed.affine, layer.bias):
            if other is not None:
                other.copy_(weights[: other.numel()].view_as(other))
                weights = weights[other.numel() :]
