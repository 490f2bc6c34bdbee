"""Univariate functions as candidates for the edges of networks: an extensible library of forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._optional import needs
from pyro_tkam.nn import _checks

#: a function of a namespace of functions and its argument, such as ``lambda f, u: f.exp(-u**2)``
Definition = Callable[[Any, Any], Any]


#: nodes of the midpoint rule for Bessel's integral, exact to rounding for arguments up to 80
_BESSEL_NODES = tuple(math.sin((k + 0.5) * math.pi / 64) for k in range(32))


def bessel_j0(u: Tensor) -> Tensor:
    r"""
    Return the Bessel function :math:`J_0(u) = \frac{2}{π} \int_0^{π/2} \cos(u \sin t)\, dt`.

    PyTorch's function has no gradient, and its error is 4e-7. Up to 80, this function computes the
    integral with the midpoint rule, which converges faster than any power. Beyond 80, it uses
    Hankel's expansion (Abramowitz and Stegun 1964, 9.2.5).

    :param u: any shape.

    >>> bessel_j0(torch.tensor([0.0, 2.404825557695773], dtype=torch.double)).abs() < 1e-15
    tensor([False,  True])
    """
    near = u.clamp(-80.0, 80.0)
    integral = sum(torch.cos(near * node) for node in _BESSEL_NODES) / len(_BESSEL_NODES)
    far = u.abs().clamp_min(80.0)
    square = far.square().reciprocal()
    even = 1 - square * (9 / 128 - square * 3675 / 32768)
    odd = (-1 / 8 + square * (75 / 1024 - square * 59535 / 262144)) / far
    angle = far - math.pi / 4
    wave = torch.sqrt(2 / (math.pi * far)) * (even * torch.cos(angle) - odd * torch.sin(angle))
    return torch.where(u.abs() <= 80.0, integral, wave)


class TorchFunctions:
    """PyTorch's functions under SymPy's names."""

    sin = torch.sin
    cos = torch.cos
    tan = torch.tan
    asin = torch.asin
    acos = torch.acos
    atan = torch.atan
    sinh = torch.sinh
    cosh = torch.cosh
    tanh = torch.tanh
    asinh = torch.asinh
    acosh = torch.acosh
    atanh = torch.atanh
    exp = torch.exp
    log = torch.log
    sqrt = torch.sqrt
    Abs = torch.abs
    sign = torch.sign
    erf = torch.erf
    loggamma = torch.lgamma

    @staticmethod
    def besselj(order: float, u: Tensor) -> Tensor:
        """Return the Bessel function of the first kind of order 0."""
        if order != 0:
            raise ValueError(f"order of a Bessel function must be 0, got {order}")
        return bessel_j0(u)


def evaluate(expression: Any, variables: Mapping[str, Tensor]) -> Any:
    """
    Evaluate a sympy expression on tensors.

    :param expression: made of numbers, variables, sums, products, powers, the functions of
        :class:`TorchFunctions`, and the forms of :data:`LIBRARY` by name.
    :param variables: tensors that broadcast, by the names of the symbols.
    :return: a tensor, or a float if there is no variable.
    :raises ValueError: for an unknown variable or function, and a number that is not real.

    >>> import sympy
    >>> evaluate(sympy.sin(sympy.pi * sympy.Symbol("x")), {"x": torch.tensor([0.5])})
    tensor([1.])
    """
    if expression.is_Symbol:
        if expression.name not in variables:
            raise ValueError(
                f"variables must hold {expression.name}, got {', '.join(variables) or 'none'}"
            )
        return variables[expression.name]
    if expression.is_number:
        number = complex(expression)
        if number.imag:
            raise ValueError(f"expression must be real, got {expression}")
        return number.real
    parts = [evaluate(part, variables) for part in expression.args]
    if expression.is_Add:
        return reduce(lambda total, part: total + part, parts)
    if expression.is_Mul:
        return reduce(lambda total, part: total * part, parts)
    if expression.is_Pow:
        return _power(*parts)
    name = expression.func.__name__
    if name in LIBRARY and len(parts) == 1:
        return LIBRARY[name](parts[0])
    if not hasattr(TorchFunctions, name):
        raise ValueError(f"expression must use only functions available in PyTorch, got {name}")
    return getattr(TorchFunctions, name)(*parts)


def _power(base: Any, exponent: Any) -> Any:
    """Raise to a power; exponents of ±1/2 use the exact square root functions."""
    if isinstance(exponent, float) and abs(exponent) == 0.5:
        return torch.sqrt(base) if exponent > 0 else torch.rsqrt(base)
    return base**exponent


@dataclass(frozen=True)
class _OfExpression:
    """A form's definition by a sympy expression in one variable."""

    expression: Any
    variable: str

    def __call__(self, functions: Any, u: Any) -> Any:
        if functions is TorchFunctions:
            return evaluate(self.expression, {self.variable: u})
        return self.expression.subs(functions.Symbol(self.variable), u)


