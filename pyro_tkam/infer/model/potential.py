"""The log density of a bare potential energy, on batches of flat coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributions import Transform, transforms

from pyro_tkam.infer.model.compiled import TracedFunction
from pyro_tkam.infer.model.coordinates import Layout, SiteLayout, Unconstrained
from pyro_tkam.infer.model.evaluate import REFERENCE_SCALE
from pyro_tkam.infer.model.failures import ForRows, by_rows
from pyro_tkam.infer.model.reference import log_normal_reference
from pyro_tkam.ops.langevin import Point

Potential = Callable[[dict[str, Tensor]], Tensor]


class PotentialDensity:
    """``-potential_fn`` on positions ``(rows, dim)``; it has no prior and no likelihood.

    :param potential_fn: from unconstrained values by site to the potential energy, a scalar.
    :param prototype: unconstrained values of one chain by site, which give the shapes.
    :param given_transforms: per site, from values to unconstrained coordinates; the identity where
        it is missing.
    """

    records_graphs = True
    most_rows = None
    loops = False

    def __init__(
        self,
        potential_fn: Potential,
        prototype: Mapping[str, Tensor],
        given_transforms: Mapping[str, Transform] | None = None,
    ) -> None:
        self.potential_fn = potential_fn
        self.transforms = dict(given_transforms or {})
        sites = {name: self._site(name, value) for name, value in sorted(prototype.items())}
        self.layout = Layout(sites, (), ())
        self._prototype = self.layout.flatten(prototype)
        self._traced = TracedFunction(self._log_density_gradient)
        self._traced_value = TracedFunction(lambda each: (self._log_density(each),))

    def reference_terms(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log of ``N(0, 2²)`` and the rest of the log density, each ``(rows,)``."""
        reference = log_normal_reference(position).sum(-1)
        return reference, self._log_density(position) - reference

    def known_reference(self) -> None:
        """Return nothing: a potential is not run before."""

    @property
    def starts_normal(self) -> bool:
        """Whether the reference is ``N(0, 2²)``: it always is."""
        return True

    def from_normal(self) -> PotentialDensity:
        """Return itself."""
        return self

    def sample_reference(self, num: int) -> Tensor:
        """Draw ``num`` positions from ``N(0, 2²)``."""
        shape = (num, *self._prototype.shape)
        return REFERENCE_SCALE * torch.randn_like(self._prototype.expand(shape))

    def point(self, position: Tensor, rows: Tensor | None = None) -> Point:
        """Evaluate the log density and its gradient; ``rows`` makes no difference."""
        return Point(position, *by_rows(self._traced, position))

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """Evaluate the log density alone."""
        return torch.as_tensor(by_rows(self._traced_value, position)[0])

    def draw_start(self, num: int) -> Tensor:
        """Return the prototype, ``num`` times."""
        return self._prototype.expand(num, -1).clone()

    def constrain(self, position: Tensor) -> dict[str, Tensor]:
        """Return the sites' values ``(*lead, *shape)``."""
        coordinates = self.layout.unflatten(position)
        return {
            name: self.layout.sites[name].coordinate.value(None, value)
            for name, value in coordinates.items()
        }

    def moving_supports(self) -> list[str]:
        """Return no site: the transforms are given."""
        return []

    def improper_sites(self) -> list[str]:
        """Return all sites: nothing is known of a prior."""
        return list(self.layout.sites)

    def check_independence(self, positions: Tensor) -> None:
        """Do nothing, as there are no data."""

    def offense(self, position: Tensor) -> str:
        """Name the potential, as there are no sites to tell apart."""
        return "potential_fn is not finite"

    def _site(self, name: str, value: Tensor) -> SiteLayout:
        inverse = (
            self.transforms[name].inv if name in self.transforms else transforms.identity_transform
        )
        return SiteLayout(tuple(value.shape), value.ndim, Unconstrained(inverse))

    def _log_density(self, position: Tensor) -> Tensor:
        with ForRows():
            return torch.func.vmap(lambda each: -self.potential_fn(self.layout.unflatten(each)))(
                position
            )

    def _log_density_gradient(self, position: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            log_density = self._log_density(position)
            (gradient,) = torch.autograd.grad(log_density.sum(), position)
        return log_density.detach(), gradient
