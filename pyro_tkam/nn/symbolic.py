"""
Formulas for learned functions: forms with affine parameters, fitted to values of the functions.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._optional import needs
from pyro_tkam.nn import _checks
from pyro_tkam.nn.forms import Form, LibraryLike, as_library, evaluate, plain
from pyro_tkam.nn.parse import parse_expression

#: number of arguments at which a function is evaluated if no samples are given
NUM_ARGUMENTS = 200
#: smallest share of the variance that a form must explain to describe a function
SMALLEST_R2 = 0.99
#: largest number of points for a fit, and for the comparison of starting values
_MOST_POINTS = 2000
_SEARCH_POINTS = 400
#: highest frequency that is searched, in radians per half of the samples' range
_FASTEST = 400.0
#: starting values per form, steps for all of them, and further steps for the best one
_STARTS = 4
_FIRST_STEPS = 12
_LAST_STEPS = 40
_DAMPINGS = (1e-14, 1e5)


@dataclass(frozen=True)
class Candidate:
    r"""
    A formula :math:`a\,g(bx + c) + d`.

    Redundant parameters are 1 (a scale) or 0 (a shift); phases of waves lie in :math:`(-π, π]`.

    :param form: :math:`g`.
    :param parameters: :math:`a, b, c, d`.
    :param r2: share of the variance that the formula explains, at most 1.
    :param standard_errors: of the parameters, 0 for redundant ones. The residual of a form on a
        smooth curve is smooth, so it counts as two independent values for each of its sign changes.
        None if they were not requested.
    """

    form: Form
    parameters: tuple[float, float, float, float]
    r2: float
    standard_errors: tuple[float, float, float, float] | None = None

    @property
    def name(self) -> str:
        """The name of the form."""
        return self.form.name

    @property
    def complexity(self) -> int:
        """The complexity of the form, see :class:`~pyro_tkam.nn.forms.Form`."""
        return self.form.complexity

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate the formula elementwise."""
        a, b, c, d = self.parameters
        return a * self.form(b * x + c) + d

    def expression(self, symbol: str = "x", digits: int = 4) -> Any:
        """
        Return the formula as a ``sympy`` expression.

        :param symbol: name of the variable.
        :param digits: significant digits of the parameters.
        :raises ImportError: without ``sympy``; names the extra to install.

        >>> from pyro_tkam.nn import LIBRARY
        >>> Candidate(LIBRARY["square"], (2.0, 1.0, 0.0, 0.5), 1.0).expression()
        2.0*x**2 + 0.5
        """
        if not isinstance(symbol, str):
            raise TypeError(f"symbol must be a string, got {symbol!r}")
        _checks.integer("digits", digits, 1)
        with needs("symbolic"):
            import sympy
        a, b, c, d = (
            value if value in (0, 1) else sympy.Float(value, digits) for value in self.parameters
        )
        return a * self.form.expression(b * sympy.Symbol(symbol) + c) + d


def formula_function(formula: Any) -> Callable[[Tensor], Tensor]:
    """
    Return a formula in one variable as a function of tensors.

    :param formula: text that :func:`~pyro_tkam.nn.parse.parse_expression` reads, or an expression
        of ``sympy``.
    :raises TypeError: for anything else.
    :raises ValueError: for text that is not a formula, and unless there is exactly one variable.
    :raises ImportError: without ``sympy``; names the extra to install.

    >>> formula_function("z**2 + 1")(torch.tensor([1.0, 2.0]))
    tensor([2., 5.])
    """
    with needs("symbolic"):
        import sympy
    if not isinstance(formula, str | sympy.Expr):
        raise TypeError(f"formula must be a string or a sympy expression, got {formula!r}")
    expression = parse_expression(formula) if isinstance(formula, str) else plain(formula)
    symbols = sorted(expression.free_symbols, key=str)
    if len(symbols) != 1:
        raise ValueError(f"formula must have one variable, got {formula} with {symbols}")
    [symbol] = symbols
    return lambda z: evaluate(expression, {symbol.name: z})


