"""
Generators: a network on standardized latents, and the Kolmogorov-Arnold generator.
"""

from typing import Any, Self

from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam._checks import instance, length, number, sizes
from pyro_tkam.models.prior import update_grids
from pyro_tkam.nn import KAN, GridUpdate
from pyro_tkam.nn._unseen import unseen_copy
from pyro_tkam.ops._arguments import floating


class LatentGenerator(PyroModule):
    """
    A network on latents that are shifted and scaled to mean 0 and variance 1, to match its grids.

    :param outer: a module from ``(*, Q)`` to ``(*, D)`` or ``(*, *data_shape)``.
    :param data_shape: shape of one datum, of ``D`` elements.
    :param mean: mean of a latent under the reference.
    :param spread: standard deviation of a latent under the reference.
    :raises ValueError: for a spread that is not positive and numbers that are not finite.

    >>> import torch
    >>> LatentGenerator(nn.Linear(5, 6), (2, 3), mean=0.5, spread=0.3)(torch.rand(7, 5)).shape
    torch.Size([7, 2, 3])
    """

    def __init__(
        self, outer: nn.Module, data_shape: tuple[int, ...], *, mean: float, spread: float
    ) -> None:
        super().__init__()
        instance("outer", outer, nn.Module, "a module that maps latents to data")
        number("mean", mean)
        length("spread", spread)
        self.data_shape = sizes("data_shape", data_shape)
        self.outer = outer
        self.mean = mean
        self.spread = spread

    def forward(self, z: Tensor) -> Tensor:
        """
        Generate data.

        :param z: latents, shape ``(*batch, Q)``; with inner indices ``(*batch, Q, P)``.
        :return: shape ``(*batch, *data_shape)``.
        """
        floating("z", z)
        arguments = self._arguments(z)
        return self.outer(arguments).reshape(*arguments.shape[:-1], *self.data_shape)

    def _arguments(self, z: Tensor) -> Tensor:
        """Return the network's inputs, shape ``(*batch, Q)``."""
        return (z - self.mean) / self.spread

    def update_grid(self, samples: Tensor, **options: Any) -> tuple[GridUpdate, ...]:
        """
        Update the grids of the network, if it has any.

        :param samples: latents, as for a call.
        :param options: as in :meth:`pyro_tkam.nn.KAN.update_grid`.
        :return: one update for each layer.
        """
        return update_grids(self.outer, self._arguments(samples), **options)

    def prune(self, samples: Tensor, threshold: float) -> Self:
        """
        Return a generator with a pruned network, if the network is a KAN.

        :param samples: latents, as for a call.
        :param threshold: smallest attribution of an edge and of a hidden node to keep, see
            :meth:`pyro_tkam.nn.KAN.prune`.
        :raises ValueError: as :meth:`pyro_tkam.nn.KAN.prune` does.
        """
        floating("samples", samples)
        number("threshold", threshold, at_least=0.0)
        pruned = unseen_copy(self)
        if isinstance(pruned.outer, KAN):
            arguments = self._arguments(samples)
            pruned.outer = pruned.outer.prune(arguments, nodes=threshold, edges=threshold)
        return pruned


class KARTGenerator(LatentGenerator):
    """
    The generator of the representation theorem, ``x̃_o = Σ_q Φ_{q,o}(Σ_p z_{q,p})``.

    See Raj 2025, arXiv:2506.14167, Eq. 7 and 10.

    The inner sums are shifted and scaled before they enter the outer functions. This does not
    change what can be represented.

    :param outer: the outer functions, a module from ``(*, Q)`` to ``(*, D)``.
    :param data_shape: shape of one datum, of ``D`` elements.
    :param mean: mean of one inner sum under the reference.
    :param spread: standard deviation of one inner sum under the reference.
    :raises ValueError: for a spread that is not positive and numbers that are not finite.

    >>> import torch
    >>> KARTGenerator(nn.Linear(5, 6), (2, 3), mean=1.0, spread=0.4)(torch.rand(7, 5, 2)).shape
    torch.Size([7, 2, 3])
    """

    def _arguments(self, z: Tensor) -> Tensor:
        """Sum the latents, shape ``(*batch, Q, P)``, over inner indices."""
        if z.dim() < 2:
            raise ValueError(f"z must have shape (*batch, Q, P), got {tuple(z.shape)}")
        return super()._arguments(z.sum(-1))
