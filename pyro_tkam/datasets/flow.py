"""Steady flow through a random porous medium (Darcy), solved by finite differences."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_tkam._checks import file_path, instance, number, whole_number
from pyro_tkam._files import replacing
from pyro_tkam._optional import needs
from pyro_tkam.datasets.cache import cache_folder
from pyro_tkam.ops._arguments import finite, floating
from pyro_tkam.ops._points import broadcasts_to

Array = NDArray[np.float64]

#: permeability where the Gaussian field is positive, and where it is not (Li et al. 2021,
#: arXiv:2010.08895)
PERMEABILITIES = (12.0, 3.0)
_INVERSE_LENGTH = 3.0  # square root of the 9 in the covariance
_MAKER = 1  # increases when the numbers change, so that no old cache is read


class DarcyFields(NamedTuple):
    """
    Media and the pressure of the fluid in them, on grids over the unit square including its
    boundary.

    :param permeability: shape ``(num, resolution, resolution)``, dimensionless.
    :param pressure: shape ``(num, resolution, resolution)``, dimensionless; 0 on the boundary.
    """

    permeability: Tensor
    pressure: Tensor


def gaussian_fields(
    num: int, resolution: int, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""
    Draw Gaussian fields with mean 0 and covariance :math:`(-Δ + 9I)^{-2}`, zero slope at the
    boundary.

    The field is a sum of cosines, ``Σ_{jk} ξ_jk cos(πjx) cos(πky) c_j c_k / (π²(j² + k²) + 9)``,
    without the constant term and cut off at the grid's frequencies. ``c_0 = 1`` and ``c_j = √2``
    make the cosines orthonormal (Li et al. 2021, arXiv:2010.08895, Sec. A.3).

    :param num: number of fields.
    :param resolution: points per side, including the boundary.
    :param generator: source of the random numbers; None takes torch's default.
    :return: float64, shape ``(num, resolution, resolution)``.
    :raises ValueError: for numbers below one.

    >>> gaussian_fields(2, 9).shape
    torch.Size([2, 9, 9])
    """
    num = whole_number("num", num, 1)
    resolution = whole_number("resolution", resolution, 2)
    if generator is not None:
        instance("generator", generator, torch.Generator, "a torch.Generator or None")
    frequencies = torch.arange(resolution, dtype=torch.float64)
    points = torch.linspace(0, 1, resolution, dtype=torch.float64)
    cosines = torch.cos(torch.pi * points.unsqueeze(-1) * frequencies)
    cosines[:, 1:] *= 2**0.5
    squares = (torch.pi * frequencies).square()
    scale = 1 / (squares.unsqueeze(-1) + squares + _INVERSE_LENGTH**2)
    scale[0, 0] = 0
    noise = torch.randn(num, resolution, resolution, dtype=torch.float64, generator=generator)
    return cosines @ (noise * scale) @ cosines.T


def solve_darcy(permeability: Tensor, forcing: Tensor | float = 1.0) -> Tensor:
    r"""
    Solve :math:`-∇·(a ∇u) = f` on the unit square with ``u = 0`` on its boundary.

    See Raj 2025, arXiv:2506.14167, Eq. 39.

    Five-point finite volumes: the permeability of a face is the harmonic mean of those of its two
    nodes, which keeps the flux continuous across jumps. The method is second-order where ``a`` is
    smooth.

    :param permeability: ``a > 0`` at the nodes of a grid that includes the boundary, shape
        ``(num, n, n)``.
    :param forcing: ``f`` at the same nodes, or anything that broadcasts to them, such as one
        number.
    :return: the pressure ``u``, float64, of the same shape.
    :raises ValueError: for a wrong shape, fewer than three points per side, and permeabilities that
        are not positive.
    :raises ImportError: without the extra ``datasets``.

    >>> u = solve_darcy(torch.ones(1, 33, 33))
    >>> round(float(u[0, 16, 16]), 3)  # the series gives 0.0737
    0.074
    """
    floating("permeability", permeability)
    if (
        permeability.dim() != 3
        or permeability.shape[1] != permeability.shape[2]
        or permeability.shape[1] < 3
    ):
        raise ValueError(
            f"permeability must have shape (num, n, n) with n >= 3, got {tuple(permeability.shape)}"
        )
    if not bool(((permeability > 0) & torch.isfinite(permeability)).all()):
        raise ValueError("permeability must be positive and finite, got elements that are not")
    forcing = _checked_forcing(forcing, permeability)
    a = permeability.detach().double().cpu().numpy()
    f = np.broadcast_to(forcing.detach().double().cpu().numpy(), a.shape)
    pressure = np.zeros_like(a)
    for index in range(len(a)):  # a sparse solver factorizes one matrix at a time
        pressure[index, 1:-1, 1:-1] = _solve_one(a[index], f[index])
    return torch.as_tensor(pressure, device=permeability.device)


