"""Formulas: learned functions as expressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._optional import needs
from pyro_tkam.nn import KAN, Form
from pyro_tkam.ops._arguments import floating
from pyro_tkam.symbolic.network import Place


@dataclass(frozen=True)
class FormulaEdge:
    r"""
    The result for one edge of the network.

    :param name: of its form; ``"spline"`` if it has none.
    :param form: the form, or None.
    :param parameters: :math:`a, b, c, d` of :math:`a\,g(bs + c) + d`.
    :param r2: share of the learned curve's variance that the form explains.
    :param share: its share of the variance of the edges in its sum.
    """

    name: str
    form: Form | None
    parameters: tuple[float, float, float, float]
    r2: float
    share: float


@dataclass(frozen=True, eq=False)
class Formula:
    r"""
    A formula for each output of a network, from :func:`find_formula`.

    Printed, it shows numbers to six digits, and the constants with their standard errors.

    :param expressions: SymPy expressions, one for each output.
    :param symbols: of the inputs.
    :param edges: the result for each edge, by ``(layer, out, in)``.
    :param rmse: root mean squared error on the data, in their units.
    :param constants: numbers in the expressions that were fitted and not rounded, by name:
        ``factor``, ``scale`` and ``shift`` of an edge :math:`a\,g(bs + c)`, with layer, output and
        input, and ``constant`` of a sum, with layer and output, all counted from 0.
    :param standard_errors: of the constants, for independent errors of equal variance in the
        targets.
    :param unexplained: edges without a form, which appear in the expressions as functions
        ``phi_...``.
    :param module: the network with the forms on its edges, in float64.
    :param is_cut: whether the search ended at its ``timeout``.
    """

    expressions: tuple[Any, ...]
    symbols: tuple[Any, ...]
    edges: Mapping[Place, FormulaEdge]
    rmse: float
    constants: Mapping[str, float]
    standard_errors: Mapping[str, float]
    unexplained: tuple[Place, ...]
    module: KAN
    is_cut: bool = False

    @property
    def expression(self) -> Any:
        """The expression of a formula with one output."""
        if len(self.expressions) != 1:
            raise ValueError(
                f"expression must be read from a formula with one output, got "
                f"{len(self.expressions)}: use expressions"
            )
        return self.expressions[0]

    @property
    def complexity(self) -> int:
        """The number of operations of the expressions."""
        with needs("symbolic"):
            import sympy
        return sum(int(sympy.count_ops(each)) for each in self.expressions)

    def __call__(self, x: Tensor) -> Tensor:
        """
        Evaluate the formula in float64.

        :param x: inputs, shape ``(*, in)``.
        :return: outputs, shape ``(*, out)``, in the dtype of ``x``.
        :raises TypeError: for what is no tensor in floating point.
        :raises ValueError: for another shape.
        """
        floating("x", x)
        if x.shape[-1:] != (len(self.symbols),):
            raise ValueError(f"x must have shape (*, {len(self.symbols)}), got {tuple(x.shape)}")
        with torch.no_grad():
            values: Tensor = self.module(x.double())
        return values.to(x.dtype)

    def to_module(self) -> KAN:
        """
        Return the formula as a network for further training, with its constants as parameters.
        """
        from pyro_tkam.nn._unseen import unseen_copy

        return unseen_copy(self.module)

    def __str__(self) -> str:
        lines = [*map(str, self._rounded(6))]
        fitted = (
            f"{name} = {value:.5g} ± {self.standard_errors[name]:.2g}"
            for name, value in self.constants.items()
        )
        return "\n".join([*lines, *(f"  {each}" for each in fitted)])

    def latex(self) -> str:
        """Return the expressions in LaTeX, with numbers to four digits."""
        with needs("symbolic"):
            import sympy
        return r" \\ ".join(map(sympy.latex, self._rounded(4)))

    def _rounded(self, digits: int) -> list[Any]:
        with needs("symbolic"):
            import sympy
        return [
            each.xreplace({x: sympy.Float(x, digits) for x in each.atoms(sympy.Float)})
            for each in self.expressions
        ]

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {self.latex()}$"
