"""Networks built from formulas: the parts of an expression become nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyro_tkam._checks import sequence
from pyro_tkam._optional import needs
from pyro_tkam.nn.forms import LIBRARY, Form, as_form, plain
from pyro_tkam.nn.parse import parse_expression


@dataclass(eq=False)
class Node:
    """
    A value that a layer computes.

    :param level: the layer, 0 for the inputs.
    :param sums: one sum of edges, or the two sums of a product; none for an input.
    """

    level: int
    sums: list[Sum] = field(default_factory=list)


@dataclass(eq=False)
class Sum:
    """
    A sum of edges.

    :param constant: the constant term.
    :param edges: factor, form, scale, shift and input node of each edge.
    """

    constant: float
    edges: list[tuple[float, Form, float, float, Node]]

    @property
    def level(self) -> int:
        """The layer that can compute the sum."""
        return 1 + max((node.level for *_, node in self.edges), default=0)


class Layout:
    """
    The layers of expressions.

    :param expressions: SymPy expressions, one for each output.
    :param symbols: names of the inputs.
    :raises ValueError: for symbols that are not inputs and for numbers that are not real.
    """

    def __init__(self, expressions: Sequence[Any], symbols: Sequence[str]) -> None:
        with needs("symbolic"):
            import sympy
        self._sympy = sympy
        if not expressions:
            raise ValueError("formula must hold at least one formula, got none")
        unknown = {str(s) for each in expressions for s in each.free_symbols} - set(symbols)
        if unknown:
            raise ValueError(f"symbols must hold {sorted(unknown)}, got {list(symbols)}")
        self._known: dict[Any, Node] = {sympy.Symbol(name): Node(0) for name in symbols}
        inputs = list(self._known.values())
        outputs = [Node(0, [self._sum(each)]) for each in expressions]
        depth = max(node.sums[0].level for node in outputs)
        for node in outputs:
            node.level = depth
        #: nodes of every layer, sums before products
        self.layers: list[list[Node]] = [inputs, *([] for _ in range(depth - 1)), outputs]
        for level in range(depth, 0, -1):
            self._place(level)

    def _place(self, level: int) -> None:
        """Make a layer read only the layer below it, which passes values of earlier layers on."""
        carried: dict[int, Node] = {}
        below = self.layers[level - 1]
        for total in (total for node in self.layers[level] for total in node.sums):
            for number, (factor, form, scale, shift, node) in enumerate(total.edges):
                if level > 1 and node.level < level - 1:
                    if id(node) not in carried:
                        through = Sum(0.0, [(1.0, LIBRARY["linear"], 1.0, 0.0, node)])
                        carried[id(node)] = Node(level - 1, [through])
                    node = carried[id(node)]
                    total.edges[number] = factor, form, scale, shift, node
                if node not in below:
                    below.append(node)
        if level > 1:
            below.sort(key=lambda node: len(node.sums))

    def _sum(self, expression: Any) -> Sum:
        """Write an expression as a sum of functions of nodes."""
        total = Sum(0.0, [])
        for part in self._sympy.Add.make_args(expression):
            factor, rest = part.as_coeff_Mul()
            numbers, rest = rest.as_independent(*expression.free_symbols, as_Add=False)
            factor = _real(factor * numbers)
            if rest == 1:
                total.constant += factor
            else:
                total.edges.append((factor, *self._edge(rest)))
        total.edges = self._one_for_each_node(total.edges)
        return total

    def _one_for_each_node(
        self, edges: list[tuple[float, Form, float, float, Node]]
    ) -> list[tuple[float, Form, float, float, Node]]:
        """Merge several functions of the same node into one form."""
        by_node: dict[int, list[tuple[float, Form, float, float, Node]]] = {}
        for edge in edges:
            by_node.setdefault(id(edge[-1]), []).append(edge)
        merged = []
        u = self._sympy.Symbol("u")
        for group in by_node.values():
            if len(group) > 1:
                whole = sum(a * form.expression(b * u + c) for a, form, b, c, _ in group)
                group = [(1.0, as_form(whole), 1.0, 0.0, group[0][-1])]
            merged += group
        return merged

    def _edge(self, part: Any) -> tuple[Form, float, float, Node]:
        """Return form, scale, shift and node of a term without its numeric factor."""
        sympy = self._sympy
        if part in self._known:
            return LIBRARY["linear"], 1.0, 0.0, self._known[part]
        if part.is_Mul:
            return LIBRARY["linear"], 1.0, 0.0, self._product(part)
        u = sympy.Symbol("u")
        if part.is_Pow and not part.exp.is_number:
            return LIBRARY["exp"], *self._argument(part.exp * sympy.log(part.base))
        argument = part.base if part.is_Pow else part.args[0]
        if part.is_Pow:
            return as_form(u**part.exp), *self._argument(argument)
        if len(part.args) != 1:
            return as_form(part.func(*part.args[:-1], u)), *self._argument(part.args[-1])
        return as_form(part.func(u)), *self._argument(argument)

    def _argument(self, expression: Any) -> tuple[float, float, Node]:
        """
        Return scale, shift and node of an argument; an affine function of a node needs no new node.
        """
        constant, rest = expression.as_independent(*expression.free_symbols, as_Add=True)
        factor, single = rest.as_independent(*expression.free_symbols, as_Add=False)
        if not single.is_Add and (single in self._known or single.is_Mul):
            node = self._known[single] if single in self._known else self._product(single)
            return _real(factor), _real(constant), node
        return 1.0, 0.0, self._node(expression, [self._sum(expression)])

    def _product(self, part: Any) -> Node:
        """Return the node of a product: the first factor times the rest."""
        first, *others = part.args
        return self._node(part, [self._sum(first), self._sum(self._sympy.Mul(*others))])

    def _node(self, expression: Any, sums: list[Sum]) -> Node:
        if expression not in self._known:
            self._known[expression] = Node(max(total.level for total in sums), sums)
        return self._known[expression]


def _real(number: Any) -> float:
    value = complex(number)
    if value.imag:
        raise ValueError(f"expression must have real numbers, got {number}")
    return value.real


def layout(formula: Any, symbols: Sequence[str] | None) -> tuple[Layout, list[str]]:
    """
    Read formulas and arrange them in layers.

    :param formula: text or a SymPy expression, or a sequence of them.
    :param symbols: the inputs, in order; None takes the symbols of the formulas, sorted by name.
    """
    if symbols is not None and not isinstance(symbols, str):
        sequence("symbols", symbols, "names")
    given = [formula] if isinstance(formula, str) or hasattr(formula, "free_symbols") else formula
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(
            f"formula must be a string, an expression or several of them, got {formula!r}"
        )
    wrong = [e for e in given if not isinstance(e, str) and not hasattr(e, "free_symbols")]
    if wrong:
        raise TypeError(
            f"formula must be a string, an expression or several of them, got {wrong[0]!r}"
        )
    names = None if symbols is None else [str(each) for each in symbols]
    expressions = [
        parse_expression(each, names) if isinstance(each, str) else plain(each) for each in given
    ]
    if names is None:
        names = sorted({str(s) for each in expressions for s in each.free_symbols})
    if not names or len(set(names)) != len(names):
        raise ValueError(f"symbols must be distinct names, at least one, got {names}")
    return Layout(expressions, names), names