def _checked_forcing(forcing: Tensor | float, permeability: Tensor) -> Tensor:
    if not isinstance(forcing, Tensor):
        return torch.tensor(number("forcing", forcing), dtype=torch.float64)
    finite("forcing", forcing)
    if not broadcasts_to(forcing.shape, permeability.shape):
        raise ValueError(
            f"forcing must broadcast to the shape of permeability, {tuple(permeability.shape)}, "
            f"got {tuple(forcing.shape)}"
        )
    return forcing


def _solve_one(a: Array, forcing: Array) -> Array:
    with needs("datasets"):
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import spsolve
    inner = len(a) - 2
    across = _harmonic(a[:-1, 1:-1], a[1:, 1:-1])  # faces between rows, (n - 1, n - 2)
    along = _harmonic(a[1:-1, :-1], a[1:-1, 1:])  # faces between columns, (n - 2, n - 1)
    center = across[:-1] + across[1:] + along[:, :-1] + along[:, 1:]
    right = -along[:, 1:].copy()
    right[:, -1] = 0  # the last node of a row is no neighbor of the next row's first
    sideways = right.ravel()[:-1]
    down = -across[1:-1].ravel()
    matrix = diags_array(
        [down, sideways, center.ravel(), sideways, down],
        offsets=[-inner, -1, 0, 1, inner],
        format="csc",
    )
    step = 1 / (len(a) - 1)
    solution: Array = spsolve(
        matrix, step**2 * forcing[1:-1, 1:-1].ravel(), permc_spec="MMD_AT_PLUS_A"
    )
    return solution.reshape(inner, inner)


def _harmonic(first: Array, second: Array) -> Array:
    return 2 * first * second / (first + second)


def darcy(
    num: int = 1000,
    resolution: int = 32,
    *,
    refinement: int = 2,
    seed: int = 0,
    folder: Path | str | None = None,
) -> DarcyFields:
    """
    Load Darcy flows in random media of two materials. They are solved once and then read from a
    file.

    The permeability is 12 where a draw of :func:`gaussian_fields` is positive and 3 elsewhere, and
    the forcing is 1. The equation is solved on a finer grid, and every ``refinement``-th point is
    kept (Li et al. 2021, arXiv:2010.08895, who solve on 421 × 421; the data of Raj 2025,
    arXiv:2506.14167, Sec. 4.2).

    :param num: number of media.
    :param resolution: points per side, including the boundary.
    :param refinement: how many times finer the solver's grid is.
    :param seed: selects the media; the global generator is neither read nor changed.
    :param folder: where to keep the file; None takes the user's cache, see
        :func:`~pyro_tkam.datasets.cache.cache_folder`.
    :return: fields in the default dtype.
    :raises ValueError: for numbers below one and grids of fewer than three points.
    :raises ImportError: without the extra ``datasets``.
    """
    for name, value, least in (
        ("num", num, 1),
        ("resolution", resolution, 3),
        ("refinement", refinement, 1),
        ("seed", seed, 0),
    ):
        whole_number(name, value, least)
    name = f"darcy-{_MAKER}-{num}-of-{resolution}x{refinement}-seed-{seed}.npz"
    path = (cache_folder() if folder is None else file_path("folder", folder)) / name
    arrays = _read(path)
    if arrays is None:
        arrays = _make(num, resolution, refinement, seed)
        with replacing(path) as aside:
            np.savez_compressed(aside, permeability=arrays[0], pressure=arrays[1])
    dtype = torch.get_default_dtype()
    return DarcyFields(torch.as_tensor(arrays[0]).to(dtype), torch.as_tensor(arrays[1]).to(dtype))


def _make(num: int, resolution: int, refinement: int, seed: int) -> tuple[Any, Any]:
    fine = (resolution - 1) * refinement + 1
    fields = gaussian_fields(num, fine, generator=torch.Generator().manual_seed(seed))
    positive, other = PERMEABILITIES
    permeability = torch.where(fields > 0, positive, other).double()
    kept = (slice(None), slice(None, None, refinement), slice(None, None, refinement))
    return permeability[kept].numpy(), solve_darcy(permeability)[kept].numpy()


def _read(path: Path) -> tuple[Any, Any] | None:
    """Return the arrays of a cached file, or None if it is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return kept["permeability"], kept["pressure"]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return None
