"""Roots and counts inside operators of their own."""

import subprocess
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_tkam.ops.cell_operators import _rational_guess, count_below, polynomial, solve_polynomial
from pyro_tkam.ops.inverse_cdf import icdf

OPERATORS = torch.ops.pyro_tkam


def random_polynomials(num: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Increasing polynomials of degree 6, and a value that each takes on [0, 1]."""
    local = torch.rand(7, num, dtype=dtype, generator=torch.Generator().manual_seed(0))
    u = local[0] + local[1:].sum(0) * torch.rand(
        num, dtype=dtype, generator=torch.Generator().manual_seed(1)
    )
    return u, local


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num", [1, 1000, 2**16 + 3])
def test_roots_solve_their_polynomials(num, dtype):
    u, local = random_polynomials(num, dtype)
    s = solve_polynomial(u, local)
    assert bool(((s >= 0) & (s <= 1)).all())
    powers = s.double() ** torch.arange(7).double()[:, None]
    residual = (local.double() * powers).sum(0) - u.double()
    assert (residual.abs() / local.double().sum(0)).max() < 4 * torch.finfo(dtype).eps


HARD = {
    "line": [0.0, 1.0],
    "flat at both ends": [0.0, 0.0, 3.0, -2.0],
    "flat in the middle": [0.0, 3.0, -6.0, 4.0],
    "flat at the start": [0.0, *[0.0] * 5, 1.0],
    "flat at the end": [0.0, 4.0, -6.0, 4.0, -1.0],
    "far up": [0.9, 0.01, 0.0, 0.09],
    "hardly any mass": [0.0, 1e-30, 0.0, 1e-30],
    "no mass": [0.5, 0.0, 0.0],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HARD)
def test_roots_of_hard_polynomials(name, dtype):
    local = torch.tensor(HARD[name], dtype=dtype)[:, None].expand(-1, 1001)
    u = local[0] + local[1:].sum(0) * torch.linspace(0, 1, 1001, dtype=dtype)
    s = solve_polynomial(u, local)
    assert bool(((s >= 0) & (s <= 1)).all())
    value, _ = polynomial(local.double(), s.double())
    assert bool(
        ((value - u.double()).abs() <= 4 * torch.finfo(dtype).eps * local.double().sum(0)).all()
    )


def test_the_first_guess_is_exact_for_quadratics_and_of_fourth_order_elsewhere():
    y = torch.linspace(0, 1, 101, dtype=torch.float64)

    def error(*terms: float) -> float:
        first, *_ = local = torch.tensor([0.0, *terms], dtype=torch.float64)[1:, None].expand(
            -1, 101
        )
        mass, end = local.sum(0), (local * torch.arange(1, len(terms) + 1)[:, None]).sum(0)
        s = _rational_guess(y * mass, mass, first, end)
        return float((polynomial(local, s)[0] * s - y * mass).abs().max() / mass[0])

    assert error(0.25, 0.75) < 1e-14
    assert error(1.75, -0.75) < 1e-14
    # of e^s - 1, on a cell of width 1 and on one of half of it
    assert error(1.0, 0.5, 1 / 6, 1 / 24) > 1e-5
    assert error(0.5, 0.5 / 4, 1 / 48, 1 / 384) < error(1.0, 0.5, 1 / 6, 1 / 24) / 6


@pytest.mark.parametrize("cells", [3, 64, 65, 300])
def test_counts_are_those_of_a_search(cells):
    boundaries = torch.rand(4, cells, generator=torch.Generator().manual_seed(0)).sort(-1).values
    value = torch.cat(
        [torch.rand(4, 50, generator=torch.Generator().manual_seed(1)), boundaries], 1
    )
    assert torch.equal(
        count_below(boundaries, value), (boundaries[:, None] <= value[..., None]).sum(-1)
    )


@pytest.mark.parametrize(
    ("operator", "args"),
    [
        (
            OPERATORS.count_below.default,
            (torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 0.5, 2.0]])),
        ),
        (OPERATORS.solve_polynomial.default, random_polynomials(20, torch.float64)),
        (OPERATORS.solve_polynomial.default, (torch.zeros(3, 0), torch.zeros(4, 3, 0))),
    ],
)
def test_operators_keep_the_contract_of_torch(operator, args):
    """Schema, fake tensors and tracing, by torch's own checks."""
    torch.library.opcheck(operator, args)


def test_a_traced_draw_is_short_and_exact():
    """The loops are inside the operators: a trace that unrolled them had twelve thousand steps."""
    table = torch.ones(300, 5, 2).double(), torch.linspace(0, 1, 301).double()[:, None]
    u = torch.rand(6, 10, 2, generator=torch.Generator().manual_seed(0)).double()
    draws = torch.func.vmap(lambda row: icdf(row, *table))
    graph = make_fx(draws)(u)
    targets = [node.target for node in graph.graph.nodes]
    assert (
        targets.count(OPERATORS.solve_polynomial.default)
        == targets.count(OPERATORS.count_below.default)
        == 1
    )
    assert len(targets) < 150
    assert torch.equal(graph(u / 2), draws(u / 2))


def test_the_package_may_be_imported_again():
    """
    As a notebook does that reloads what has changed; a namespace of operators can be registered
    only once.
    """
    code = """
import sys
import pyro_tkam.ops.inverse_cdf
for name in [name for name in sys.modules if name.startswith("pyro_tkam")]:
    del sys.modules[name]
import torch
from pyro_tkam.ops.inverse_cdf import icdf
print(icdf(torch.tensor([[0.25]]), torch.ones(2, 1, 1), torch.tensor([[0.0], [0.5], [1.0]])).item())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("0.25\n", "")
