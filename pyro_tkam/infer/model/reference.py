"""
The normalized density from which tempering starts: the prior, with improper parts made proper.
"""

from __future__ import annotations

import math

import torch
from pyro.distributions.util import sum_rightmost
from torch import Tensor

from pyro_tkam.infer.model.coordinates import Layout, Unconstrained, is_fixed
from pyro_tkam.infer.model.evaluate import REFERENCE_SCALE, keep_dims
from pyro_tkam.infer.model.sites import Structure, is_flat, is_plain


def log_normal_reference(position: Tensor) -> Tensor:
    """Return ``log N(0, 2²)`` of each coordinate."""
    constant = 0.5 * math.log(2 * math.pi) + math.log(REFERENCE_SCALE)
    return -0.5 * (position / REFERENCE_SCALE).square() - constant


class Reference:
    """The prior, in which sites with a flat prior have ``N(0, 2²)`` on unconstrained coordinates.

    All coordinates have ``N(0, 2²)`` if that is requested, or if a run of the model does not draw
    from the prior (scaled or partly masked latent sites, factors marked as prior, flat sites whose
    support depends on others).

    :param structure: of the model.
    :param layout: of its latent sites.
    :param prior_names: of the sites that count as prior.
    :param normal: whether all coordinates have ``N(0, 2²)``, whatever the prior is.
    """

    def __init__(
        self, structure: Structure, layout: Layout, prior_names: list[str], normal: bool = False
    ) -> None:
        self.structure = structure
        self.layout = layout
        nodes = structure.trace.nodes
        self.flat = tuple(name for name in structure.latent if is_flat(nodes[name]))
        drawn = {*structure.latent, *structure.enumerated}
        self.is_prior = (
            not normal
            and set(prior_names) <= drawn
            and all(
                is_plain(nodes[name]) or (name in self.flat and self._has_fixed_support(name))
                for name in structure.latent
            )
        )

    def _has_fixed_support(self, name: str) -> bool:
        coordinate = self.layout.sites[name].coordinate
        given = isinstance(coordinate, Unconstrained) and coordinate.given is not None
        return given or is_fixed(self.structure.trace.nodes[name]["fn"].support)

    def split(
        self, position: Tensor, log_prior: Tensor, log_likelihood: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the log reference and the rest of the log joint, each ``(rows, *local)``.

        :param position: ``(rows, *local, dim)``.
        :param log_prior: of the model there, ``(rows, *local)``.
        :param log_likelihood: of the model there.
        """
        if not self.is_prior:
            reference = log_normal_reference(position).sum(-1)
            return reference, log_prior + log_likelihood - reference
        if not self.flat:
            return log_prior, log_likelihood
        excess = torch.func.vmap(self._excess)(position)
        return log_prior + excess, log_likelihood - excess

    def _excess(self, position: Tensor) -> Tensor:
        """Return ``log N(0, 2²)`` minus the log volume of the flat sites, ``(*local)``."""
        coordinates = self.layout.unflatten(position)
        excess = position.new_zeros(self.layout.local_shape)
        for name in self.flat:
            site = self.layout.sites[name]
            fn = self.structure.trace.nodes[name]["fn"]
            assert isinstance(site.coordinate, Unconstrained)
            value = coordinates[name]
            transform = site.coordinate.transform(fn)
            log_volume = site.coordinate.log_volume({"fn": fn, "value": transform(value)}, value)
            normal = sum_rightmost(log_normal_reference(value), site.event_dim)
            excess = excess + keep_dims(
                normal - log_volume, self.layout.local_dims, self.layout.local_shape
            )
        return excess
