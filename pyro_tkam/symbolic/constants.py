"""
Constants of a formula: redundant ones are removed, and those close to a simple number become it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from pyro_tkam._optional import needs
from pyro_tkam._progress import Progress
from pyro_tkam.symbolic.least_squares import Data, Fit, refitted, standard_errors
from pyro_tkam.symbolic.network import Edge, FormulaNetwork

_STEPS = 20
#: relative distance of a constant of an exact formula from the number that it is
_EXACT_DISTANCE = 1e-6


class Rounding:
    """
    Rounds the constants of a fit if the loss does not increase.

    An exact formula stays exact. For any other formula, the loss may increase by the share that one
    parameter less costs on average, :math:`1/N`.

    :param fit: the fit.
    :param data: the data of the fit.
    :param exact: the loss of an exact formula.
    :param progress: told how many constants are left.
    """

    def __init__(self, fit: Fit, data: Data, exact: float, progress: Progress) -> None:
        with needs("symbolic"):
            import sympy
        self._sympy = sympy
        self.fit = fit
        self.data = data
        self.progress = progress
        self.is_exact = fit.loss <= exact
        self.allowed = exact if self.is_exact else fit.loss * (1 + 1 / data.y.numel())

    def run(self) -> Fit:
        """Remove redundant constants, then round the others."""
        self._merge_hidden_scales()
        self._fix_redundant()
        self._round()
        return self.fit

    def _try(
        self, index: int, value: float, exact: Any, start: FormulaNetwork | None = None
    ) -> bool:
        """Fix a parameter where the others can make up for it, which leaves fixed ones alone."""
        own = self.fit.network
        self.progress.tell(f"{int(own.free.sum())} not rounded")
        moves_fixed = start is not None and bool(
            ((start.parameters != own.parameters) & ~own.free).any()
        )
        network = (own if start is None or moves_fixed else start).fixed_at(index, value, exact)
        trial = refitted(network, self.data, _STEPS)
        if trial.loss > self.allowed:
            return False
        self.fit = trial
        return True

    def _merge_hidden_scales(self) -> None:
        """Give the scale and the shift of an edge that alone reads a sum to the sum's own edges."""
        network = self.fit.network
        for number, edge in enumerate(network.edges):
            layer, _, source = edge.place
            readers = [each for each in network.edges if each.place[::2] == (layer, source)]
            if layer == 0 or len(readers) > 1 or source >= network.nodes[layer - 1].sums:
                continue
            _, scale_is_free, shift_is_free = edge.free
            scale = float(network.parameters[3 * number + 1]) if scale_is_free else 1.0
            shift = float(network.parameters[3 * number + 2]) if shift_is_free else 0.0
            if not scale or any(each.form is None for each in _into(network, layer - 1, source)):
                continue
            parameters = _scaled(network, layer - 1, source, scale)
            parameters[network.constant_index(layer - 1, source)] += shift
            network = network.with_parameters(parameters)
            if scale_is_free:
                network = network.fixed_at(3 * number + 1, 1.0, self._sympy.Integer(1))
            if shift_is_free:
                network = network.fixed_at(3 * number + 2, 0.0, self._sympy.Integer(0))
        loss = self.data.loss(network)
        self.fit = Fit(network, loss)
        self.allowed = max(self.allowed, loss) if loss < 2 * self.allowed else self.allowed

    def _fix_redundant(self) -> None:
        """Fix parameters that others can make up for, hidden constants first."""
        network = self.fit.network
        zero = self._sympy.Integer(0)
        one = self._sympy.Integer(1)
        first = 3 * len(network.edges)
        for index in range(first, len(network.parameters)):
            if self.fit.network.free[index]:
                self._try(index, 0.0, zero)
        for number in range(len(network.edges)):
            if self.fit.network.free[3 * number + 2]:
                self._try(3 * number + 2, 0.0, zero)
        for number, edge in enumerate(network.edges):
            factor = float(self.fit.network.parameters[3 * number])
            if self.fit.network.free[3 * number] and factor:
                sign = math.copysign(1.0, factor)
                start = self._with_unit_factor(edge, abs(factor))
                self._try(3 * number, sign, one * int(sign), start)

    def _with_unit_factor(self, edge: Edge, factor: float) -> FormulaNetwork:
        """Divide a hidden sum by a factor, and multiply what it is read by, as a start."""
        network = self.fit.network
        layer, output, _ = edge.place
        if layer == len(network.terms) - 1:
            return network
        parameters = _scaled(network, layer, output, 1 / factor)
        sums = network.nodes[layer].sums
        node = output if output < sums else sums + (output - sums) // 2
        if output >= sums:
            return network.with_parameters(
                _scaled(
                    network.with_parameters(parameters),
                    layer,
                    sums + ((output - sums) ^ 1),
                    factor,
                )
            )
        for number, reader in enumerate(network.edges):
            if reader.place[0] == layer + 1 and reader.place[2] == node and reader.form is not None:
                if reader.form.scale_is_redundant:
                    parameters[3 * number + 2] /= factor
                else:
                    parameters[3 * number + 1] *= factor
        return network.with_parameters(parameters)

    def _round(self) -> None:
        """Round free parameters to plain numbers, the simplest near each that keeps the loss."""
        for index in self.fit.network.free.nonzero().flatten().tolist():
            value = float(self.fit.network.parameters[index])
            if self.is_exact:
                distance = _EXACT_DISTANCE * max(abs(value), 1e-2)
            else:
                place = int(self.fit.network.free[:index].sum())
                distance = 2 * float(standard_errors(self.fit.network, self.data)[place])
            for exact in self._plain(value, distance):
                if self._try(index, float(exact), exact):
                    break

    def _plain(self, value: float, distance: float) -> Iterator[Any]:
        """Yield plain numbers within a distance: ratios, multiples of π, roots and logarithms."""
        sympy = self._sympy
        if abs(value) <= distance:
            yield sympy.Integer(0)
        if not self.is_exact:
            for unit in (sympy.Integer(1), sympy.pi):
                ratio = Fraction(round(2 * value / float(unit)), 2)
                near = abs(float(ratio) * float(unit) - value) <= distance
                if near and ratio and distance < float(unit) / 20:
                    yield sympy.Rational(ratio.numerator, ratio.denominator) * unit
            return
        sign = 1 if value > 0 else -1
        size = abs(value)
        ways = [
            (size, 100, lambda ratio: ratio),
            (size / math.pi, 24, lambda ratio: ratio * sympy.pi),
            (size * math.pi, 24, lambda ratio: ratio / sympy.pi),
            (size**2, 24, sympy.sqrt),
            (size**2 * math.pi, 24, lambda ratio: sympy.sqrt(ratio / sympy.pi)),
            (math.exp(min(size, 50.0)), 24, sympy.log),
        ]
        for number, most, restored in ways:
            ratio = Fraction(number).limit_denominator(most)
            if not 0 < ratio.numerator <= 1000:
                continue
            exact = restored(sympy.Rational(ratio.numerator, ratio.denominator))
            if abs(float(exact) - size) <= distance:
                yield sign * exact


def _into(network: FormulaNetwork, layer: int, output: int) -> list[Edge]:
    return [edge for edge in network.edges if edge.place[:2] == (layer, output)]


def _scaled(network: FormulaNetwork, layer: int, output: int, scale: float) -> torch.Tensor:
    """Return the parameters with one sum multiplied by a number."""
    parameters = network.parameters.clone()
    for number, edge in enumerate(network.edges):
        if edge.place[:2] == (layer, output):
            parameters[3 * number] *= scale
    parameters[network.constant_index(layer, output)] *= scale
    return parameters


def with_waves_in_range(network: FormulaNetwork) -> FormulaNetwork:
    """Move the phases of waves into (-π, π]."""
    parameters = network.parameters.clone()
    for number, edge in enumerate(network.edges):
        period = None if edge.form is None else edge.form.period
        if period and bool(network.free[3 * number + 2]):
            shift = float(parameters[3 * number + 2])
            parameters[3 * number + 2] = shift - period * math.ceil(shift / period - 0.5)
    return replace(network, parameters=parameters)