@dataclass(frozen=True)
class _OfFunction:
    """A form's definition by a function of tensors; formulas show its name."""

    name: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, functions: Any, u: Any) -> Any:
        return self.function(u) if functions is TorchFunctions else functions.Function(self.name)(u)


@dataclass(frozen=True, eq=False)
class Form:
    r"""
    A function :math:`g` of one variable; edges use it in the family :math:`a\,g(bx + c) + d`.

    Its symmetries are detected numerically. If :math:`g(u + c)` is an affine function of
    :math:`g(u)`, as for ``exp``, the shift is redundant. If :math:`g(bu)` is one, as for powers,
    the scale is redundant.

    :param name: its name in formulas.
    :param definition: defines both the values on tensors and the SymPy expression: a function of a
        namespace of functions with SymPy's names, and of the argument.
    :param cost: complexity in addition to the number of free parameters.

    >>> wave = Form("wave", lambda f, u: f.exp(-u) * f.sin(u))
    >>> wave(torch.zeros(2)), wave.expression("x")
    (tensor([0., 0.]), exp(-x)*sin(x))
    """

    name: str
    definition: Definition
    cost: int = 0

    def __post_init__(self) -> None:
        _checks.text("name", self.name)
        _checks.function("definition", self.definition, "a namespace and an argument")
        _checks.whole_number("cost", self.cost, 0)

    def __call__(self, u: Tensor) -> Tensor:
        """Evaluate :math:`g` elementwise; NaN or infinite where it is undefined."""
        return self.definition(TorchFunctions, u)

    def expression(self, argument: Any = "u") -> Any:
        """
        Return the sympy expression.

        :param argument: a symbol's name or an expression.
        :raises ImportError: without ``sympy``; names the extra to install.
        """
        with needs("symbolic"):
            import sympy
        return self.definition(
            sympy, sympy.Symbol(argument) if isinstance(argument, str) else argument
        )

    def __reduce__(self) -> Any:
        if LIBRARY.get(self.name) is self:
            return as_form, (self.name,)
        return Form, (self.name, self.definition, self.cost)

    @property
    def complexity(self) -> int:
        r"""The number of free parameters of :math:`a\,g(bx + c) + d`, plus the cost."""
        if self.is_constant:
            return 1
        return 4 - self.shift_is_redundant - self.scale_is_redundant + self.cost

    @cached_property
    def is_constant(self) -> bool:
        """Whether :math:`g` is constant."""
        values = self(_TEST_POINTS)
        return bool((values == values[0]).all())

    @cached_property
    def shift_is_redundant(self) -> bool:
        """Whether :math:`g(u + c) = α g(u) + β`."""
        return all(self._is_affine_in(_TEST_POINTS + shift) for shift in (0.07, -0.19))

    @cached_property
    def scale_is_redundant(self) -> bool:
        """Whether :math:`g(bu) = α g(u) + β` for positive :math:`b`."""
        return all(self._is_affine_in(_TEST_POINTS * scale) for scale in (0.83, 0.31))

    @cached_property
    def is_even_or_odd(self) -> bool:
        """Whether :math:`g(-u) = α g(u) + β`."""
        both = _TEST_POINTS[self(-_TEST_POINTS).isfinite()]
        return bool(self(both).isfinite().any()) and self._is_affine_in(-_TEST_POINTS)

    @cached_property
    def period(self) -> float | None:
        """The period of :math:`g`, :math:`π` or :math:`2π`; None if it has neither."""
        values = self(_TEST_POINTS)
        if self.is_constant:
            return None
        for period in (math.pi, 2 * math.pi):
            if torch.allclose(self(_TEST_POINTS + period), values, rtol=1e-9, atol=1e-9):
                return period
        return None

    def _is_affine_in(self, moved: Tensor) -> bool:
        """
        Whether the values at transformed test points are an affine function of the original values.
        """
        old = self(_TEST_POINTS)
        new = self(moved)
        finite = old.isfinite() & new.isfinite()
        if int(finite.sum()) < 5:
            return False
        system = torch.stack((old[finite], torch.ones_like(old[finite])), -1)
        solution = torch.linalg.lstsq(system, new[finite].unsqueeze(-1)).solution
        error = (system @ solution).squeeze(-1) - new[finite]
        return bool(error.abs().max() <= 1e-9 * new[finite].abs().max().clamp_min(1.0))