def fit_formulas(
    x: Tensor,
    y: Tensor,
    library: LibraryLike | None = None,
    num_candidates: int = 5,
    *,
    tolerance: float = 1e-4,
) -> list[Candidate]:
    r"""
    Find formulas :math:`y ≈ a\,g(bx + c) + d` by least squares, best first.

    First come the simplest forms among those whose :math:`1 - R^2` exceeds that of the most
    accurate form by at most the tolerance, so that more complex forms don't fit the error of a
    spline. All others follow in order of accuracy. All starting values of :math:`(b, c)` are
    compared in one batch, with the best :math:`a, d` in closed form (variable projection, Golub and
    Pereyra 1973). The most promising starts of all forms are refined together with the
    Levenberg-Marquardt method, in float64.

    :param x: arguments, shape ``(N,)``.
    :param y: values, shape ``(N,)``.
    :param library: forms, see :func:`pyro_tkam.nn.forms.as_library`; None takes
        :data:`pyro_tkam.nn.LIBRARY`.
    :param num_candidates: number of formulas to return.
    :param tolerance: share of the variance that a simpler form may lose.
    :raises ValueError: for unknown forms or none, shapes that differ, fewer than five points, and
        values that are not finite.

    Warns if no form explains 99% of the variance.

    >>> x = torch.linspace(-1, 2, 50)
    >>> [best, *_] = fit_formulas(x, 3 * torch.exp(-2 * x) + 1)
    >>> best.name, round(best.r2, 4)
    ('exp', 1.0)
    """
    forms = as_library(library)
    num_candidates = _checks.integer("num_candidates", num_candidates, 1)
    tolerance = _checks.number("tolerance", tolerance, above=0.0)
    candidates = by_simplicity(fit_forms(x, y, list(forms.values())), tolerance)
    most = max(candidate.r2 for candidate in candidates)
    if most < SMALLEST_R2:
        warnings.warn(
            f"the best form of the library explains {100 * most:.3g}% of the variance, below "
            f"{100 * SMALLEST_R2:g}%: it does not describe this function; add forms to "
            "library=, or shorten the interval",
            stacklevel=2,
        )
    return [with_errors(candidate, x, y) for candidate in candidates[:num_candidates]]


