"""Formulas given as text, read without evaluating Python."""

from __future__ import annotations

import ast
import keyword
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyro_tkam._checks import sequence
from pyro_tkam._optional import needs

if TYPE_CHECKING:
    import sympy

_CONSTANTS = ("pi", "E")
_TRIGONOMETRIC = ("sin", "cos", "tan", "asin", "acos", "atan")
_HYPERBOLIC = ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
#: SymPy's name of each function, by the names that a formula may use
_FUNCTIONS = {
    **{name: name for name in (*_TRIGONOMETRIC, *_HYPERBOLIC)},
    **{name: name for name in ("exp", "log", "sqrt", "sign", "erf", "loggamma")},
    **{"arcsin": "asin", "arccos": "acos", "arctan": "atan"},
    **{"ln": "log", "lgamma": "loggamma", "abs": "Abs", "Abs": "Abs"},
}
_SUM = (ast.Add, ast.Sub)
_PRODUCT = (ast.Mult, ast.Div)
#: largest exponent: powers of numbers are evaluated, and 9**9**9 would never finish
_LARGEST_EXPONENT = 1000
#: bits of the largest integer, beyond the range of float64
_MOST_BITS = 1024


def is_variable_name(name: str) -> bool:
    """
    Tell whether formulas with a variable of this name can be read and evaluated.

    :param name: the name.
    """
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name  # else Python reads another name
        and name not in {*_CONSTANTS, *_FUNCTIONS, *_FUNCTIONS.values(), "besselj"}
    )


def parse_expression(
    text: str, symbols: Mapping[str, sympy.Symbol] | Sequence[str] | None = None
) -> sympy.Expr:
    """
    Read a formula as a sympy expression, without evaluating Python.

    Only numbers, names, ``+ - * / **`` (or ``^``), parentheses, the constants ``pi`` and ``E`` and
    these functions are read: ``sin``, ``cos``, ``tan``, ``asin``, ``acos``, ``atan``, ``sinh``,
    ``cosh``, ``tanh``, ``asinh``, ``acosh``, ``atanh``, ``exp``, ``log``, ``sqrt``, ``abs``,
    ``sign``, ``erf`` and ``lgamma``. Text from an untrusted source therefore runs no code.

    :param text: the formula.
    :param symbols: the variables by name, or their names; they take precedence over constants of
        the same name. None treats every name that is not a constant as a variable.
    :raises TypeError: for anything but text.
    :raises ValueError: for anything else in the text, and for numbers that are not real and finite;
        names the piece and what is allowed.
    :raises ImportError: without ``sympy``; names the extra to install.

    >>> parse_expression("2*sin(x1) + x2^2/pi", ["x1", "x2"])
    x2**2/pi + 2*sin(x1)
    """
    with needs("symbolic"):
        import sympy
    if not isinstance(text, str):
        raise TypeError(f"formula must be a string, got {text!r}")
    if symbols is not None and not isinstance(symbols, Mapping):
        sequence("symbols", symbols, "names")
        if not all(isinstance(name, str) for name in symbols):
            raise TypeError(f"symbols must be names, got {symbols!r}")
        symbols = {name: sympy.Symbol(name) for name in symbols}
    source = " ".join(text.split()).replace("^", "**")
    if "#" in source:
        raise ValueError(f"formula must have no comments, got {_short(text)}")
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError) as error:
        cause = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(f"formula must be one expression, got {_short(text)}: {cause}") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"formula must be less deeply nested, got {_short(text)}") from None
    try:
        expression = _Reader(source, symbols).read(tree)
    except RecursionError:
        raise ValueError(f"formula must be less deeply nested, got {_short(text)}") from None
    if expression.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.I):
        raise ValueError(
            f"formula must be real and finite, got {_short(text)}, which is {expression}"
        )
    return expression


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


