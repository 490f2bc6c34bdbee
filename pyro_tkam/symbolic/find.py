"""From a trained network to a formula."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._optional import needs
from pyro_tkam._progress import Progress
from pyro_tkam._threads import in_turn
from pyro_tkam.nn import KAN, _checks
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.fitting import as_real
from pyro_tkam.nn.forms import LibraryLike, as_library
from pyro_tkam.nn.parse import is_variable_name
from pyro_tkam.nn.symbolic import SMALLEST_R2
from pyro_tkam.symbolic.constants import Rounding, with_waves_in_range
from pyro_tkam.symbolic.formula import Formula, FormulaEdge
from pyro_tkam.symbolic.least_squares import Data, Fit, OutOfTimeError, refitted, standard_errors
from pyro_tkam.symbolic.misfit import advice
from pyro_tkam.symbolic.network import FormulaNetwork, Place
from pyro_tkam.symbolic.search import EXACT, Search
from pyro_tkam.symbolic.shortest import shortest

_POLISHING_STEPS = 100


@in_turn
def find_formula(
    net: KAN,
    x: Tensor,
    y: Tensor | None = None,
    *,
    library: LibraryLike | None = None,
    tolerance: float = 1e-4,
    names: Sequence[str] | None = None,
    strict: bool = False,
    timeout: float | None = None,
    disable_progbar: bool | None = None,
) -> Formula:
    r"""
    Find a formula for what a network computes.

    Starting from the inputs, every edge takes the simplest form within the tolerance of its learned
    curve. Then the whole network of forms :math:`a\,g(bs + c)` is fitted to the targets with the
    Levenberg-Marquardt method in float64. After that, the search tries other forms on each edge if
    they improve the whole network, and simpler forms if they do not make it worse. Redundant
    constants are removed, phases lie in :math:`(-π, π]`, and constants are rounded to simple
    numbers only if the loss does not increase.

    :param net: a trained network; train, prune and refine it first.
    :param x: its inputs, shape ``(N, in)``.
    :param y: targets, shape ``(N, out)``; None takes the network's own outputs.
    :param library: forms, see :func:`pyro_tkam.nn.forms.as_library`; None takes
        :data:`pyro_tkam.nn.LIBRARY`.
    :param tolerance: share of the variance that a simpler formula may lose.
    :param names: of the inputs, which must be identifiers such as ``x_1``, and no keywords,
        constants or functions (``lambda``, ``pi``, ``exp``); None calls them ``x_1``, ``x_2``, ….
    :param strict: raise an error if an edge has no form, instead of keeping a spline.
    :param timeout: seconds of wall time after which the search stops. Its best result until then is
        returned with a warning, ``is_cut`` of the result is True, and edges that have not been
        looked at stay splines. What is found in a given time depends on the machine and its load.
    :param disable_progbar: show no progress; if None, only on a terminal.
    :raises ValueError: for data that have the wrong shape or are not finite; a network with layer
        norm, a ``hidden_range`` or an output activation; with ``strict``, edges without a form.
    :raises TypeError: for what is no KAN, and data that are not real numbers.
    :raises ImportError: without ``sympy``; names the extra to install.

    Warns if the search stopped before it was done. Warns if no form explains a curve, which the
    expression then holds as a function such as ``phi_0_1_0`` (layer, output, input). Warns if a
    form explains less than 99% of a learned curve, unless the formula is exact or misses only
    noise: its squared errors are not clearly larger than the network's, for the network's number
    of parameters, and errors at neighboring inputs are not alike. The warning advises to fit the
    network longer only if the network's own errors at neighboring inputs are alike.

    >>> x = torch.rand(200, 2, dtype=torch.double)
    >>> net = KAN([2, 1]).double()
    >>> fixed = net.fix({(0, 0, 0): ("exp", (2, 0, 1, 0)), (0, 0, 1): ("square", (1, 0, 3, 0))})
    >>> find_formula(fixed, x).expression
    3*x_2**2 + exp(2*x_1)
    """
    with needs("symbolic"):
        import sympy
    _checks.instance("net", net, KAN, "a KAN")
    _checks.flag("strict", strict)
    if disable_progbar is not None:
        _checks.flag("disable_progbar", disable_progbar)
    forms = list(as_library(library).values())
    tolerance = _checks.number("tolerance", tolerance, above=0.0)
    symbols = tuple(sympy.Symbol(name) for name in _names(net, names))
    deadline = math.inf
    if timeout is not None:
        deadline = time.monotonic() + _checks.number("timeout", timeout, above=0.0)
    _check_network(net)
    with torch.no_grad(), unseen(net):
        double = unseen_copy(net).double()
        data = _data(double, x, y, deadline)
        is_single = y is not None and torch.as_tensor(y).dtype != torch.float64
        exact = EXACT[torch.float32 if is_single else torch.float64]
        with Progress(disable_progbar) as progress:
            search = Search(forms, data, tolerance, exact, progress)
            fit = search.run(FormulaNetwork.of(double))
            fit, is_finished = _finished(fit, data, exact, progress)
            unexplained = tuple(edge.place for edge in fit.network.edges if edge.form is None)
            if strict and unexplained:
                raise _without_form(unexplained, timeout if search.is_cut else None)
            progress.route("expression")
            is_cut = search.is_cut or not is_finished
            formula = _formula(fit, data, double, symbols, unexplained, is_cut)
        edges = formula.edges.items()
        poor = [place for place, edge in edges if edge.r2 < SMALLEST_R2 and edge.share]
        help_ = advice(fit, double, data, tolerance) if poor and fit.loss > exact else None
    told = [_shortfall(formula, timeout)]
    if help_ is not None:
        told.append(
            f"the forms of edges {poor} explain less than {100 * SMALLEST_R2:g}% of their learned "
            f"curves, and {help_}"
        )
    for text in filter(None, told):
        warnings.warn(text, stacklevel=3)  # above the wrapper that takes turns
    return formula


def _without_form(unexplained: tuple[Place, ...], timeout: float | None) -> ValueError:
    """Say why edges have no form; the timeout is that of a search that it stopped."""
    if timeout is not None:
        return ValueError(
            f"timeout must be long enough for a form on every edge with strict=True, got {timeout}"
        )
    return ValueError(
        f"library must hold a form for every edge with strict=True, got none for {unexplained}"
    )


def _shortfall(formula: Formula, timeout: float | None) -> str | None:
    """Say what a formula lacks: time, or forms."""
    if formula.is_cut:
        return (
            f"the search stopped after timeout={timeout:g} seconds: the formula is the best found "
            "by then, and a longer search may find a better one"
        )
    if not formula.unexplained:
        return None
    curves = ", ".join(f"phi_{'_'.join(map(str, place))}" for place in formula.unexplained)
    return (
        f"no form explains {len(formula.unexplained)} of {len(formula.edges)} curves, {curves} in "
        "the expression: fit the network from another seed or with fewer nodes, prune it, or add "
        "forms to library="
    )


def _names(net: KAN, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [f"x_{column + 1}" for column in net.inputs]
    count = net.nodes[0].count
    _checks.words("names", names, "names")
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"names must be {count} distinct names, got {names!r}")
    for name in names:
        if not is_variable_name(name):
            raise ValueError(
                "names must be identifiers other than keywords, constants and functions, got "
                f"{name!r}"
            )
    return list(names)


def _check_network(net: KAN) -> None:
    plain = {"hidden_range": "none", "layer_norm": False, "output": "none"}
    for name, value in plain.items():
        if net._options[name] != value:
            raise ValueError(
                f"net must be a network with {name}={value!r}, got {name}={net._options[name]!r}"
            )


def _data(net: KAN, x: Tensor, y: Tensor | None, deadline: float) -> Data:
    like = net.layers[0].coefficients
    x = as_real("x", x, like)
    if x.dim() != 2 or x.shape[1] != net.nodes[0].count or len(x) < 5:
        raise ValueError(
            f"x must have shape (N, {net.nodes[0].count}) with N >= 5, got {tuple(x.shape)}"
        )
    y = net(x) if y is None else as_real("y", y, like)
    y = y.unsqueeze(-1) if y.dim() == 1 else y
    if y.shape != (len(x), net.nodes[-1].count):
        raise ValueError(
            f"y must have shape ({len(x)}, {net.nodes[-1].count}), got {tuple(y.shape)}"
        )
    return Data(x, y, deadline)


def _finished(fit: Fit, data: Data, exact: float, progress: Progress) -> tuple[Fit, bool]:
    """Polish the constants, round them, polish what is left; tell if the time was enough."""
    progress.route("constants")
    try:
        fit = refitted(fit.network, data, _POLISHING_STEPS)
        rounding = Rounding(Fit(with_waves_in_range(fit.network), fit.loss), data, exact, progress)
        try:
            rounding.run()
        finally:
            fit = rounding.fit
        network = with_waves_in_range(refitted(fit.network, data, _POLISHING_STEPS).network)
        return Fit(network, data.loss(network)), True
    except OutOfTimeError:
        return fit, False


def _formula(
    fit: Fit,
    data: Data,
    net: KAN,
    symbols: tuple[Any, ...],
    unexplained: tuple[Place, ...],
    is_cut: bool,
) -> Formula:
    """Collect what is known of a fit."""
    network = fit.network
    free = network.free.nonzero().flatten().tolist()
    errors = standard_errors(network, data).tolist() if free else []
    names = [_constant_name(network, index) for index in free]
    edges = _edges(network, data, net)
    fixed = {
        place: (edge.form, _affine(edge)) for place, edge in edges.items() if edge.form is not None
    }
    module = net.fix(fixed)
    with unseen(module):
        rmse = float((module(data.x) - data.y).square().mean().sqrt())
    return Formula(
        expressions=tuple(map(shortest, network.expressions(symbols))),
        symbols=symbols,
        edges=edges,
        rmse=rmse,
        constants=dict(zip(names, network.parameters[network.free].tolist(), strict=True)),
        standard_errors=dict(zip(names, errors, strict=True)),
        unexplained=unexplained,
        module=module,
        is_cut=is_cut,
    )


def _affine(edge: FormulaEdge) -> tuple[float, float, float, float]:
    a, b, c, d = edge.parameters
    return b, c, a, d


def _constant_name(network: FormulaNetwork, index: int) -> str:
    """Name a parameter by its edge, or by its sum."""
    number, which = divmod(index, 3)
    if number < len(network.edges):
        place = "_".join(map(str, network.edges[number].place))
        return f"{('factor', 'scale', 'shift')[which]}_{place}"
    index -= 3 * len(network.edges)
    layer = 0
    while index >= network.terms[layer]:
        index -= network.terms[layer]
        layer += 1
    return f"constant_{layer}_{index}"


def _edges(network: FormulaNetwork, data: Data, net: KAN) -> dict[Place, FormulaEdge]:
    """Describe every edge; the first form of a sum takes what its constant moved by."""
    inputs = network.layer_values(network.parameters.unsqueeze(-1), data.x)
    found: dict[Place, FormulaEdge] = {}
    values: dict[Place, Tensor] = {}
    for number, edge in enumerate(network.edges):
        s = inputs[edge.place[0]][:, edge.place[2]]
        own = network.parameters[3 * number : 3 * number + 3]
        values[edge.place] = edge(s, *own)
        r2 = 1.0 if edge.form is None else _r2(edge.curve(s), values[edge.place])
        a, b, c = own.tolist()
        name = "spline" if edge.form is None else edge.form.name
        found[edge.place] = FormulaEdge(name, edge.form, (a, b, c, 0.0), r2, 0.0)
    taken: set[tuple[int, int]] = set()
    for place, described in found.items():
        layer, output, _ = place
        whole = sum(float(v.var()) for p, v in values.items() if p[:2] == place[:2])
        share = float(values[place].var()) / whole if whole else 0.0
        offset = 0.0
        if described.form is not None and place[:2] not in taken:
            taken.add(place[:2])
            bias = net.layers[layer].bias
            before = 0.0 if bias is None else float(bias[output])
            offset = float(network.parameters[network.constant_index(layer, output)]) - before
        found[place] = FormulaEdge(
            described.name, described.form, (*described.parameters[:3], offset), described.r2, share
        )
    return found


def _r2(curve: Tensor, values: Tensor) -> float:
    """Share of a curve's variance that values explain up to a factor and a constant."""
    one = curve - curve.mean()
    other = values - values.mean()
    norms = one.square().sum() * other.square().sum()
    return float((one * other).sum().square() / norms) if float(norms) > 0 else 0.0
