"""
The models of Raj 2025, Sec. 4.3: a mixture or a deep prior of polynomials under a convolutional
generator.
"""

from collections.abc import Callable, Sequence

from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.models import TKAM, GaussianLikelihood, JointPrior, MixturePrior, TiltedPrior
from pyro_tkam.nn import KAN, ConvGenerator

__all__ = ["conv_deep", "conv_mixture"]

#: generators of the paper's Sec. A.5.1 by the data set's name
GENERATORS: dict[str, Callable[[int], ConvGenerator]] = {
    "svhn": ConvGenerator.svhn,
    "cifar10": ConvGenerator.cifar10,
}


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
    :raises ValueError: for an unknown name and for images of another shape than the generator's.
    """
    network = _generator(generator, latent_dim, data_shape)
    components = TiltedPrior(
        (latent_dim, num_components), reference, basis="chebyshev", degree=degree
    )
    return TKAM(
        MixturePrior(components), network, GaussianLikelihood(noise_scale, len(network.data_shape))
    )


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
    :raises ValueError: for an unknown name and for images of another shape than the generator's.
    """
    network = _generator(generator, latent_dim, data_shape)
    energy = KAN([latent_dim, *energy_widths, 1], basis="chebyshev", degree=degree, bias=False)
    prior = JointPrior(energy, latent_dim, sampler=ShortRunULA(prior_steps, prior_step_size))
    return TKAM(prior, network, GaussianLikelihood(noise_scale, len(network.data_shape)))


def _generator(name: str, latent_dim: int, data_shape: Sequence[int]) -> ConvGenerator:
    if name not in GENERATORS:
        raise ValueError(f"generator must be one of {sorted(GENERATORS)}, got {name!r}")
    network = GENERATORS[name](latent_dim)
    if tuple(data_shape) != network.data_shape:
        raise ValueError(
            f"data_shape must be {network.data_shape}, that of generator {name!r}, got "
            f"{tuple(data_shape)}"
        )
    return network
