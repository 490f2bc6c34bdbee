"""
The models of Raj 2025, Sec. 4.3: a mixture or a deep prior of polynomials under a convolutional
generator.
"""

from collections.abc import Callable, Sequence

from pyro_tkam._checks import number, one_of, sizes, whole_number
from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.distributions.references import resolve_reference
from pyro_tkam.models import TKAM, GaussianLikelihood, JointPrior, MixturePrior, TiltedPrior
from pyro_tkam.nn import KAN, ConvGenerator

__all__ = ["conv_deep", "conv_mixture"]

#: generators of the paper's Sec. A.5.1 by the data set's name
GENERATORS: dict[str, Callable[[int], ConvGenerator]] = {
    "svhn": ConvGenerator.svhn,
    "cifar10": ConvGenerator.cifar10,
}
DATA_SHAPE = (3, 32, 32)
"""Shape of the images that they make."""


def conv_mixture(
    data_shape: Sequence[int],
    latent_dim: int = 201,
    num_components: int = 100,
    *,
    generator: str = "svhn",
    reference: str = "gaussian",
    degree: int = 3,
    noise_scale: float = 0.3,
) -> TKAM:
    """
    Make the model with a mixture of ``num_components`` tilted densities for each latent, sampled
    exactly.

    :param data_shape: shape of one image, ``(3, 32, 32)``.
    :param latent_dim: number ``Q`` of latents.
    :param num_components: number ``P`` of components per latent.
    :param generator: a name in ``GENERATORS``.
    :param reference: name of the reference density.
    :param degree: of the Chebyshev polynomials of energies.
    :param noise_scale: standard deviation of the Gaussian likelihood.
    :raises TypeError: for what is of another type.
    :raises ValueError: for an unknown name, a number out of range, and images of another shape than
        the generator's.
    """
    whole_number("num_components", num_components, 1)
    whole_number("degree", degree, 0)
    resolve_reference(reference, None, None)
    likelihood = GaussianLikelihood(noise_scale, len(DATA_SHAPE))
    network = _generator(generator, latent_dim, data_shape)
    components = TiltedPrior(
        (latent_dim, num_components), reference, basis="chebyshev", degree=degree
    )
    return TKAM(MixturePrior(components), network, likelihood)


def conv_deep(
    data_shape: Sequence[int],
    latent_dim: int = 100,
    energy_widths: Sequence[int] = (200, 200),
    *,
    generator: str = "svhn",
    degree: int = 3,
    prior_steps: int = 60,
    prior_step_size: float = 0.16,
    noise_scale: float = 0.3,
) -> TKAM:
    """
    Make the model with one joint energy of all latents and a standard normal reference, sampled by
    Langevin dynamics.

    :param data_shape: shape of one image, ``(3, 32, 32)``.
    :param latent_dim: number of latents.
    :param energy_widths: hidden widths of the energy, which has no layer norm, as in the paper's
        Tab. 6.
    :param generator: a name in ``GENERATORS``.
    :param degree: of the Chebyshev polynomials of the energy.
    :param prior_steps: Langevin steps from the reference to a draw of the prior.
    :param prior_step_size: step size ``η`` of these steps.
    :param noise_scale: standard deviation of the Gaussian likelihood.
    :raises TypeError: for what is of another type.
    :raises ValueError: for an unknown name, a number out of range, and images of another shape than
        the generator's.
    """
    hidden = sizes("energy_widths", energy_widths)
    whole_number("degree", degree, 0)
    whole_number("prior_steps", prior_steps, 1)
    number("prior_step_size", prior_step_size, 0)
    likelihood = GaussianLikelihood(noise_scale, len(DATA_SHAPE))
    network = _generator(generator, latent_dim, data_shape)
    energy = KAN([latent_dim, *hidden, 1], basis="chebyshev", degree=degree, bias=False)
    prior = JointPrior(energy, latent_dim, sampler=ShortRunULA(prior_steps, prior_step_size))
    return TKAM(prior, network, likelihood)


def _generator(name: str, latent_dim: int, data_shape: Sequence[int]) -> ConvGenerator:
    one_of("generator", name, GENERATORS)
    whole_number("latent_dim", latent_dim, 1)
    if sizes("data_shape", data_shape) != DATA_SHAPE:
        raise ValueError(
            f"data_shape must be {DATA_SHAPE}, that of generator {name!r}, got {tuple(data_shape)}"
        )
    return GENERATORS[name](latent_dim)
