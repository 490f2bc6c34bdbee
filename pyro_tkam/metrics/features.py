"""Feature networks: the spaces in which distances between sets of images are computed."""

import torch
from torch import Tensor, nn

from pyro_tkam.metrics.classifier import convolutions, fit_classes


class StandardizedFeatures(nn.Module):
    """
    The features of a network, shifted and scaled to mean 0 and variance 1 over some images.

    :param network: from images ``(num, channels, height, width)`` to features
        ``(num, num_features)``.
    :param images: the images, shape ``(num, channels, height, width)``, at least two of them.

    >>> images = torch.rand(50, 1, 4, 4)
    >>> features = StandardizedFeatures(nn.Flatten(), images)
    >>> features.num_features
    16
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.network = network.eval()
        with torch.no_grad():
            features = self.network(images)
        spread = features.std(0)
        self.num_features = features.shape[1]
        self.register_buffer("mean", features.mean(0))
        # A feature that is constant over the images carries nothing and stays as it is.
        self.register_buffer("scale", torch.where(spread > 0, spread, torch.ones_like(spread)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, shape ``(num, num_features)``."""
        return (self.network(images) - self.mean) / self.scale


def _as_channels(images: Tensor) -> Tensor:
    """Return images ``(num, channels, height, width)``; gray ones may come without the channel."""
    if images.dim() not in (3, 4) or len(images) < 2:
        raise ValueError(
            "images must have shape (num, height, width) or (num, channels, height, width) with at "
            f"least two images, got {tuple(images.shape)}"
        )
    return images.unsqueeze(1) if images.dim() == 3 else images


def classifier_features(
    images: Tensor, labels: Tensor, num_features: int = 32, *, epochs: int = 8, batch_size: int = 50
) -> StandardizedFeatures:
    """
    Train a small convolutional classifier and keep its last hidden layer as features.

    The features describe what separates the classes in these data. A distance in them is quick to
    compute. It can't be compared with a distance in another network's features, least of all
    Inception's.

    :param images: shape ``(num, height, width)`` or ``(num, channels, height, width)``.
    :param labels: their classes from 0, shape ``(num,)``.
    :param num_features: width of the last hidden layer; it should be well below the number of
        images that will be compared.
    :param epochs: passes over the images.
    :param batch_size: images per step.
    :raises ValueError: for other shapes.

    >>> network = classifier_features(torch.rand(40, 8, 8), torch.arange(40) % 2, 4, epochs=1)
    >>> embed(network, torch.rand(3, 8, 8)).shape
    torch.Size([3, 4])
    """
    channels = _as_channels(images)
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must hold a class for each image, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    body = convolutions(channels.shape[1], channels.shape[2], channels.shape[3], num_features)
    head = nn.Sequential(nn.ReLU(), nn.Linear(num_features, int(labels.max()) + 1))
    fit_classes(nn.Sequential(body, head).to(channels), channels, labels, epochs, batch_size, 2e-3)
    return StandardizedFeatures(body, channels)


def principal_features(images: Tensor, num_features: int = 16) -> StandardizedFeatures:
    """
    Return the leading principal components of images as features, for data without classes.

    :param images: shape ``(num, height, width)`` or ``(num, channels, height, width)``.
    :param num_features: number of components, at most the number of images and of pixels.
    :raises ValueError: for other shapes and numbers.

    >>> embed(principal_features(torch.rand(40, 8, 8), 4), torch.rand(3, 8, 8)).shape
    torch.Size([3, 4])
    """
    channels = _as_channels(images)
    flat = channels.flatten(1)
    if not 1 <= num_features <= min(flat.shape):
        raise ValueError(f"num_features must be from 1 to {min(flat.shape)}, got {num_features}")
    _, _, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    project = nn.Linear(flat.shape[1], num_features, bias=False).to(flat)
    with torch.no_grad():
        project.weight.copy_(directions[:num_features])
    return StandardizedFeatures(nn.Sequential(nn.Flatten(), project), channels)


@torch.no_grad()
def embed(network: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """
    Return the features of images in float64.

    :param network: any module from images ``(num, channels, height, width)`` to features
        ``(num, num_features)``.
    :param images: shape ``(num, height, width)`` or ``(num, channels, height, width)``.
    :param batch_size: images at a time.
    :return: shape ``(num, num_features)``.
    :raises ValueError: for other shapes.
    """
    return torch.cat([network(some) for some in _as_channels(images).split(batch_size)]).double()
