"""The shortest of a few equal expressions, found in bounded time."""

import pytest
import sympy

from pyro_tkam.symbolic.shortest import shortest

X, Y, Z = sympy.symbols("x y z")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (sympy.tanh(sympy.atanh(X) + sympy.atanh(Y)), (X + Y) / (X * Y + 1)),
        (sympy.sin(sympy.pi * (X + 1)), -sympy.sin(sympy.pi * X)),
        (2 * (X + 1) - 2, 2 * X),
        (1.5 * (X + 2.0) - 3.0, 1.5 * X),
    ],
)
def test_equal_expressions_become_short(expression: sympy.Expr, expected: sympy.Expr) -> None:
    assert shortest(expression) == expected


@pytest.mark.parametrize(
    "expression",
    [
        sympy.tan(1000 * X + 3 * Y),
        sympy.sin(5000 * X),
        (((X + Y + Z + 1) ** 5 + 2 * X) ** 5 + Y) ** 5,
        (2 + 1 / (X + Y + Z) ** 25) ** 9,
        sympy.sinh(1.5 * (X + 0.5 * Y - Z) * (2.5 * X - Y + 1.5) * (Y + 3.5 * Z - X) ** 5 + X),
        sympy.tan(sum(sympy.tan(k * X + 2.2 * Y - Z + k / 3) for k in range(8))),
    ],
)
def test_what_would_grow_without_bounds_stays(expression: sympy.Expr) -> None:
    """Splitting these angles, or multiplying these powers out, takes hours."""
    assert shortest(expression) == expression
