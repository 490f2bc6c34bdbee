"""Sites whose values are angles: positions that differ by whole turns are the same."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import AffineTransform, Transform, constraints

from pyro_tkam.infer.model.site import Site, is_improper, unwrapped

_ANGLES = (dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)
"""Distributions of which every value is an angle in radians."""


class Turns(Transform):
    """Turns a number by whole turns into ``(center - period / 2, center + period / 2]``.

    :param period: a whole turn, positive.
    :param center: middle of the values.

    >>> Turns(2.0)(torch.tensor([0.5, 1.0, 1.5, -1.0]))
    tensor([ 0.5000,  1.0000, -0.5000,  1.0000])
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True  # on the circle

    def __init__(self, period: float, center: float = 0.0) -> None:
        super().__init__()
        self.period, self.center = period, center

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Turns):
            return False
        return (self.period, self.center) == (other.period, other.center)

    def __hash__(self) -> int:
        return hash((self.period, self.center))

    def _call(self, x: Tensor) -> Tensor:
        return x - self.period * torch.ceil((x - self.center) / self.period - 0.5)

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return zero."""
        return torch.zeros_like(x)


def turns_of(site: Site) -> Turns | None:
    """Return the turns of a site of angles, in radians or a multiple; None of another site.

    A site without a proper prior is none, as there is nothing to draw it from.
    """
    if is_improper(site):
        return None
    fn: Any = unwrapped(site["fn"])
    scale, center = 1.0, 0.0
    if isinstance(fn, dist.TransformedDistribution):
        for transform in fn.transforms:
            if not isinstance(transform, AffineTransform) or not _are_numbers(transform):
                return None
            center = float(transform.loc) + float(transform.scale) * center
            scale *= abs(float(transform.scale))
        fn = unwrapped(fn.base_dist)
    return Turns(2 * math.pi * scale, center) if isinstance(fn, _ANGLES) else None


def _are_numbers(transform: AffineTransform) -> bool:
    """Tell whether a transform is the same in every run."""
    return all(isinstance(each, int | float) for each in (transform.loc, transform.scale))


def around_mean(positions: Tensor, periods: Tensor | None) -> Tensor:
    """Turn angles of all draws together to where they are closest to their mean direction.

    :param positions: ``(draws, *local, dim)``.
    :param periods: a whole turn of each coordinate, infinite where it is no angle; None if none is.

    >>> draws = torch.tensor([[3.0], [-3.0]])
    >>> around_mean(draws, torch.tensor([2 * math.pi])).flatten()
    tensor([3.0000, 3.2832])
    """
    return positions if periods is None else Chart(periods).turned(positions)


class Chart:
    """Turns angles to where they are closest to the mean direction of all that it was given.

    :param periods: a whole turn of each coordinate, infinite where it is no angle.
    """

    def __init__(self, periods: Tensor) -> None:
        self.columns = periods.isfinite().nonzero().squeeze(-1)
        self.periods = periods[self.columns]
        self.resultant: Tensor | None = None

    def turned(self, position: Tensor) -> Tensor:
        """Return positions ``(rows, *rest, dim)``, the same where no angle needs a turn."""
        angle, periods = position[..., self.columns], self.periods.to(position.device)
        radians = angle.double() * (2 * math.pi / periods)
        total = torch.stack([radians.sin().sum(0), radians.cos().sum(0)])
        self.resultant = total if self.resultant is None else self.resultant + total
        center = torch.atan2(*self.resultant) * (periods / (2 * math.pi))
        turns = torch.round((angle - center) / periods)
        if not turns.any():
            return position
        turned = position.clone()
        turned[..., self.columns] = (angle - turns * periods).to(position.dtype)
        return turned
