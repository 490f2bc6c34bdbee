"""The Darcy solver against exact solutions, and the statistics of its media."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from pyro_tkam.datasets import darcy, gaussian_fields, solve_darcy
from pyro_tkam.datasets.flow import PERMEABILITIES


def series(points, terms=199):
    """Return the exact solution of ``-Δu = 1``, zero on the boundary, by its double sine series."""
    odd = torch.arange(1, terms + 1, 2, dtype=torch.float64)
    sines = torch.sin(torch.pi * points.unsqueeze(-1) * odd)
    weights = 16 / (
        torch.pi**4 * torch.outer(odd, odd) * (odd.square().unsqueeze(-1) + odd.square())
    )
    return sines @ weights @ sines.T


def grid(num):
    points = torch.linspace(0, 1, num, dtype=torch.float64)
    return torch.meshgrid(points, points, indexing="ij")


def manufactured(num):
    """
    Return ``a = 1 + x + y²/2`` and the forcing whose solution is ``sin(πx) sin(2πy)``, with that
    solution.
    """
    x, y = grid(num)
    a = 1 + x + y.square() / 2
    pi = math.pi
    u = torch.sin(pi * x) * torch.sin(2 * pi * y)
    slope_x = pi * torch.cos(pi * x) * torch.sin(2 * pi * y)
    slope_y = 2 * pi * torch.sin(pi * x) * torch.cos(2 * pi * y)
    return a, -(slope_x + y * slope_y - 5 * pi**2 * a * u), u


def test_constant_permeability_gives_the_series():
    u = solve_darcy(torch.full((1, 65, 65), 2.0))[0]
    exact = series(torch.linspace(0, 1, 65, dtype=torch.float64)) / 2
    assert (u - exact).abs().max() < 2e-5  # the step's square times a fourth derivative
    assert u[[0, -1]].abs().max() == 0
    assert u[:, [0, -1]].abs().max() == 0


def across_a_jump(num):
    """
    Return ``a = 1`` left and ``4`` right of a face at ``x = 1/2``, a forcing, and ``u = sin(2πx)
    sin(πy) / a``.
    """
    x, y = grid(num)
    a = torch.where(x < 0.5, 1.0, 4.0).double()
    wave = torch.sin(2 * math.pi * x) * torch.sin(math.pi * y)
    return a, 5 * math.pi**2 * wave, wave / a


@pytest.mark.parametrize(
    ("problem", "sizes"), [(manufactured, (17, 33, 65)), (across_a_jump, (18, 34, 66))]
)
def test_the_error_falls_with_the_square_of_the_step(problem, sizes):
    errors = []
    for num in sizes:
        a, forcing, exact = problem(num)
        errors.append(float((solve_darcy(a.unsqueeze(0), forcing)[0] - exact).abs().max()))
    steps = [1 / (num - 1) for num in sizes]
    pairs = zip(pairwise(errors), pairwise(steps), strict=True)
    orders = [math.log(e[0] / e[1]) / math.log(h[0] / h[1]) for e, h in pairs]
    assert all(1.9 < order < 2.1 for order in orders), orders


def test_what_is_pumped_in_flows_out():
    a = torch.where(
        gaussian_fields(3, 17, generator=torch.Generator().manual_seed(1)) > 0, *PERMEABILITIES
    ).double()
    u = solve_darcy(a)
    outflow = torch.zeros(3, dtype=torch.float64)
    for turns in range(4):  # the flux through the faces beside each edge of the square
        k, p = torch.rot90(a, turns, (1, 2)), torch.rot90(u, turns, (1, 2))
        harmonic = 2 * k[:, 0] * k[:, 1] / (k[:, 0] + k[:, 1])
        outflow += (harmonic * p[:, 1])[:, 1:-1].sum(-1)
    torch.testing.assert_close(outflow, torch.full_like(outflow, (15 / 16) ** 2))


@pytest.mark.parametrize("dims", [(1,), (2,), (1, 2)])
def test_a_mirrored_medium_has_the_mirrored_pressure(dims):
    a = torch.where(
        gaussian_fields(2, 15, generator=torch.Generator().manual_seed(2)) > 0, *PERMEABILITIES
    ).double()
    torch.testing.assert_close(solve_darcy(a.flip(dims)), solve_darcy(a).flip(dims))
    torch.testing.assert_close(solve_darcy(a.mT), solve_darcy(a).mT)


def test_fields_have_their_covariance():
    """Empirical against exact; six standard errors at 5 × 5 point pairs: false alarm below 1e-7."""
    num, resolution = 4000, 9
    fields = gaussian_fields(num, resolution, generator=torch.Generator().manual_seed(0))
    frequencies = torch.arange(resolution, dtype=torch.float64)
    points = torch.linspace(0, 1, resolution, dtype=torch.float64)[::2]
    chosen = fields[:, ::2, ::2].flatten(1)
    exact = torch.zeros(25, 25, dtype=torch.float64)
    for j in frequencies:
        for k in frequencies[(0 if j else 1) :]:
            size = (2 if j else 1) * (2 if k else 1)
            mode = torch.outer(
                torch.cos(torch.pi * j * points), torch.cos(torch.pi * k * points)
            ).flatten()
            exact += size * torch.outer(mode, mode) / (torch.pi**2 * (j**2 + k**2) + 9) ** 2
    empirical = chosen.T @ chosen / num
    spread = (torch.outer(exact.diag(), exact.diag()) + exact.square()).sqrt() / num**0.5
    assert ((empirical - exact).abs() < 6 * spread).all()
    # Two points lie in one material with probability 1 - arccos(ρ)/π.
    correlation = exact[0, 6] / (exact[0, 0] * exact[6, 6]).sqrt()
    together = 1 - torch.arccos(correlation) / torch.pi
    share = ((chosen[:, 0] > 0) == (chosen[:, 6] > 0)).double().mean()
    assert (share - together).abs() < 6 * (together * (1 - together) / num).sqrt()


def test_darcy_is_made_once_and_then_read(tmp_path, monkeypatch):
    before = torch.get_rng_state()
    first = darcy(4, 9, folder=tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert first.permeability.shape == first.pressure.shape == (4, 9, 9)
    assert set(first.permeability.unique().tolist()) == set(PERMEABILITIES)
    assert first.pressure.dtype == torch.get_default_dtype()
    assert (first.pressure[:, 1:-1, 1:-1] > 0).all()
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr("pyro_tkam.datasets.flow._make", None)  # a second solution would fail
    assert torch.equal(darcy(4, 9, folder=tmp_path).pressure, first.pressure)
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:100])  # a cut file is made again
    assert torch.equal(darcy(4, 9, folder=tmp_path).pressure, first.pressure)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert not torch.equal(darcy(4, 9, seed=1, folder=tmp_path).pressure, first.pressure)


def test_the_cache_is_where_the_user_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    darcy(1, 5)
    assert len(list((tmp_path / "pyro-tkam").iterdir())) == 1


def test_a_finer_solver_changes_little(tmp_path):
    smooth = solve_darcy(torch.ones(1, 65, 65))[:, ::4, ::4]
    np.testing.assert_allclose(solve_darcy(torch.ones(1, 17, 17)), smooth, atol=5e-4)
    # The same media, of which other points are kept.
    many, few = (
        darcy(3, 33, refinement=2, folder=tmp_path),
        darcy(3, 17, refinement=4, folder=tmp_path),
    )
    assert torch.equal(many.pressure[:, ::2, ::2], few.pressure)
    assert torch.equal(many.permeability[:, ::2, ::2], few.permeability)


def moments(pressure):
    """
    Return each medium's mean pressure and its standard deviation over the square, shape ``(num,
    2)``.
    """
    return torch.stack([pressure.mean((1, 2)), pressure.flatten(1).std(1)], -1)


def test_random_media_have_the_same_pressures_at_every_resolution():
    """
    The same 40 media on 65, 33 and 17 points a side: pressures at common points within four
    standard errors of 1 %.

    Jumps lie between nodes, so the error is of first order: measured 0.3 % and 0.6 % of the mean.
    """
    fields = gaussian_fields(40, 65, generator=torch.Generator().manual_seed(0))
    media = torch.where(fields > 0, *PERMEABILITIES).double()
    finest = moments(solve_darcy(media)[:, ::4, ::4])
    for step in (2, 4):
        coarse = moments(solve_darcy(media[:, ::step, ::step])[:, :: 4 // step, :: 4 // step])
        change = (coarse - finest) / finest.mean(0)
        assert (change.mean(0).abs() < 0.01 + 4 * change.std(0) / 40**0.5).all()
        assert (change.std(0) / 40**0.5 < 0.004).all()  # or the line above would say nothing


def test_refinement_keeps_the_statistics_of_the_data_set(tmp_path):
    """
    Other media, as the solver's grid is another one: five standard errors beside 1 %, false alarm
    below 1e-5.
    """
    coarse, fine = (
        moments(darcy(80, 17, refinement=k, folder=tmp_path).pressure.double()) for k in (1, 2)
    )
    error = ((coarse.var(0) + fine.var(0)) / 80).sqrt()
    difference = (coarse.mean(0) - fine.mean(0)).abs()
    assert (difference < 5 * error + 0.01 * fine.mean(0)).all()
    assert (error < 0.03 * fine.mean(0)).all()


@pytest.mark.parametrize("resolution", [9, 17, 33])
def test_half_of_a_medium_is_the_permeable_material(resolution):
    """
    A field and its negative are as likely, so that each material has 1/2: within five standard
    errors.
    """
    num = 2000
    fields = gaussian_fields(num, resolution, generator=torch.Generator().manual_seed(3))
    share = (fields > 0).double().mean((1, 2))
    error = share.std() / num**0.5
    assert error < 0.004
    assert (share.mean() - 0.5).abs() < 5 * error


def test_a_data_set_has_half_of_each_material(tmp_path):
    """As above, of 500 media as they are loaded; a threshold at another value than 0 would fail."""
    share = (
        (darcy(500, 9, refinement=1, folder=tmp_path).permeability == PERMEABILITIES[0])
        .double()
        .mean((1, 2))
    )
    assert (share.mean() - 0.5).abs() < 5 * share.std() / 500**0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve_darcy(torch.ones(5, 5)), r"permeability must have shape.*, got \(5, 5\)"),
        (
            lambda: solve_darcy(torch.ones(1, 2, 2)),
            r"permeability must have shape.*, got \(1, 2, 2\)",
        ),
        (
            lambda: solve_darcy(torch.zeros(1, 5, 5)),
            "permeability must be positive and finite, got elements that are not",
        ),
        (lambda: darcy(0), r"num must be .*, got 0"),
        (lambda: darcy(1, 2), "resolution must be an integer of at least 3, got 2"),
        (
            lambda: darcy(1, 5, refinement=0),
            "refinement must be an integer of at least 1, got 0",
        ),
    ],
    ids=["rank", "points", "zero", "num", "resolution", "refinement"],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
