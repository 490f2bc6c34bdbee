"""Univariate tilted Gaussians whose coefficients differ between rows and whose cells are shared."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pyro_tkam.ops.bases import Picklable
from pyro_tkam.ops.shared_cells import PIECE, SharedCells, log_standard_normal


@dataclass(frozen=True, eq=False)
class Conditionals(Picklable):
    """
    Densities ``p(z) = exp(Σ_i c_i B_i(w)) N(w; 0, 1) / (Z scale)`` with ``w = (z - loc)/scale``,
    one for each latent and row, or mixtures of such densities.

    :param coefficients: ``c``, shape ``(*batch, Q, G)``; for mixtures ``(*batch, Q, K, G)``.
    :param log_weights: log weights of mixtures, shape ``(*batch, Q, K)``; None otherwise.
    :param loc: shape ``(*batch, Q)`` or what broadcasts to it; None is 0.
    :param scale: likewise, positive; None is 1.

    >>> Conditionals(torch.zeros(5, 3, 16)).batch_shape
    torch.Size([5, 3])
    """

    coefficients: Tensor
    log_weights: Tensor | None = None
    loc: Tensor | None = None
    scale: Tensor | None = None

    @property
    def batch_shape(self) -> torch.Size:
        """The shape ``(*batch, Q)``."""
        return self.coefficients.shape[: -1 if self.log_weights is None else -2]

    def latents(self, part: slice) -> "Conditionals":
        """Return the densities of some of the latents."""
        trailing = {"coefficients": 1 if self.log_weights is None else 2, "log_weights": 1}
        chosen = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is not None:
                after = (slice(None),) * trailing.get(entry.name, 0)
                value = value[(..., part, *after)]
            chosen[entry.name] = value
        return Conditionals(**chosen)

    def expand(self, batch_shape: torch.Size) -> "Conditionals":
        """Return the densities with a larger batch; nothing is copied."""
        old = self.batch_shape

        def larger(value: Tensor | None, trailing: torch.Size) -> Tensor | None:
            return None if value is None else value.expand(*batch_shape, *trailing)

        return Conditionals(
            self.coefficients.expand(*batch_shape, *self.coefficients.shape[len(old) :]),
            larger(self.log_weights, self.coefficients.shape[len(old) : -1]),
            larger(self.loc, torch.Size()),
            larger(self.scale, torch.Size()),
        )

    def log_prob(self, cells: SharedCells, z: Tensor) -> Tensor:
        """
        Return the log densities of values.

        :param cells: the cells of the basis.
        :param z: shape ``(*batch, Q)``, or what broadcasts with ``batch_shape``.
        """

        def log_prob(self: Conditionals, w: Tensor) -> Tensor:
            shift = -cells.log_normalizer(self.coefficients)
            functions = cells.basis(w)
            if self.log_weights is None:
                tilt = (self.coefficients * functions).sum(-1) + shift
            else:
                energies = (self.coefficients @ functions.unsqueeze(-1)).squeeze(-1)
                tilt = (energies + shift + self.log_weights).logsumexp(-1)
            return tilt + log_standard_normal(w)

        (result,) = self._in_pieces(cells, lambda *given: (log_prob(*given),), self._standard(z))
        return result if self.scale is None else result - self.scale.log()

    def tails(self, cells: SharedCells, z: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return ``F(z)`` and ``1 - F(z)``.

        :param cells: the cells of the basis.
        :param z: shape ``(*batch, Q)``.
        """

        def tails(self: Conditionals, w: Tensor) -> tuple[Tensor, ...]:
            same = self.expand(torch.broadcast_shapes(self.batch_shape, w.shape))
            return cells.tails(same.coefficients, same.log_weights, w.expand(same.batch_shape))

        below, above = self._in_pieces(cells, tails, self._standard(z))
        return below, above

    def inverse(self, cells: SharedCells, u: Tensor, upper: Tensor | None = None) -> Tensor:
        """
        Return ``F^{-1}(u)``, or ``F^{-1}(1 - u)`` where ``upper`` is true.

        :param cells: the cells of the basis.
        :param u: shape ``(*batch, Q)``.
        :param upper: shape ``(*batch, Q)``, or None.
        """

        def inverse(self: Conditionals, *given: Tensor) -> tuple[Tensor, ...]:
            same = self.expand(torch.broadcast_shapes(self.batch_shape, given[0].shape))
            u, *upper = (value.expand(same.batch_shape) for value in given)
            above = upper[0] if upper else None
            return (cells.inverse(same.coefficients, same.log_weights, u, above),)

        given = (u,) if upper is None else (u, upper.expand(u.shape))
        (w,) = self._in_pieces(cells, inverse, *given)
        scaled = w if self.scale is None else w * self.scale
        return scaled if self.loc is None else scaled + self.loc

    def quadrature_error(self, cells: SharedCells, finer: SharedCells) -> Tensor:
        """Return how much ``log Z`` changes on finer cells, shape ``batch_shape``."""

        def difference(self: Conditionals) -> tuple[Tensor, ...]:
            coarse, fine = (each.log_normalizer(self.coefficients) for each in (cells, finer))
            gap = (coarse - fine).abs()
            return (gap if self.log_weights is None else gap.amax(-1),)

        (gap,) = self._in_pieces(finer, difference)
        return gap

    def _standard(self, z: Tensor) -> Tensor:
        shifted = z if self.loc is None else z - self.loc
        return shifted if self.scale is None else shifted / self.scale

    def _in_pieces(
        self,
        cells: SharedCells,
        function: Callable[..., tuple[Tensor, ...]],
        *values: Tensor,
    ) -> list[Tensor]:
        """
        Call a function of densities and values, some rows at a time where no graph is kept, so
        that it takes no more memory than needed.
        """
        shape = torch.broadcast_shapes(self.batch_shape, *(value.shape for value in values))
        rows = max(4 * PIECE // (cells.functions.shape[1] * max(shape[-1], 1)), 1)
        if torch.is_grad_enabled() or len(shape) < 2 or shape[:-1].numel() <= rows:
            return list(function(self, *values))
        matrices = [value.expand(shape).flatten(0, -2) for value in values]
        same = len(self.batch_shape) < 2  # for all rows
        flat = self if same else self.expand(shape)._flattened()
        results = [
            function(
                self if same else flat._rows(start, rows),
                *(matrix[start : start + rows] for matrix in matrices),
            )
            for start in range(0, shape[:-1].numel(), rows)
        ]
        return [torch.cat(parts).reshape(shape) for parts in zip(*results, strict=True)]

    def _flattened(self) -> "Conditionals":
        """Join the dimensions of the batch to one."""
        lead = len(self.batch_shape) - 2
        return self._each(lambda part: part.flatten(0, lead))

    def _rows(self, start: int, count: int) -> "Conditionals":
        return self._each(lambda part: part[start : start + count])

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Conditionals":
        parts: dict[str, Any] = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        changed = {name: change(part) for name, part in parts.items() if part is not None}
        return Conditionals(**changed)