def with_errors(candidate: Candidate, x: Tensor, y: Tensor) -> Candidate:
    """Return a candidate with standard errors of its parameters, from its residuals."""
    curve = _Curve.of(x.detach().double(), y.detach().double())
    form = candidate.form
    a, b, c, d = candidate.parameters
    unit = curve.spread or 1.0
    largest = float(curve.x.abs().max()) or 1.0
    g, slopes = values_and_slopes([(form, (b * curve.x + c).unsqueeze(0))])
    g = g.squeeze(0)
    slopes = slopes.squeeze(0) * (a / unit)
    residuals = curve.y / unit - (a / unit * g + d / unit)
    free = torch.tensor(
        [not form.is_constant, not form.scale_is_redundant, not form.shift_is_redundant, True]
    )
    columns = torch.stack((g, slopes * (curve.x / largest), slopes, torch.ones_like(g)), -1)[
        :, free
    ]
    norms = columns.norm(dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
    columns = columns / norms
    if not bool(columns.isfinite().all()):  # a parameter beyond the range of float64
        return candidate
    # Independent residuals change sign at every other value on average.
    independent = min(len(residuals), 1 + 2 * int((residuals[1:] * residuals[:-1] < 0).sum()))
    variance = residuals.square().sum() / max(independent - int(free.sum()), 1)
    covariance = torch.linalg.pinv(columns.mT @ columns, hermitian=True).diagonal()
    errors = torch.zeros(4, dtype=columns.dtype)
    errors[free] = (variance * covariance.clamp_min(0)).sqrt() / norms
    errors[[0, 3]] *= unit
    errors[1] /= largest
    return replace(candidate, standard_errors=tuple(errors.tolist()))


def by_simplicity(candidates: Sequence[Candidate], tolerance: float) -> list[Candidate]:
    """
    Order candidates: first by simplicity those within the tolerance of the most accurate, then the
    others by accuracy.
    """
    largest = max(candidate.r2 for candidate in candidates)

    def key(candidate: Candidate) -> tuple[float, float]:
        # Equivalent families, such as sine and cosine, differ only by rounding.
        missing = float(f"{max(1 - candidate.r2, 1e-12):.3g}")
        within = largest - candidate.r2 <= tolerance
        return (candidate.complexity if within else math.inf), missing

    return sorted(candidates, key=key)


def fit_forms(x: Tensor, y: Tensor, forms: Sequence[Form]) -> list[Candidate]:
    """
    Fit every form to the same values.

    :param x: arguments, shape ``(N,)``.
    :param y: values, shape ``(N,)``.
    :raises ValueError: for shapes that differ, fewer than five points and values that are not
        finite.
    """
    for name, values in (("x", x), ("y", y)):
        _checks.dense(name, values)
        if values.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
    if x.shape != y.shape or x.dim() != 1 or len(x) < 5:
        raise ValueError(
            f"x and y must have the same shape (N,) with N >= 5, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    if not bool(x.isfinite().all() & y.isfinite().all()):
        raise ValueError("x and y must be finite, got NaN or infinite values")
    curve = _Curve.of(x.detach().double(), y.detach().double())
    starts = [_starts(form, curve) for form in forms]
    few = curve.thinned(_MOST_POINTS)
    best = _refine(forms, few, _refine(forms, few, starts, _FIRST_STEPS), _LAST_STEPS)
    return [
        _candidate(form, curve, *theta.squeeze(0).tolist())
        for form, theta in zip(forms, best, strict=True)
    ]


@dataclass(frozen=True)
class _Curve:
    """
    A curve in standardized coordinates: arguments fill [-1, 1], and values have mean 0, variance 1.

    In these coordinates, sums and squares stay finite for values up to the largest float.
    """

    x: Tensor
    y: Tensor
    unit: Tensor
    values: Tensor
    middle: float
    half: float
    mean: float
    spread: float

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Curve:
        """Sort the points and transform them to these coordinates."""
        x, order = x.sort()
        y = y[order]
        middle = float(x[0] / 2 + x[-1] / 2)
        half = float(x[-1] / 2 - x[0] / 2)
        largest = float(y.abs().max()) or 1.0
        scaled = y / largest
        mean = float(scaled.mean())
        spread = float(scaled.std(correction=0))
        # A tiny spread is rounding of equal values.
        spread = spread if spread > 1e-14 else 0.0
        unit = (x - middle) / (half or 1.0)
        values = (scaled - mean) / (spread or 1.0) * (spread > 0)
        return cls(x, y, unit, values, middle, half or 1.0, mean * largest, spread * largest)

    def thinned(self, most: int) -> _Curve:
        """Keep at most ``most`` points, evenly spaced among the sorted points."""
        if len(self.x) <= most:
            return self
        kept = torch.linspace(0, len(self.x) - 1, most, device=self.x.device).round().long()
        return replace(
            self,
            x=self.x[kept],
            y=self.y[kept],
            unit=self.unit[kept],
            values=self.values[kept],
        )


def _starts(form: Form, curve: _Curve) -> Tensor:
    """Return the most promising ``(b, c)`` of a grid, at most :data:`_STARTS`, ``(starts, 2)``."""
    few = curve.thinned(_MOST_POINTS if form.period else _SEARCH_POINTS)
    b, c = _grid(form, few)
    explained = projected(form(b.unsqueeze(-1) * few.unit + c.unsqueeze(-1)), few.values).explained
    best, places = explained.max(-1)
    # Keep only local maxima: neighbors lead to the same optimum.
    beside = torch.nn.functional.pad(best, (1, 1), value=-1.0)
    peaks = torch.where((best >= beside[:-2]) & (best >= beside[2:]), best, -1.0)
    rows = peaks.topk(min(_STARTS, len(peaks))).indices
    return torch.stack((b[rows, places[rows]], c[rows, places[rows]]), -1)


def _grid(form: Form, curve: _Curve) -> tuple[Tensor, Tensor]:
    """
    Return scales and shifts in the curve's coordinates, both ``(rows, columns)``; neighboring rows
    are similar.
    """
    like = curve.unit
    signs = like.new_tensor([1.0] if form.is_even_or_odd else [1.0, -1.0])
    #: zeros of the form's argument: among the samples, and farther out
    outside = 1 + torch.logspace(-6, 1.5, 24).to(like)
    origin = like.new_tensor([-curve.middle / curve.half])
    if form.scale_is_redundant:
        between = curve.thinned(200).unit
        places = torch.cat((between, (between[1:] + between[:-1]) / 2, outside, -outside, origin))
        places = places.sort().values if not form.shift_is_redundant else places.new_zeros(1)
        b = signs.expand(len(places), -1)
        return b, -b * places.unsqueeze(-1)
    if form.shift_is_redundant:
        rates = torch.logspace(-2.0, 2.5, 60).to(like)
        b = torch.cat((-rates.flip(0), rates)).unsqueeze(-1)
        return b, torch.zeros_like(b)
    if form.period:
        fastest = min(_FASTEST, 0.5 * math.pi * len(like))
        b = torch.arange(0.25, fastest, 0.75).to(like).unsqueeze(-1)
        phases = torch.arange(4).to(like) * (form.period / 8)
        return b.expand(-1, 4), phases.expand(len(b), -1)
    scales = torch.logspace(-1.5, 1.6, 32).to(like)
    places = torch.cat((torch.linspace(-1.5, 1.5, 21).to(like), origin))
    shifts = torch.linspace(-4, 4, 9).to(like)
    b = (scales.unsqueeze(-1) * signs).unsqueeze(-1)
    c = torch.cat((-b * places, shifts.expand(*b.shape[:2], -1)), -1)
    return b.expand(c.shape).flatten(1), c.flatten(1)


@dataclass(frozen=True)
class Projection:
    """
    Regression of centered values with variance 1 on a form's values: the best factor in closed
    form.

    :param centered: the form's values minus their mean, ``(*, N)``.
    :param squares: their sum of squares.
    :param factor: the best factor.
    :param explained: share of the variance that the form explains; -1 if the form is undefined.
    """

    centered: Tensor
    squares: Tensor
    factor: Tensor
    explained: Tensor

    def replaced(self, where: Tensor, new: Projection) -> Projection:
        """Replace some entries with those of another."""
        return Projection(
            torch.where(where.unsqueeze(-1), new.centered, self.centered),
            torch.where(where, new.squares, self.squares),
            torch.where(where, new.factor, self.factor),
            torch.where(where, new.explained, self.explained),
        )


def projected(values: Tensor, target: Tensor) -> Projection:
    """Project a target onto a form's values and a constant."""
    centered = values - values.mean(-1, keepdim=True)
    squares = centered.square().sum(-1)
    # If values are nearly equal, only rounding is left after centering.
    flat = squares <= 1e-24 * values.square().sum(-1)
    products = (centered * target).sum(-1)
    safe = torch.where(flat, 1.0, squares)
    factor = torch.where(flat, 0.0, products / safe)
    explained = factor * products / target.shape[-1]
    usable = explained.isfinite() & squares.isfinite()
    return Projection(centered, safe, factor, torch.where(usable, explained, -1.0))


def _refine(
    forms: Sequence[Form], curve: _Curve, starts: Sequence[Tensor], steps: int
) -> list[Tensor]:
    """
    Run Levenberg-Marquardt on ``(b, c)`` from the starts of all forms at once; return the best
    result for each form, ``(1, 2)``.

    The factor and the constant are optimal at every step; the derivatives are those of Kaufman
    (1975).
    """
    counts = [len(part) for part in starts]
    theta = torch.cat(list(starts))
    free = torch.cat(
        [
            part.new_tensor(
                [not form.scale_is_redundant, not form.shift_is_redundant], dtype=torch.bool
            ).expand(len(part), -1)
            for form, part in zip(forms, starts, strict=True)
        ]
    )
    projection, slopes = _evaluated(forms, counts, curve, theta)
    damping = torch.full_like(theta[:, 0], 1e-3)
    for _ in range(steps):
        step = _step(curve, projection, slopes, damping, free)
        moved = theta + torch.where(step.isfinite(), step, 0.0)
        new_projection, new_slopes = _evaluated(forms, counts, curve, moved)
        better = new_projection.explained > projection.explained
        theta = torch.where(better.unsqueeze(-1), moved, theta)
        slopes = torch.where(better.unsqueeze(-1), new_slopes, slopes)
        projection = projection.replaced(better, new_projection)
        damping = torch.where(better, damping / 10, damping * 6).clamp(*_DAMPINGS)
        if bool((damping == _DAMPINGS[1]).all()):
            break
    groups = zip(theta.split(counts), projection.explained.split(counts), strict=True)
    return [part[explained.argmax()].unsqueeze(0) for part, explained in groups]


def _evaluated(
    forms: Sequence[Form], counts: list[int], curve: _Curve, theta: Tensor
) -> tuple[Projection, Tensor]:
    """
    Return the projections onto the forms at ``theta``, and the forms' slopes, ``(starts, N)``.
    """
    u = theta[:, :1] * curve.unit + theta[:, 1:]
    g, slopes = values_and_slopes(
        [(form, part) for form, part in zip(forms, u.split(counts), strict=True)]
    )
    return projected(g, curve.values), slopes


def values_and_slopes(parts: Sequence[tuple[Form, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the values and derivatives of several forms, concatenated."""
    with torch.enable_grad():
        u = torch.cat([part for _, part in parts]).detach().requires_grad_()
        sizes = [len(part) for _, part in parts]
        g = torch.cat([form(part) for (form, _), part in zip(parts, u.split(sizes), strict=True)])
        if not g.requires_grad:
            return g, torch.zeros_like(g)
        [slopes] = torch.autograd.grad(g.sum(), u)
    return g.detach(), slopes


def _step(
    curve: _Curve, projection: Projection, slopes: Tensor, damping: Tensor, free: Tensor
) -> Tensor:
    """Return the damped Gauss-Newton step of ``(b, c)``, ``(starts, 2)``."""
    g = projection.centered
    squares = projection.squares
    factor = projection.factor
    residual = curve.values - factor.unsqueeze(-1) * g
    columns = torch.stack((slopes * curve.unit, slopes), -2) * factor[:, None, None]
    columns = columns - columns.mean(-1, keepdim=True)
    along = (columns * g.unsqueeze(-2)).sum(-1, keepdim=True) / squares[:, None, None]
    columns = (columns - along * g.unsqueeze(-2)) * free.unsqueeze(-1)
    normal = columns @ columns.mT
    right = (columns * residual.unsqueeze(-2)).sum(-1)
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    tiny = torch.finfo(normal.dtype).tiny
    normal = normal + torch.diag_embed(damping.unsqueeze(-1) * diagonal + tiny)
    return torch.linalg.solve_ex(normal, right.unsqueeze(-1)).result.squeeze(-1)


def _candidate(form: Form, curve: _Curve, b: float, c: float) -> Candidate:
    """Return a fit in the samples' own coordinates, without redundant parameters."""
    scale = b / curve.half
    shift = c - b * curve.middle / curve.half
    ways = [
        _with_best_factor(form, curve, *canonical(form, scale, shift)),
        _with_best_factor(form, curve, scale, shift),
    ]
    # Without its shift, an exponential of large arguments overflows.
    simple, raw = ways
    return simple if simple.r2 >= raw.r2 - 1e-9 else raw


def canonical(form: Form, b: float, c: float) -> tuple[float, float]:
    """Return a scale and a shift for the same family of functions, without redundancy."""
    if form.scale_is_redundant:
        b, c = math.copysign(1.0, b), (c / abs(b) if b else c)
    if form.shift_is_redundant:
        c = 0.0
        b = 1.0 if form.scale_is_redundant else b
    if form.is_even_or_odd and b < 0:
        b = -b
        c = -c
    if form.period:
        c = c - form.period * math.ceil(c / form.period - 0.5)
    return b, c + 0.0


def _with_best_factor(form: Form, curve: _Curve, b: float, c: float) -> Candidate:
    """
    Return the candidate with the best factor and constant; a constant if the form is undefined.
    """
    g = form(b * curve.x + c)
    largest = float(g.abs().max())
    projection = projected(g / largest if largest > 1 else g, curve.values)
    factor = float(projection.factor) * curve.spread / max(largest, 1.0)
    offset = curve.mean - factor * float((g - g[0]).mean() + g[0])
    if float(projection.explained) < 0 or not math.isfinite(factor) or not math.isfinite(offset):
        return Candidate(form, (0.0, b, c, curve.mean), 0.0 if curve.spread else 1.0)
    if not curve.spread:
        return Candidate(form, (0.0, b, c, curve.mean), 1.0)
    error = curve.y / curve.spread - (factor / curve.spread * g + offset / curve.spread)
    unexplained = float(error.square().mean())
    return Candidate(form, (factor, b, c, offset), min(1.0, max(0.0, 1 - unexplained)))
