"""Univariate functions with their tensors: what banks and layers are once their parameters are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_tkam.nn import _checks
from pyro_tkam.ops.bases import BasisFunctions, Picklable


@dataclass(frozen=True, eq=False)
class BoundFunctions(Picklable):
    r"""
    Univariate functions with their tensors,
    :math:`φ(s) = w_b\,\mathrm{act}(s) + w_s \sum_i c_i B_i(s)`: an energy.

    Pure and picklable. Called with ``z`` that broadcasts against ``batch_shape``, it returns the
    broadcast shape; points shared by all functions, ``(N, 1, …, 1)``, cost ``N`` evaluations of the
    basis and one matrix product.

    :param basis: the functions :math:`B_i`.
    :param coefficients: :math:`c`, shape ``(*batch_shape, num_functions)``.
    :param scale: :math:`w_s`, broadcastable to ``batch_shape``; None for one.
    :param base_weight: :math:`w_b`, broadcastable to ``batch_shape``; None where there is no base
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
        Cell edges, ascending, ``(*grid_batch, count)``; None where the functions are polynomials.
        """
        return self.basis.knots

    @property
    def weights(self) -> Tensor:
        """
        What multiplies :meth:`features`: ``w_s c`` and, where there is a base function, ``w_b``.
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
        Size of the largest weight, shape ``batch_shape``: sums of such terms are rounded in
        proportion to it.
        """
        return self.weights.detach().abs().amax(-1)

    def features(self, z: Tensor) -> Tensor:
        """
        Evaluate what the functions are sums of, the basis and the base function: ``(*z.shape,
        features)``.
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
