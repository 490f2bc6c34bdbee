"""Formulas for learned functions: affinely wrapped library functions, fitted to their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._optional import needs
from pyro_tkam.nn import _checks
from pyro_tkam.nn.parse import parse_expression

#: arguments at which a function is read off, where none are given
NUM_ARGUMENTS = 200
#: scales and shifts, in units of the samples' half range, from which fits start
_SCALES = (0.3, 0.6, 1.0, 1.6, 2.5, 4.0, 6.0, 9.0)
_SHIFTS = tuple(i / 2 for i in range(-8, 9))
_STARTS = 32
_STEPS = 120


@dataclass(frozen=True)
class Form:
    r"""
    A function of the library.

    :param function: :math:`g`, elementwise on tensors.
    :param formula: its expression in ``u``, for sympy.
    :param complexity: how much it counts among candidates that fit alike, at least the number of
        free parameters of :math:`a\,g(bx + c) + d`: two where the four are redundant as for a line,
        three as for an exponential.
    """

    function: Callable[[Tensor], Tensor]
    formula: str
    complexity: int


#: library by the name that users give
FORMS: dict[str, Form] = {
    "linear": Form(lambda u: u, "u", 2),
    "square": Form(torch.square, "u**2", 3),
    "cube": Form(lambda u: u**3, "u**3", 4),
    "exp": Form(torch.exp, "exp(u)", 3),
    "log": Form(torch.log, "log(u)", 3),
    "sqrt": Form(torch.sqrt, "sqrt(u)", 3),
    "inverse": Form(torch.reciprocal, "1/u", 3),
    "sin": Form(torch.sin, "sin(u)", 4),
    "tanh": Form(torch.tanh, "tanh(u)", 4),
    "gaussian": Form(lambda u: torch.exp(-u.square()), "exp(-u**2)", 4),
    "lorentzian": Form(lambda u: 1 / (1 + u.square()), "1/(1 + u**2)", 4),
    "arctan": Form(torch.arctan, "atan(u)", 4),
    "cosh": Form(torch.cosh, "cosh(u)", 4),
}


@dataclass(frozen=True)
class Candidate:
    r"""
    A formula :math:`a\,g(bx + c) + d`.

    :param name: name of :math:`g` in the library.
    :param parameters: :math:`a, b, c, d`.
    :param r2: share of the variance that it explains, at most 1.
    :param complexity: of :math:`g`, see :class:`Form`.
    :param score: :math:`n \log(1 - R^2) + k \log n` with the complexity :math:`k` (Schwarz 1978);
        smaller is better.
    """

    name: str
    parameters: tuple[float, float, float, float]
    r2: float
    complexity: int
    score: float

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the formula elementwise."""
        a, b, c, d = self.parameters
        return a * FORMS[self.name].function(b * x + c) + d

    def expression(self, symbol: str = "x", digits: int = 4) -> Any:
        """
        Return the formula as a ``sympy`` expression.

        :param symbol: name of the variable.
        :param digits: significant digits of the parameters.
        :raises ImportError: without ``sympy``; names the extra to install.

        >>> Candidate("square", (2.0, 1.0, 0.0, 0.5), 1.0, 3, 0.0).expression()
        2.0*x**2 + 0.5
        """
        with needs("symbolic"):
            import sympy
        a, b, c, d = (
            sympy.Float(value, digits) if value else sympy.Integer(0) for value in self.parameters
        )
        inner = parse_expression(FORMS[self.name].formula).subs("u", b * sympy.Symbol(symbol) + c)
        return a * inner + d


def formula_function(formula: Any) -> Callable[[Tensor], Tensor]:
    """
    Return a formula in one variable as a function of tensors.

    :param formula: text that :func:`~pyro_tkam.nn.parse.parse_expression` reads, or an expression
        of ``sympy``.
    :raises TypeError: for anything else.
    :raises ValueError: for text that is no formula, and for more or fewer variables than one.
    :raises ImportError: without ``sympy``; names the extra to install.

    >>> formula_function("z**2 + 1")(torch.tensor([1.0, 2.0]))
    tensor([2., 5.])
    """
    with needs("symbolic"):
        import sympy
    if not isinstance(formula, str | sympy.Expr):
        raise TypeError(f"formula must be text or a sympy expression, got {formula!r}")
    expression = parse_expression(formula) if isinstance(formula, str) else formula
    symbols = sorted(expression.free_symbols, key=str)
    if len(symbols) != 1:
        raise ValueError(f"formula must have one variable, got {formula} with {symbols}")
    # Functions of torch take no numbers, such as the 2 of sqrt(2).
    numbers = {
        part: part.evalf()
        for part in sympy.preorder_traversal(expression)
        if part.is_number and not part.is_Rational
    }
    function: Callable[[Tensor], Tensor] = sympy.lambdify(
        symbols, expression.xreplace(numbers), modules=[{"Abs": torch.abs}, torch]
    )
    return function


