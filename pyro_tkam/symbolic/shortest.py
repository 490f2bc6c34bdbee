"""The shortest of a few equal expressions."""

from __future__ import annotations

import math
from typing import Any

#: terms of a product that is multiplied out; addends of an angle and size of a function whose angle
#: is split. Without bounds, one expression could take hours.
MOST_TERMS, MOST_ADDENDS, LARGEST = 200, 3, 60


def shortest(expression: Any) -> Any:
    """
    Return the shortest of a few equal expressions.

    :param expression: a SymPy expression.

    >>> import sympy
    >>> x, y = sympy.symbols("x y")
    >>> shortest(sympy.tanh(sympy.atanh(x) + sympy.atanh(y)))
    (x + y)/(x*y + 1)
    """
    import sympy

    ways = [expression]
    if max(map(_terms, sympy.preorder_traversal(expression))) <= MOST_TERMS:
        ways.append(sympy.expand(expression))
    ways.append(expression.replace(_has_short_angle, _split))
    if not expression.atoms(sympy.Float):
        ways += [sympy.factor_terms(expression), sympy.together(ways[-1])]
    return min(ways, key=lambda each: (sympy.count_ops(each), len(str(each))))


def _terms(expression: Any) -> int:
    """Return about how many terms an expression has once it is multiplied out."""
    if expression.is_Add:
        return sum(map(_terms, expression.args))
    if expression.is_Mul:
        return math.prod(map(_terms, expression.args))
    if expression.is_Pow and expression.exp.is_Integer:
        power = abs(int(expression.exp))
        return math.comb(_terms(expression.base) + power - 1, power)
    return 1


def _has_short_angle(node: Any) -> bool:
    """Whether a node is a function of an angle, circular or hyperbolic, that has few addends."""
    from sympy.functions.elementary.hyperbolic import HyperbolicFunction
    from sympy.functions.elementary.trigonometric import TrigonometricFunction

    if not isinstance(node, TrigonometricFunction | HyperbolicFunction):
        return False
    addends = sum(abs(int(n)) if n.is_Integer else 1 for n, _ in _addends(node))
    return addends <= MOST_ADDENDS and node.count_ops() <= LARGEST


def _addends(node: Any) -> list[tuple[Any, Any]]:
    """Return the addends of a function's angle, each as a rational factor and the rest."""
    from sympy import Add

    return [term.as_coeff_Mul(rational=True) for term in Add.make_args(node.args[0])]


def _split(node: Any) -> Any:
    """Apply the addition theorem to an angle; its addends stay as they are."""
    from sympy import Add, Dummy, expand_trig

    rests = {Dummy(): rest for _, rest in _addends(node)}
    factors = (factor for factor, _ in _addends(node))
    angle = Add(*(n * symbol for n, symbol in zip(factors, rests, strict=True)))
    return expand_trig(node.func(angle)).xreplace(rests)
