"""
The interface of every univariate basis: values, cell edges, and weighted sums of its functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyro_tkam.ops._arguments import floating_dtype
from pyro_tkam.ops.bases.checks import check_coefficients, check_edges, check_parts


class Picklable:
    """
    Mixin: pickles and deep copies contain the values of tensors, not their history or Pyro's marks.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, tensors detached."""
        return {name: v.detach() if isinstance(v, Tensor) else v for name, v in vars(self).items()}


@dataclass(frozen=True, eq=False)
class BasisFunctions(Picklable, ABC):
    r"""
    Functions :math:`B_0, …, B_{F-1}` of one variable, with their tensors: pure, picklable,
    differentiable.

    :param grid: sorted points of shape ``(*grid_batch, M)``; ``grid_batch`` broadcasts against the
        shape of ``z``. The subclass defines their meaning: centers, knots, or the two ends of an
        interval.
    :param width: a positive 0-dimensional tensor (model: :math:`τ`), or None if the basis has no
        width.
    :param degree: the polynomial degree, or the highest frequency.
    :raises TypeError: for what is of another type.
    :raises ValueError: for a grid without points, and a degree below 0.
    """

    grid: Tensor
    width: Tensor | None
    degree: int

    #: starting value of ``width``; None where the basis has no width
    default_width: ClassVar[float | None] = 1.0
    #: ``width`` must be above this
    smallest_width: ClassVar[float] = 0.0
    #: smallest size of a grid
    smallest_grid_size: ClassVar[int] = 1
    #: least number of quadrature nodes between two knots
    nodes_per_cell: ClassVar[int] = 1
    #: whether an edge adds a base function to the sum (polynomials stand alone)
    has_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_parts(self.grid, self.width, self.degree)

    @classmethod
    @abstractmethod
    def uniform(
        cls, low: float, high: float, grid_size: int, degree: int, width: float | None
    ) -> Self:
        """Make the basis on a uniform grid over ``[low, high]``, in the default dtype."""

    def on_grid(self, grid: Tensor) -> Any:
        """Make the same functions on a grid like :attr:`grid`, with any steps."""
        return replace(self, grid=grid)

    def extended(self) -> Self:
        """
        Return the functions that networks use, which continue outside the grid: the same ones,
        unless they would end there.
        """
        return self

    def moved(self, knots: Tensor, grid_size: int) -> Any:
        """
        Make a basis of the same kind and width on other knots.

        :param knots: ascending, shape ``(*grid_batch, num_knots(grid_size))``.
        :param grid_size: as in :meth:`uniform`.
        """
        return self.on_grid(knots)

    @property
    @abstractmethod
    def placed(self) -> Tensor:
        """
        The knots that :meth:`moved` places, ascending: ``(*grid_batch, num_knots(grid_size))``.
        """

    @property
    @abstractmethod
    def grid_size(self) -> int:
        """The ``grid_size`` of :meth:`uniform`."""

    @classmethod
    @abstractmethod
    def num_knots(cls, grid_size: int) -> int:
        """The number of points that determine a grid; two if only its ends matter."""

    @property
    def has_curvature(self) -> bool:
        """Whether second derivatives are functions, so the integrals of their squares exist."""
        return True

    def cast(self, dtype: torch.dtype) -> Self:
        """Return the basis in another precision."""
        floating_dtype("dtype", dtype)
        return replace(
            self,
            grid=self.grid.to(dtype),
            width=None if self.width is None else self.width.to(dtype),
        )

    @property
    @abstractmethod
    def num_functions(self) -> int:
        """The number of functions ``F``."""

    @property
    @abstractmethod
    def knots(self) -> Tensor | None:
        """
        Where the functions are not smooth, or a grid step ends: sorted, ``(*grid_batch, C)``; None
        for polynomials.
        """

    @abstractmethod
    def __call__(self, z: Tensor) -> Tensor:
        """Values ``(*z.shape, F)`` at ``z``."""

    def start(self, noise: Tensor, low: float, high: float) -> Tensor:
        """
        Turn noise into initial coefficients: the least-squares fit to it on a uniform grid over
        ``[low, high]``.

        Directions that the functions can hardly represent are left out, so the fit does not amplify
        the noise.

        :param noise: shape ``(*batch, F)``.
        :returns: coefficients of shape ``(*batch, F)``.
        """
        points = torch.linspace(
            low, high, self.num_functions, dtype=noise.dtype, device=noise.device
        )
        return noise @ torch.linalg.pinv(self(points), rtol=1e-2).mT

    def weighted_sum(self, z: Tensor, coefficients: Tensor) -> Tensor:
        r"""
        Sum :math:`\sum_i c_i B_i(z)`, elementwise.

        Along batch dimensions in which ``z`` has size one, the basis is evaluated once and
        contracted with a matrix product. Shared points ``(N, 1, …, 1)`` therefore cost ``N``
        evaluations for any batch.

        :param z: any shape that broadcasts against ``batch``.
        :param coefficients: shape ``(*batch, F)``.
        :returns: shape ``broadcast_shapes(z.shape, batch)``.
        """
        check_coefficients(z, self.grid, coefficients, self.num_functions)
        num_batch = coefficients.dim() - 1
        z = z.reshape((1,) * (num_batch - z.dim()) + tuple(z.shape))
        # where grids differ, so do values
        z = z.expand(torch.broadcast_shapes(z.shape, self.grid.shape[:-1]))
        sizes = zip(z.shape[z.dim() - num_batch :], coefficients.shape[:-1], strict=True)
        shared = [size == 1 < wanted for size, wanted in sizes]
        if any(shared):
            return _contract_shared(self(z), coefficients, shared)
        return self.elementwise_sum(z, coefficients)

    def elementwise_sum(self, z: Tensor, coefficients: Tensor) -> Tensor:
        """Sum as in :meth:`weighted_sum` if every element of ``z`` has separate functions."""
        return (self(z) * coefficients).sum(-1)

    def edge_sum(self, s: Tensor, coefficients: Tensor) -> Tensor:
        r"""
        Sum over inputs and functions, :math:`\sum_i \sum_j c_{oij} B_j(s_i)`: one matrix product.

        Fastest if the memory of ``coefficients`` is in the order ``(in, F, out)``.

        :param s: shape ``(*, in)``.
        :param coefficients: shape ``(out, in, F)``.
        :returns: shape ``(*, out)``.
        """
        check_edges(s, coefficients, self.num_functions)
        rows = s.reshape(-1, s.shape[-1])
        weight = coefficients.permute(1, 2, 0).flatten(0, 1)
        return self.product(rows, weight).reshape(*s.shape[:-1], coefficients.shape[0])

    def product(self, s: Tensor, weight: Tensor) -> Tensor:
        """
        Multiply the values at ``s``, ``(N, in)``, with ``weight``, ``(in * F, out)``: ``(N, out)``.
        """
        return self(s).flatten(1) @ weight


def _contract_shared(values: Tensor, coefficients: Tensor, shared: list[bool]) -> Tensor:
    """
    Contract ``(*sample, *own, F)`` with ``(*batch, F)``, where ``own`` is 1 in the ``shared``
    dimensions.

    A batch of matrix products: the dimensions that are not shared are its batch.
    """
    num_batch = len(shared)
    sample = values.shape[: values.dim() - 1 - num_batch]
    kept = [i for i in range(num_batch) if not shared[i]]
    lost = [i for i in range(num_batch) if shared[i]]
    own = [values.shape[len(sample) + i] for i in kept]
    left = values.reshape(sample.numel(), *own, values.shape[-1]).movedim(0, -2)
    right = coefficients.permute(*kept, num_batch, *lost).flatten(len(kept) + 1)
    product = torch.matmul(left, right).movedim(-2, 0)
    product = product.unflatten(0, sample or (1,)).unflatten(
        -1, [coefficients.shape[i] for i in lost]
    )
    if not sample:
        product = product.squeeze(0)
    place = {i: len(sample) + position for position, i in enumerate(kept + lost)}
    return product.permute(*range(len(sample)), *(place[i] for i in range(num_batch)))
