"""What the presets have in common: options of their networks, and the generators by name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from pyro_tkam._checks import flag, one_of, sequence, text
from pyro_tkam._checks import options as known_options
from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.models.likelihood import GaussianLikelihood
from pyro_tkam.models.standardized import StandardizedLikelihood
from pyro_tkam.nn import KAN, ConvGenerator


@dataclass(frozen=True)
class NetworkOptions:
    """
    Options that all presets of :class:`~pyro_tkam.models.TKAM` take.

    :param degree: degree of the splines and polynomials of energies and generator; other bases
        ignore it.
    :param trainable_width: train the widths of basis functions, one for each bank of energies and
        each layer.
    :param hidden_range: how hidden features of the generator are mapped to the next grid:
        ``"none"``; or ``"sigmoid"`` or ``"affine"``, which never leave it, see
        :class:`~pyro_tkam.nn.KAN`.
    :param generator: ``"kan"``; or, for models that relax the representation theorem,
        ``"convolutional"`` (any square images) or the paper's networks ``"svhn"`` and ``"cifar10"``
        (images of shape ``(3, 32, 32)``).
    :param learned_noise: learn the noise scale, starting from ``noise_scale``.
    :param standardized: let the generator work in standardized units of the data, see
        :class:`~pyro_tkam.models.StandardizedLikelihood`; ``noise_scale`` is in these units, too.
    :param energy_constraint: constraint on the prior's energies: ``"none"``, ``"increasing"``,
        ``"decreasing"``, ``"even"`` or ``"periodic"``, see
        :class:`~pyro_tkam.nn.UnivariateFunctions`.
    :param energy_periods: number of periods of periodic energies in the prior's interval.
    :param edge_constraint: constraint on the edges of a KAN generator, with the same choices.
    :param edge_periods: number of periods of periodic edges in their grids.
    """

    degree: int = 3
    trainable_width: bool = False
    hidden_range: str = "none"
    generator: str = "kan"
    learned_noise: bool = False
    standardized: bool = False
    energy_constraint: str = "none"
    energy_periods: int = 1
    edge_constraint: str = "none"
    edge_periods: int = 1

    def __post_init__(self) -> None:
        flag("learned_noise", self.learned_noise)
        flag("standardized", self.standardized)
        text("energy_constraint", self.energy_constraint)
        text("edge_constraint", self.edge_constraint)

    @classmethod
    def checked(cls, caller: str, preset: Callable[..., Any], options: dict[str, Any]) -> Self:
        """
        Return the options that a preset was given.

        :param caller: the preset's name.
        :param preset: the preset.
        :param options: its further options.
        :raises TypeError: for an option that neither takes.
        """
        known_options(caller, options, preset, cls)
        return cls(**options)

    def energies(self) -> dict[str, Any]:
        """Return the options of the energies."""
        return self._functions(self.energy_constraint, self.energy_periods)

    def edges(self) -> dict[str, Any]:
        """Return the options of the generator's edges."""
        return self._functions(self.edge_constraint, self.edge_periods)

    def _functions(self, constraint: str, periods: int) -> dict[str, Any]:
        return {
            "degree": self.degree,
            "trainable_width": self.trainable_width,
            "constraint": constraint,
            "periods": periods,
            # Functions that fall to zero outside the grid would violate a constraint.
            "extrapolation": "zero" if constraint == "none" else "linear",
        }

    def network(
        self,
        inputs: int,
        data_shape: Sequence[int],
        *,
        widths: Sequence[int] | None,
        output: str,
        basis: str,
        grid_size: int,
        layer_norm: bool,
    ) -> nn.Module:
        """
        Make the network that maps ``inputs`` standardized latents to the elements of a datum.

        :raises ValueError: for an unknown generator, and for another generator with options that
            only a KAN has.
        """
        one_of("generator", self.generator, GENERATORS)
        if self.standardized and output != "none":
            raise ValueError(f"output must be 'none' with standardized=True, got {output!r}")
        if widths is not None:
            sequence("widths", widths, "widths")
        if self.generator == "kan":
            hidden = [2 * inputs] if widths is None else list(widths)
            return KAN(
                [inputs, *hidden, math.prod(data_shape)],
                basis,
                grid_size=grid_size,
                layer_norm=layer_norm,
                hidden_range=self.hidden_range,
                output=output,
                bias=False,
                **self.edges(),
            )
        for name, value, default in (
            ("widths", widths, None),
            ("hidden_range", self.hidden_range, "none"),
            ("edge_constraint", self.edge_constraint, "none"),
        ):
            if value != default:
                raise ValueError(
                    f"{name} must be {default!r} for generator {self.generator!r}, got {value!r}"
                )
        return GENERATORS[self.generator](inputs, data_shape, output)

    def likelihood(self, noise_scale: float, data_shape: Sequence[int]) -> GaussianLikelihood:
        """Make the Gaussian likelihood."""
        if self.standardized:
            return StandardizedLikelihood(noise_scale, data_shape, learned=self.learned_noise)
        return GaussianLikelihood(noise_scale, len(data_shape), learned=self.learned_noise)


def reference_moments(reference: str) -> tuple[float, float]:
    """Return the mean and variance of a reference density on its interval."""
    with torch.no_grad():
        plain = ExponentiallyTilted(torch.zeros_like, reference)
        return float(plain.mean), float(plain.variance)


def _published(make: Callable[..., ConvGenerator]) -> Callable[..., nn.Module]:
    def network(inputs: int, data_shape: Sequence[int], output: str) -> nn.Module:
        made = make(inputs, output=output)
        if tuple(data_shape) != made.data_shape:
            raise ValueError(
                f"data_shape must be {made.data_shape}, that of the generator, got "
                f"{tuple(data_shape)}"
            )
        return made

    return network


def _convolutional(inputs: int, data_shape: Sequence[int], output: str) -> nn.Module:
    return ConvGenerator.for_images(inputs, data_shape, output=output)


#: networks from latents to data by name
GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "kan": KAN,
    "convolutional": _convolutional,
    "svhn": _published(ConvGenerator.svhn),
    "cifar10": _published(ConvGenerator.cifar10),
}
