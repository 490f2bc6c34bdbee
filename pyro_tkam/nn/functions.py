"""Univariate functions together with their tensors, as banks and layers return them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn.fixed import BoundForms
from pyro_tkam.ops.bases import BasisFunctions, Picklable
from pyro_tkam.ops.bases.regrid import quadratic


@dataclass(frozen=True, eq=False)
class BoundFunctions(Picklable):
    r"""
    Univariate functions together with their tensors, :math:`φ(s) = w_b\,\mathrm{act}(s) + w_s
    \sum_i c_i B_i(s)`, such as energies.

    Pure and picklable. If ``z`` broadcasts against ``batch_shape``, the result has the broadcast
    shape. Points shared by all functions, ``(N, 1, …, 1)``, cost ``N`` evaluations of the basis and
    one matrix product.

    :param basis: the functions :math:`B_i`.
    :param coefficients: :math:`c`, shape ``(*batch_shape, num_functions)``.
    :param scale: :math:`w_s`, broadcastable to ``batch_shape``; None means one.
    :param base_weight: :math:`w_b`, broadcastable to ``batch_shape``; None if there is no base
        function.
    :param activation: the base function.
    """

    basis: BasisFunctions
    coefficients: Tensor
    scale: Tensor | None
    base_weight: Tensor | None
    activation: Callable[[Tensor], Tensor]

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the bank."""
        return self.coefficients.shape[:-1]

    @property
    def knots(self) -> Tensor | None:
        """
        Cell edges, ascending, ``(*grid_batch, count)``; None if the functions are polynomials.
        """
        return self.basis.knots

    @property
    def nodes_per_cell(self) -> int:
        """Least number of quadrature nodes per cell."""
        return self.basis.nodes_per_cell

    @property
    def weights(self) -> Tensor:
        """
        The factors of :meth:`features`: ``w_s c`` and, if there is a base function, ``w_b``.
        """
        weights = (
            self.coefficients
            if self.scale is None
            else self.scale.unsqueeze(-1) * self.coefficients
        )
        if self.base_weight is None:
            return weights
        return torch.cat((weights, self.base_weight.expand(self.batch_shape).unsqueeze(-1)), -1)

    @property
    def magnitude(self) -> Tensor:
        """
        Absolute value of the largest weight, shape ``batch_shape``; rounding errors of the sums are
        proportional to it.
        """
        return self.weights.detach().abs().amax(-1)

    def features(self, z: Tensor) -> Tensor:
        """
        Evaluate the basis and the base function, whose weighted sums are the functions; shape
        ``(*z.shape, features)``.
        """
        values = self.basis.cast(z.dtype)(z)
        return (
            values
            if self.base_weight is None
            else torch.cat((values, self.activation(z).unsqueeze(-1)), -1)
        )

    def __call__(self, z: Tensor) -> Tensor:
        """Values of shape ``broadcast_shapes(z.shape, batch_shape)``."""
        _checks.same_dtype("z", z, self.coefficients, "the coefficients")
        _checks.broadcastable("z", z, self.batch_shape)
        total = self.basis.weighted_sum(z, self.coefficients)
        if self.scale is not None:
            total = self.scale * total
        if self.base_weight is not None:
            total = total + self.base_weight * self.activation(z)
        return total


@dataclass(frozen=True, eq=False)
class BoundEdges(BoundFunctions):
    r"""
    The edges of a layer with their tensors, a bank of shape ``(out, in)``.

    :param fixed: edges that are closed forms, where the learned functions are zero; None if there
        are none.
    """

    fixed: BoundForms | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """Values of shape ``broadcast_shapes(z.shape, (out, in))``."""
        total = super().__call__(z)
        if self.fixed is None:
            return total
        o, i = self.fixed.edges.unbind(-1)
        own = z.expand(torch.broadcast_shapes(z.shape, self.batch_shape))[..., o, i]
        return total + self.fixed.on_grid_of_edges(self.fixed(own), self.batch_shape)

    def sums(self, s: Tensor) -> Tensor:
        """
        Sum the edges over the inputs with a matrix product.

        :param s: shape ``(*, in)``.
        :returns: shape ``(*, out)``.
        """
        total = self.basis.edge_sum(s, self.coefficients)
        if self.scale is not None:
            total = total * self.scale.squeeze(-1)
        if self.base_weight is not None:
            total = total + nn.functional.linear(self.activation(s), self.base_weight)
        if self.fixed is None:
            return total
        return total.index_add(-1, self.fixed.edges[:, 0], self.fixed.of_inputs(s))

    def statistics(self, s: Tensor) -> EdgeStatistics:
        """
        Evaluate the sums together with the mean and standard deviation of every edge, all from the
        same basis values.

        :param s: shape ``(N, in)``.
        """
        features = self.features(s)
        weights = self.weights
        means = features.mean(0)
        centered = (features - means).movedim(0, 1)
        variances = quadratic(centered.mT @ centered / len(s), weights)
        sums = features.flatten(1) @ weights.permute(1, 2, 0).flatten(0, 1)
        edge_means = (weights * means).sum(-1)
        if self.fixed is not None:
            values = self.fixed.of_inputs(s)
            sums = sums.index_add(-1, self.fixed.edges[:, 0], values)
            moments = torch.stack((values.mean(0), values.var(0, correction=0)))
            of_fixed = self.fixed.on_grid_of_edges(moments, self.batch_shape)
            edge_means = edge_means + of_fixed[0]
            variances = variances + of_fixed[1]
        # Constant edges get a zero gradient instead of the infinite one of a square root.
        positive = variances > 0
        spreads = torch.where(positive, torch.where(positive, variances, 1.0).sqrt(), 0.0)
        return EdgeStatistics(sums, edge_means, spreads)


class EdgeStatistics(NamedTuple):
    """
    Statistics of the edges of a layer over samples.

    :param sums: sums of the edges over the inputs, shape ``(N, out)``.
    :param means: mean of each edge, shape ``(out, in)``.
    :param spreads: standard deviation of each edge, shape ``(out, in)``.
    """

    sums: Tensor
    means: Tensor
    spreads: Tensor
