"""Networks of forms: the structure of a Kolmogorov-Arnold network with a formula on each edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._optional import needs
from pyro_tkam.nn import KAN, Candidate, Form
from pyro_tkam.nn.kan import Nodes

#: an edge of a network: layer, output and input
Place = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _Curve:
    """One learned edge of a layer."""

    functions: Callable[[Tensor], Tensor]
    output: int
    source: int

    def __call__(self, s: Tensor) -> Tensor:
        return self.functions(s.reshape(-1, 1, 1))[:, self.output, self.source]


@dataclass(frozen=True, eq=False)
class Edge:
    r"""
    One edge.

    :param place: layer, output and input.
    :param form: its form; None while it is still a learned curve.
    :param curve: the learned curve, elementwise.
    """

    place: Place
    form: Form | None
    curve: Callable[[Tensor], Tensor]

    def __call__(self, s: Tensor, factor: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        r"""Evaluate :math:`a\,g(bs + c)`, or the curve."""
        if self.form is None:
            return self.curve(s)
        return factor * self.form(scale * s + shift)

    def expression(self, s: Any, factor: Any, scale: Any, shift: Any) -> Any:
        """Return the edge as a SymPy expression."""
        if self.form is None:
            with needs("symbolic"):
                import sympy
            return sympy.Function("_".join(["phi", *map(str, self.place)]))(s)
        if self.form.is_constant:
            return 0
        return factor * self.form.expression(scale * s + shift)

    @property
    def free(self) -> tuple[bool, bool, bool]:
        """Which of the three parameters are not redundant."""
        if self.form is None or self.form.is_constant:
            return False, False, False
        return True, not self.form.scale_is_redundant, not self.form.shift_is_redundant


@dataclass(frozen=True, eq=False)
class FormulaNetwork:
    r"""
    A network whose edges are :math:`a\,g(bs + c)`, with one constant for each sum of edges.

    :param nodes: the nodes made from each layer's sums, some of them products.
    :param edges: all edges, starting with those of the first layer.
    :param terms: the number of sums in each layer.
    :param parameters: three for each edge, then the constants, float64.
    :param free: which of them are fitted.
    :param exact: SymPy numbers of the rounded ones, by position.
    """

    nodes: tuple[Nodes, ...]
    edges: tuple[Edge, ...]
    terms: tuple[int, ...]
    parameters: Tensor
    free: Tensor
    exact: Mapping[int, Any]

    @classmethod
    def of(cls, net: KAN) -> FormulaNetwork:
        """Convert a network in float64, all of whose edges are learned curves."""
        edges = []
        constants = []
        for number, layer in enumerate(net.layers):
            functions = layer.bound()
            for output, source in layer.mask.nonzero().tolist():
                edges.append(
                    Edge((number, output, source), None, _Curve(functions, output, source))
                )
            bias = layer.bias
            constants.append(torch.zeros(layer.out_features) if bias is None else bias.detach())
        start = torch.tensor([1.0, 1.0, 0.0]).repeat(len(edges))
        read = {edge.place[:2] for edge in edges}
        free = [False] * len(start)
        free += [
            (number, output) in read
            for number, layer in enumerate(net.layers)
            for output in range(layer.out_features)
        ]
        return cls(
            nodes=tuple(net.nodes[1:]),
            edges=tuple(edges),
            terms=tuple(layer.out_features for layer in net.layers),
            parameters=torch.cat((start, *constants)).double(),
            free=torch.tensor(free),
            exact={},
        )

    def constant_index(self, layer: int, output: int) -> int:
        """Return the position of a sum's constant among the parameters."""
        return 3 * len(self.edges) + sum(self.terms[:layer]) + output

    def edge_index(self, place: Place) -> int:
        """Return the index of an edge."""
        return next(i for i, edge in enumerate(self.edges) if edge.place == place)

    def layer_values(self, parameters: Tensor, x: Tensor) -> list[Tensor]:
        """
        Return the inputs of every layer, and the outputs after them.

        :param parameters: shape ``(P, 1)``, or ``(P, N)`` if each sample has its own.
        :param x: shape ``(N, in)``.
        """
        values = [x]
        edges = iter(enumerate(self.edges))
        number, edge = next(edges, (0, None))
        for layer, count in enumerate(self.terms):
            first = self.constant_index(layer, 0)
            sums = [parameters[first + i].expand(len(x)) for i in range(count)]
            while edge is not None and edge.place[0] == layer:
                _, output, source = edge.place
                own = parameters[3 * number : 3 * number + 3]
                sums[output] = sums[output] + edge(values[-1][:, source], *own)
                number, edge = next(edges, (0, None))
            values.append(self.nodes[layer].combine(torch.stack(sums, -1)))
        return values

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the network, ``(N, in)`` to ``(N, out)``."""
        return self.layer_values(self.parameters.unsqueeze(-1), x)[-1]

    def with_parameters(self, parameters: Tensor) -> FormulaNetwork:
        """Return the network with other parameters."""
        return replace(self, parameters=parameters)

    def with_form(self, place: Place, candidate: Candidate, s: Tensor) -> FormulaNetwork:
        """
        Return the network with a fitted form on an edge; the mean of the edge's sum stays the same.

        :param s: the edge's arguments, shape ``(N,)``.
        """
        number = self.edge_index(place)
        own = slice(3 * number, 3 * number + 3)
        edge = replace(self.edges[number], form=candidate.form)
        parameters = self.parameters.clone()
        free = self.free.clone()
        parameters[own] = parameters.new_tensor(candidate.parameters[:3])
        free[own] = torch.tensor(edge.free)
        before = self.edges[number](s, *self.parameters[own])
        moved = before.mean() - edge(s, *parameters[own]).mean()
        parameters[self.constant_index(*place[:2])] += moved
        edges = (*self.edges[:number], edge, *self.edges[number + 1 :])
        return replace(self, edges=edges, parameters=parameters, free=free)

    def fixed_at(self, index: int, value: float, exact: Any) -> FormulaNetwork:
        """Return the network with one parameter set to an exact value and no longer fitted."""
        parameters = self.parameters.clone()
        free = self.free.clone()
        parameters[index] = value
        free[index] = False
        return replace(self, parameters=parameters, free=free, exact={**self.exact, index: exact})

    def expressions(self, symbols: Sequence[Any]) -> tuple[Any, ...]:
        """
        Return a SymPy expression for each output; learned curves appear as functions ``phi_0_1_2``.

        :param symbols: of the inputs.
        """
        with needs("symbolic"):
            import sympy
        numbers = []
        for i, value in enumerate(self.parameters.tolist()):
            plain = value in (-1.0, 0.0, 1.0) and not self.free[i]
            number = sympy.Integer(int(value)) if plain else sympy.Float(value, 15)
            numbers.append(self.exact.get(i, number))
        values: list[Any] = list(symbols)
        for layer, (count, nodes) in enumerate(zip(self.terms, self.nodes, strict=True)):
            first = self.constant_index(layer, 0)
            sums = numbers[first : first + count]
            for number, edge in enumerate(self.edges):
                if edge.place[0] == layer:
                    _, output, source = edge.place
                    own = numbers[3 * number : 3 * number + 3]
                    sums[output] = sums[output] + edge.expression(values[source], *own)
            factors = sums[nodes.sums :]
            products = [factors[2 * i] * factors[2 * i + 1] for i in range(nodes.products)]
            values = sums[: nodes.sums] + products
        return tuple(values)