#: not 0, where powers have a pole; of both signs, because functions may differ between them
_TEST_POINTS = torch.linspace(-0.93, 0.94, 41, dtype=torch.double)


def _sigmoid(f: Any, u: Any) -> Any:
    """
    The formula of the sigmoid; on tensors, PyTorch's function, whose gradient is always finite.
    """
    return torch.sigmoid(u) if f is TorchFunctions else 1 / (1 + f.exp(-u))


def _library(definitions: Mapping[str, Definition]) -> dict[str, Form]:
    return {name: Form(name, definition) for name, definition in definitions.items()}


#: the forms by name; add your own, or pass another library to functions that take one
LIBRARY: dict[str, Form] = _library(
    {
        "constant": lambda f, u: 0 * u,
        "linear": lambda f, u: u,
        "square": lambda f, u: u**2,
        "cube": lambda f, u: u**3,
        "quartic": lambda f, u: u**4,
        "quintic": lambda f, u: u**5,
        "inverse": lambda f, u: 1 / u,
        "inverse_square": lambda f, u: 1 / u**2,
        "inverse_cube": lambda f, u: 1 / u**3,
        "sqrt": lambda f, u: f.sqrt(u),
        "inverse_sqrt": lambda f, u: 1 / f.sqrt(u),
        "exp": lambda f, u: f.exp(u),
        "log": lambda f, u: f.log(u),
        "abs": lambda f, u: f.Abs(u),
        "sign": lambda f, u: f.sign(u),
        "sin": lambda f, u: f.sin(u),
        "cos": lambda f, u: f.cos(u),
        "tan": lambda f, u: f.tan(u),
        "tanh": lambda f, u: f.tanh(u),
        "sinh": lambda f, u: f.sinh(u),
        "cosh": lambda f, u: f.cosh(u),
        "asin": lambda f, u: f.asin(u),
        "acos": lambda f, u: f.acos(u),
        "atan": lambda f, u: f.atan(u),
        "atanh": lambda f, u: f.atanh(u),
        "gaussian": lambda f, u: f.exp(-(u**2)),
        "lorentzian": lambda f, u: 1 / (1 + u**2),
        "sigmoid": _sigmoid,
        "erf": lambda f, u: f.erf(u),
        "j0": lambda f, u: f.besselj(0, u),
        "lgamma": lambda f, u: f.loggamma(u),
    }
)

#: the ways to specify a form
FormLike = str | Form | Callable[[Tensor], Tensor] | Any