def fit_formulas(
    x: Tensor, y: Tensor, library: Sequence[str] | None = None, num_candidates: int = 5
) -> list[Candidate]:
    r"""
    Find formulas :math:`y ≈ a\,g(bx + c) + d` by least squares, the best first.

    All starts of :math:`(b, c)` are evaluated at once, with the best :math:`a, d` in closed form;
    the most promising are refined together by Levenberg and Marquardt's method, in float64.

    :param x: arguments, shape ``(N,)``.
    :param y: values, shape ``(N,)``.
    :param library: names out of :data:`FORMS`; None takes them all.
    :param num_candidates: number of formulas to return.
    :raises ValueError: for no or unknown names, shapes that differ, fewer than five points and
        values that are not finite.

    >>> x = torch.linspace(-1, 2, 50)
    >>> [best, *_] = fit_formulas(x, 3 * torch.exp(-2 * x) + 1)
    >>> best.name, round(best.r2, 4)
    ('exp', 1.0)
    """
    names = list(FORMS) if library is None else list(library)
    if not names:
        raise ValueError(
            f"library must name at least one of {', '.join(map(repr, FORMS))}, got {library!r}"
        )
    forms = [_checks.known("library", name, FORMS) for name in names]
    num_candidates = _checks.integer("num_candidates", num_candidates, 1)
    if x.shape != y.shape or x.dim() != 1 or len(x) < 5:
        raise ValueError(
            f"x and y must have one shape (N,) with N of at least 5, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    if not bool(x.isfinite().all() & y.isfinite().all()) or bool((x == x[0]).all()):
        raise ValueError("x and y must be finite, and x must vary, got others")
    x, y = x.detach().double(), y.detach().double()
    fits = [_candidate(name, form, x, y) for name, form in zip(names, forms, strict=True)]
    return sorted(fits, key=lambda candidate: candidate.score)[:num_candidates]


def _candidate(name: str, form: Form, x: Tensor, y: Tensor) -> Candidate:
    """
    Fit one library function, in coordinates in which the data fill [-1, 1] and have variance one.
    """
    middle, half = (x.amin() + x.amax()) / 2, (x.amax() - x.amin()) / 2
    mean, spread = y.mean(), y.std(correction=0)
    unit, values = (x - middle) / half, (y - mean) / torch.where(spread > 0, spread, 1.0)
    a, b, c, d = _refine(form.function, unit, values, _starts(form.function, unit, values))
    residual = values - (a * form.function(b * unit + c) + d)
    unexplained = float(residual.square().mean()) if spread > 0 else 0.0
    parameters = (a * spread, b / half, c - b * middle / half, d * spread + mean)
    floor = max(unexplained, torch.finfo(x.dtype).eps)
    score = len(x) * math.log(floor) + form.complexity * math.log(len(x))
    return Candidate(name, tuple(map(float, parameters)), 1 - unexplained, form.complexity, score)  # type: ignore[arg-type]


def _starts(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the most promising parameters of a grid, shape ``(starts, 4)``."""
    scales, shifts = (
        torch.tensor(values, dtype=x.dtype, device=x.device) for values in (_SCALES, _SHIFTS)
    )
    b = torch.cat((scales, -scales))
    # Shifts in units of the scale put a feature of g at the same places of the data.
    c = torch.cat((shifts.expand(len(b), -1), shifts * b.abs().unsqueeze(-1)), -1)
    b, c = b.unsqueeze(-1).expand(c.shape).flatten(), c.flatten()
    g = function(b.unsqueeze(-1) * x + c.unsqueeze(-1))
    centered = g - g.mean(-1, keepdim=True)
    variance = centered.square().mean(-1)
    a = (centered * y).mean(-1) / torch.where(variance > 0, variance, 1.0)
    explained = torch.where(variance > 0, a * (centered * y).mean(-1), 0.0).nan_to_num(
        -1.0, -1.0, -1.0
    )
    best = explained.topk(min(_STARTS, len(b))).indices
    parameters = torch.stack((a, b, c, y.mean() - a * g.mean(-1)), -1)[best]
    usable = parameters.isfinite().all(-1, keepdim=True)
    # Where a function has no value at some data, no start is left but the mean.
    return torch.where(
        usable, parameters, torch.tensor([0.0, 1.0, 2.0, 0.0], dtype=x.dtype, device=x.device)
    )


def _refine(
    function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, parameters: Tensor
) -> Tensor:
    """Run Levenberg-Marquardt from all starts at once and return the best parameters, ``(4,)``."""
    damping = torch.full_like(parameters[:, 0], 1e-3)
    loss = _loss(function, x, y, parameters)
    identity = torch.eye(4, dtype=x.dtype, device=x.device)
    for _ in range(_STEPS):
        residual, jacobian = _linearized(function, x, y, parameters)
        normal = jacobian.mT @ jacobian
        scale = normal.diagonal(dim1=-2, dim2=-1).clamp_min(1e-12)
        system = normal + damping[:, None, None] * scale.unsqueeze(-1) * identity
        # A singular system gives a step that is not finite, and so not better.
        step = torch.linalg.solve_ex(system, jacobian.mT @ residual.unsqueeze(-1)).result.squeeze(
            -1
        )
        moved = parameters + step
        new_loss = _loss(function, x, y, moved)
        better = new_loss < loss
        parameters = torch.where(better.unsqueeze(-1), moved, parameters)
        loss = torch.where(better, new_loss, loss)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-12, 1e8)
    return parameters[loss.argmin()]


def _loss(function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, parameters: Tensor) -> Tensor:
    """Return the mean squared error, infinite where the function has no value."""
    a, b, c, d = parameters.unsqueeze(-1).unbind(1)
    return (y - (a * function(b * x + c) + d)).square().mean(-1).nan_to_num(torch.inf, torch.inf)


def _linearized(
    function: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, parameters: Tensor
) -> tuple[Tensor, Tensor]:
    """
    Return residuals ``(starts, N)`` and the model's derivatives in its parameters ``(starts, N,
    4)``.
    """
    a, b, c, d = parameters.unsqueeze(-1).unbind(1)
    u = b * x + c
    g, slope, *_ = torch.func.jvp(function, (u,), (torch.ones_like(u),))
    jacobian = torch.stack((g, a * slope * x, a * slope, torch.ones_like(g)), -1)
    return y - (a * g + d), jacobian
