"""A generator of images by transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn import _checks
from pyro_tkam.nn.kan import OUTPUTS


class ConvGenerator(PyroModule):
    r"""
    Transposed convolutions from a latent to an image, with leaky rectifiers between them.

    The latent is treated as an image of one pixel. Layer ``l`` maps a side of ``n`` pixels to
    :math:`(n - 1)·\mathrm{stride}_l - 2·\mathrm{padding}_l + \mathrm{kernel}_l`. :meth:`svhn` and
    :meth:`cifar10` are the networks in the paper's tables (Raj 2025, arXiv:2506.14167).

    :param latent_dim: number of latents ``Q``.
    :param channels: channels after each layer; the last number is that of the image.
    :param kernel_sizes: side length of each layer's kernel.
    :param strides: stride of each layer.
    :param paddings: padding of each layer.
    :param batch_norm: normalize hidden channels over the batch.
    :param negative_slope: slope of the rectifier below zero.
    :param output: ``"none"`` or ``"sigmoid"`` (for images in [0, 1]).
    :raises ValueError: for sequences of different lengths, sizes below one, and layers that leave
        no pixel.

    >>> import torch
    >>> ConvGenerator(5, channels=(8, 1), kernel_sizes=(4, 4), strides=(1, 2), paddings=(0,
    ...     1))(torch.rand(7, 5)).shape
    torch.Size([7, 1, 8, 8])
    """

    def __init__(
        self,
        latent_dim: int,
        channels: Sequence[int],
        kernel_sizes: Sequence[int],
        strides: Sequence[int],
        paddings: Sequence[int],
        *,
        batch_norm: bool = False,
        negative_slope: float = 0.2,
        output: str = "sigmoid",
    ) -> None:
        super().__init__()
        self.latent_dim = _checks.integer("latent_dim", latent_dim, 1)
        self._output = _checks.known("output", output, OUTPUTS)
        self.ends_in_sigmoid = output == "sigmoid"
        _checks.flag("batch_norm", batch_norm)
        negative_slope = _checks.number("negative_slope", negative_slope)
        channels = _checks.sizes("channels", channels)
        kernel_sizes = _checks.sizes("kernel_sizes", kernel_sizes)
        strides = _checks.sizes("strides", strides)
        paddings = _checks.sizes("paddings", paddings, 0)
        specs = {"kernel_sizes": kernel_sizes, "strides": strides, "paddings": paddings}
        for name, values in specs.items():
            if len(values) != len(channels) or not channels:
                raise ValueError(
                    f"{name} must hold one value for each of {len(channels)} layers, got "
                    f"{len(values)}"
                )
        self.data_shape: tuple[int, ...] = _image_shape(channels, kernel_sizes, strides, paddings)
        sizes = [self.latent_dim, *channels]
        layers: list[nn.Module] = []
        for i, options in enumerate(zip(kernel_sizes, strides, paddings, strict=True)):
            if i:
                layers += [nn.BatchNorm2d(sizes[i])] if batch_norm else []
                layers.append(nn.LeakyReLU(negative_slope))
            layers.append(nn.ConvTranspose2d(sizes[i], sizes[i + 1], *options))
        self.layers = PyroModule[nn.Sequential](*layers)

    @classmethod
    def svhn(cls, latent_dim: int, **options: bool | float | str) -> ConvGenerator:
        """
        Make the paper's network for SVHN, to images of shape ``(3, 32, 32)``.

        :param latent_dim: number of latents.
        :param options: ``batch_norm``, ``negative_slope``, ``output``.

        >>> ConvGenerator.svhn(10).data_shape
        (3, 32, 32)
        """
        shape = (512, 256, 128, 3), (4, 4, 4, 4), (1, 2, 2, 2), (0, 1, 1, 1)
        return cls(latent_dim, *shape, **options)  # type: ignore[arg-type]

    @classmethod
    def cifar10(cls, latent_dim: int, **options: bool | float | str) -> ConvGenerator:
        """
        Make the paper's network for CIFAR-10, to images of shape ``(3, 32, 32)``.

        :param latent_dim: number of latents.
        :param options: ``batch_norm``, ``negative_slope``, ``output``.

        >>> ConvGenerator.cifar10(10).data_shape
        (3, 32, 32)
        """
        shape = (1024, 512, 256, 3), (8, 4, 4, 3), (1, 2, 2, 1), (0, 1, 1, 1)
        return cls(latent_dim, *shape, **options)  # type: ignore[arg-type]

    @classmethod
    def for_images(
        cls,
        latent_dim: int,
        data_shape: Sequence[int],
        channels: int = 32,
        **options: bool | float | str,
    ) -> ConvGenerator:
        """
        Make a network for square images: a small image whose side doubles with each layer, and a
        last layer with 3 × 3 kernels.

        The first side is the side of the image, halved while it is even and above 4. Channels halve
        whenever the side doubles.

        :param latent_dim: number of latents.
        :param data_shape: ``(side, side)`` or ``(colors, side, side)``.
        :param channels: number of channels before the last layer.
        :param options: ``batch_norm``, ``negative_slope``, ``output``.
        :raises ValueError: for other shapes.

        >>> import torch
        >>> ConvGenerator.for_images(5, (28, 28), channels=4)(torch.rand(2, 5)).shape
        torch.Size([2, 28, 28])
        """
        _checks.integer("channels", channels, 1)
        shape = _checks.sizes("data_shape", data_shape)
        if len(shape) not in (2, 3) or shape[-1] != shape[-2]:
            raise ValueError(
                "data_shape must be (side, side) or (colors, side, side) for a convolutional "
                f"generator, got {shape}"
            )
        side = shape[-1]
        doublings = 0
        while side % 2 == 0 and side > 4:
            side //= 2
            doublings += 1
        hidden = [channels * 2 ** (doublings - i) for i in range(doublings + 1)]
        made = cls(
            latent_dim,
            [*hidden, shape[0] if len(shape) == 3 else 1],
            [side, *[4] * doublings, 3],
            [1, *[2] * doublings, 1],
            [0, *[1] * doublings, 1],
            **options,  # type: ignore[arg-type]
        )
        made.data_shape = shape
        return made

    def forward(self, z: Tensor) -> Tensor:
        """
        Generate images.

        :param z: latents, shape ``(*batch, Q)``.
        :returns: shape ``(*batch, *data_shape)``, here ``(channels, height, width)`` or, for one
            channel made by :meth:`for_images`, ``(height, width)``.
        """
        _checks.last_dimension("z", z, self.latent_dim)
        if not torch.is_autocast_enabled(z.device.type):
            _checks.same_dtype("z", z, self.layers[0].weight, "the weights")
        images = self.layers(z.reshape(-1, self.latent_dim, 1, 1))
        return self._output(images).reshape(*z.shape[:-1], *self.data_shape)


def _image_shape(
    channels: Sequence[int],
    kernel_sizes: Sequence[int],
    strides: Sequence[int],
    paddings: Sequence[int],
) -> tuple[int, int, int]:
    """Check sizes and return the image's shape."""
    side = 1
    for kernel, stride, padding in zip(kernel_sizes, strides, paddings, strict=True):
        _checks.integer("kernel_sizes", kernel, 1)
        _checks.integer("strides", stride, 1)
        _checks.integer("paddings", padding, 0)
        side = (side - 1) * stride - 2 * padding + kernel
        if side < 1:
            raise ValueError(
                "kernel_sizes, strides and paddings must leave at least one pixel, got layers that "
                f"leave a side of {side}"
            )
    _checks.integer("channels", min(channels), 1)
    return channels[-1], side, side
