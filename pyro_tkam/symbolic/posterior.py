"""Probabilities of forms, from posterior draws of a curve."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from pyro_tkam._progress import Progress
from pyro_tkam.nn import _checks
from pyro_tkam.nn.forms import LibraryLike, as_library
from pyro_tkam.nn.symbolic import by_simplicity, fit_forms


def form_probabilities(
    x: Tensor,
    curves: Tensor,
    *,
    library: LibraryLike | None = None,
    tolerance: float | None = None,
    disable_progbar: bool | None = None,
) -> dict[str, float]:
    r"""
    Return how probable each form of a curve is, from posterior draws of the curve.

    Each draw of the curve takes the simplest form within the tolerance of the most accurate one. A
    form's probability is its share of the draws, with a standard error of :math:`\sqrt{p(1 -
    p)/n}`. The curves can come from an edge of a Bayesian KAN or be log densities of a prior with
    random coefficients.

    :param x: arguments, shape ``(N,)``.
    :param curves: draws of the values there, shape ``(draws, N)``.
    :param library: forms, see :func:`pyro_tkam.nn.forms.as_library`; None takes
        :data:`pyro_tkam.nn.LIBRARY`.
    :param tolerance: share of the variance that a simpler form may lose; None computes it from the
        posterior: the mean share of variance by which draws differ from their mean, at least 1e-4.
    :param disable_progbar: show no progress; if None, only on a terminal.
    :raises TypeError: for what is no tensor of real numbers.
    :raises ValueError: for curves of the wrong shape or not finite, and whatever
        :func:`pyro_tkam.nn.fit_formulas` refuses.

    >>> import torch
    >>> x = torch.linspace(-1, 1, 50)
    >>> curves = torch.exp(x) * (1 + 0.1 * torch.randn(5, 1))
    >>> form_probabilities(x, curves, library=["linear", "exp", "sin"])
    {'exp': 1.0}
    """
    if disable_progbar is not None:
        _checks.flag("disable_progbar", disable_progbar)
    forms = list(as_library(library).values())
    for name, values in (("x", x), ("curves", curves)):
        _checks.dense(name, values)
        if values.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {values.dtype}")
    if x.dim() != 1 or len(x) < 5:
        raise ValueError(f"x must have shape (N,) with N >= 5, got {tuple(x.shape)}")
    if curves.dim() != 2 or len(curves) == 0 or curves.shape[1:] != x.shape:
        raise ValueError(
            f"curves must have shape (draws, {len(x)}) with at least one draw, got "
            f"{tuple(curves.shape)}"
        )
    if not bool(curves.isfinite().all()):
        raise ValueError("curves must be finite, got NaN or infinite values")
    curves = curves.detach().double()
    if tolerance is None:
        mean = curves.mean(0)
        departure = (curves - mean).var(-1, correction=0).mean() / mean.var(correction=0)
        tolerance = max(1e-4, float(departure.nan_to_num(1e-4, 1.0)))
    tolerance = _checks.number("tolerance", tolerance, above=0.0)
    firsts: Counter[str] = Counter()
    with Progress(disable_progbar) as progress:
        progress.route("forms of curves")
        for number, curve in enumerate(curves, 1):
            progress.tell(f"draw {number} of {len(curves)}")
            firsts[by_simplicity(fit_forms(x, curve, forms), tolerance)[0].name] += 1
    return {name: count / len(curves) for name, count in firsts.most_common()}