def as_form(value: FormLike, name: str | None = None) -> Form:
    """
    Return a form, given its name, a formula, a SymPy expression or a function.

    :param value: a name in :data:`LIBRARY`; text such as ``"x**2"`` or a SymPy expression, in one
        variable; an elementwise function of tensors; or a form.
    :param name: a name for it; None takes the text or the function's name.
    :raises ValueError: for text that is neither a name nor a formula, for an expression that does
        not have exactly one variable, and for a function with a name that is no identifier.
    :raises TypeError: for anything else.

    >>> as_form("x^3").name, as_form(torch.atanh).name, as_form("x*exp(-x)").complexity
    ('cube', 'atanh', 4)
    """
    if isinstance(value, Form):
        return (
            value if name in (None, value.name) else Form(str(name), value.definition, value.cost)
        )
    if isinstance(value, str):
        return _of_text(value, name)
    if hasattr(value, "free_symbols"):
        return _of_expression(value, name)
    if not callable(value):
        raise TypeError(
            "library must hold names, formulas, sympy expressions, functions or forms, got "
            f"{value!r}"
        )
    if name is not None and not name.isidentifier():
        raise ValueError(
            f"library must have names that a formula can call, such as 'f', got {name!r}"
        )
    own = str(getattr(value, "__name__", type(value).__name__))
    known = LIBRARY.get(own)
    if known is not None and getattr(TorchFunctions, own, None) is value and name in (None, own):
        return known
    return Form(name or own.strip("<>"), _OfFunction(name or own.strip("<>"), value))


def _of_text(text: str, name: str | None) -> Form:
    if text in LIBRARY:
        return as_form(LIBRARY[text], name)
    from pyro_tkam.nn.parse import parse_expression

    try:
        expression = parse_expression(text)
    except ValueError as error:
        raise ValueError(f"{_names(text)}, or a formula in one variable: {error}") from None
    if not expression.args and text not in ("x", "u"):  # an unknown name, or a number
        raise ValueError(_names(text))
    return _of_expression(expression, name or (None if _known(expression) else text))


def _names(got: object) -> str:
    return f"library must be one of {', '.join(map(repr, LIBRARY))}, got {got!r}"


def _known(expression: Any) -> Form | None:
    """Return the form of the library that equals an expression in one variable, or None."""
    [variable] = expression.free_symbols if len(expression.free_symbols) == 1 else [None]
    if variable is None:
        return None
    return next(
        (each for each in LIBRARY.values() if each.expression(variable) == expression), None
    )


def plain(expression: Any) -> Any:
    """
    Return a SymPy expression with symbols that are equal if their names are, since SymPy tells
    symbols with different assumptions apart.

    >>> import sympy
    >>> plain(sympy.Symbol("x", positive=True)) == sympy.Symbol("x")
    True
    """
    with needs("symbolic"):
        import sympy
    return expression.xreplace({s: sympy.Symbol(s.name) for s in expression.free_symbols})


def _of_expression(expression: Any, name: str | None) -> Form:
    expression = plain(expression)
    symbols = sorted(map(str, expression.free_symbols))
    if len(symbols) != 1:
        raise ValueError(f"formula must have one variable, got {expression} with {symbols}")
    known = _known(expression)
    if known is not None and name in (None, known.name):
        return known
    return Form(name or str(expression), _OfExpression(expression, symbols[0]))


#: the ways to specify a library: names, or forms by name
LibraryLike = Mapping[str, FormLike] | Sequence[FormLike]


def as_library(library: LibraryLike | None = None) -> dict[str, Form]:
    """
    Return forms by name.

    :param library: forms, each as for :func:`as_form`, or a mapping from names to them; None takes
        :data:`LIBRARY`.
    :raises ValueError: for an empty library, unknown names, different forms of the same name and
        anything that :func:`as_form` refuses.
    :raises TypeError: as :func:`as_form` does.

    >>> list(as_library(["sin", "x^2", torch.atanh]))
    ['sin', 'square', 'atanh']
    >>> list(as_library({"sinc": "sin(x)/x"}))
    ['sinc']
    """
    if library is None:
        return dict(LIBRARY)
    if isinstance(library, str) or not isinstance(library, Mapping | Sequence | set):
        raise TypeError(f"library must be a sequence or a mapping of forms, got {library!r}")
    if isinstance(library, Mapping):
        forms = [as_form(value, name) for name, value in library.items()]
    else:
        forms = [as_form(value) for value in library]
    if not forms:
        raise ValueError(
            f"library must name at least one of {', '.join(map(repr, LIBRARY))}, got {library!r}"
        )
    by_name = {form.name: form for form in forms}
    for form in forms:
        if form.definition != by_name[form.name].definition:
            raise ValueError(
                "library must have a different name for every form, as a mapping from names gives "
                f"them, got several named {form.name!r}"
            )
    return by_name