class _Reader:
    """
    Builds an expression from a syntax tree and refuses everything that is not explicitly allowed.

    :param source: the text that was parsed.
    :param symbols: the variables; None accepts every name.
    """

    def __init__(self, source: str, symbols: Mapping[str, sympy.Symbol] | None) -> None:
        import sympy

        self._sympy: Any = sympy
        self._source = source
        self._symbols = symbols
        self._kinds: dict[type[ast.expr], Callable[[Any], sympy.Expr]] = {
            ast.Constant: self._number,
            ast.Name: self._name,
            ast.UnaryOp: self._signed,
            ast.BinOp: self._operation,
            ast.Call: self._call,
        }

    def read(self, node: ast.expr) -> sympy.Expr:
        """Return the expression of a node."""
        kind = self._kinds.get(type(node))
        if kind is None:
            raise self._refused(node, "numbers, variables, + - * / **, parentheses and functions")
        return kind(node)

    def _refused(self, node: ast.expr, allowed: str) -> ValueError:
        piece = ast.get_source_segment(self._source, node) or ast.unparse(node)
        where = "" if piece == self._source else f" in {_short(self._source)}"
        return ValueError(f"formula must be made of {allowed}, got {_short(piece)}{where}")

    def _number(self, node: ast.Constant) -> sympy.Expr:
        value = node.value
        if type(value) is int and value.bit_length() <= _MOST_BITS:
            return self._sympy.Integer(value)
        if type(value) is float and value not in (float("inf"), float("-inf")):
            return self._sympy.Float(value)
        raise self._refused(node, "finite real numbers")

    def _name(self, node: ast.Name) -> sympy.Expr:
        if self._symbols is not None and node.id in self._symbols:
            return self._symbols[node.id]
        if node.id in _CONSTANTS:
            return getattr(self._sympy, node.id)
        if self._symbols is None and node.id not in _FUNCTIONS:
            return self._sympy.Symbol(node.id)
        variables = "names of variables" if self._symbols is None else ", ".join(self._symbols)
        raise self._refused(node, f"{variables}, {', '.join(_CONSTANTS)} and functions of these")

    def _signed(self, node: ast.UnaryOp) -> sympy.Expr:
        if not isinstance(node.op, ast.UAdd | ast.USub):
            raise self._refused(node, "signs + and -")
        value = self.read(node.operand)
        return -value if isinstance(node.op, ast.USub) else value

    def _operation(self, node: ast.BinOp) -> sympy.Expr:
        if isinstance(node.op, _SUM):
            terms = self._chain(node, _SUM, lambda value: -value)
            return self._sympy.Add(*terms)
        if isinstance(node.op, _PRODUCT):
            factors = self._chain(node, _PRODUCT, lambda value: 1 / value)
            return self._sympy.Mul(*factors)
        if isinstance(node.op, ast.Pow):
            return self._power(node, self.read(node.left), self.read(node.right))
        raise self._refused(node, "+ - * / **")

    def _chain(
        self,
        node: ast.BinOp,
        kinds: tuple[type[ast.operator], ...],
        inverse: Callable[[sympy.Expr], sympy.Expr],
    ) -> list[sympy.Expr]:
        """
        Return the terms of ``a + b - c + ...``. The loop avoids recursion, because the tree is
        left-deep: as deep as the sum is long.

        :param kinds: the operator and its inverse.
        :param inverse: turns a term that is subtracted into one that is added, or a divisor into a
            factor.
        """
        left: ast.expr = node
        parts = []
        while isinstance(left, ast.BinOp) and isinstance(left.op, kinds):
            value = self.read(left.right)
            parts.append(value if isinstance(left.op, kinds[0]) else inverse(value))
            left = left.left
        return [self.read(left), *reversed(parts)]

    def _power(self, node: ast.BinOp, base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
        self._check_exponents(node, {exponent} if exponent.is_Rational else set())
        if base.is_negative and exponent.is_Rational and not exponent.is_Integer:
            raise self._refused(node, "real numbers")
        power = base**exponent
        numbers = power.atoms(self._sympy.Rational)
        if any(max(abs(n.p), n.q).bit_length() > _MOST_BITS for n in numbers):
            raise self._refused(node, "numbers that fit in float64")
        return power

    def _check_exponents(self, node: ast.expr, exponents: set[sympy.Expr]) -> None:
        if any(abs(each) > _LARGEST_EXPONENT for each in exponents):
            raise self._refused(node, f"exponents from -{_LARGEST_EXPONENT} to {_LARGEST_EXPONENT}")

    def _call(self, node: ast.Call) -> sympy.Expr:
        function = node.func
        if not isinstance(function, ast.Name) or function.id not in _FUNCTIONS:
            raise self._refused(function, f"the functions {', '.join(_FUNCTIONS)}")
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise self._refused(node, "functions of one argument")
        argument = self.read(node.args[0])
        name = _FUNCTIONS[function.id]
        if name == "loggamma" and argument.is_number:
            argument = argument.evalf()  # for an integer, sympy would compute the factorial
        if name == "exp" and any(log.args[0].is_number for log in argument.atoms(self._sympy.log)):
            self._check_exponents(node, argument.atoms(self._sympy.Rational))  # exp(n*log(2))
        return getattr(self._sympy, name)(argument)
