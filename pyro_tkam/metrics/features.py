"""Feature networks: the spaces in which distances between sets of images are computed."""

import torch
from torch import Tensor, nn

from pyro_tkam._checks import instance, whole_number
from pyro_tkam.metrics.checks import classes, outputs_of
from pyro_tkam.metrics.classifier import check_training, convolutions, fit_classes
from pyro_tkam.ops._arguments import dense, finite


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
        instance("network", network, nn.Module, "a module that maps images to features")
        _check_images(images, (4,))
        super().__init__()
        self.network = network.eval()
        with torch.no_grad():
            features = outputs_of("network", self.network, images)
        spread = features.std(0)
        self.num_features = features.shape[1]
        self.register_buffer("mean", features.mean(0))
        # A feature that is constant over the images carries nothing and stays as it is.
        self.register_buffer("scale", torch.where(spread > 0, spread, torch.ones_like(spread)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, shape ``(num, num_features)``."""
        finite("images", images)
        features = outputs_of("network", self.network, images)
        if features.shape[1] != self.num_features:
            raise ValueError(
                f"images must have {self.num_features} features, like those at the start, got "
                f"{features.shape[1]} from shape {tuple(images.shape)}"
            )
        return (features - self.mean) / self.scale


def _check_images(images: Tensor, dimensions: tuple[int, ...] = (3, 4)) -> None:
    dense("images", images)
    if images.dim() not in dimensions or len(images) < 2 or images.numel() == 0:
        gray = "(num, height, width) or " if 3 in dimensions else ""
        raise ValueError(
            f"images must have shape {gray}(num, channels, height, width) with at least two "
            f"images, got {tuple(images.shape)}"
        )
    finite("images", images)


def _as_channels(images: Tensor) -> Tensor:
    """Return images ``(num, channels, height, width)``; gray ones may come without the channel."""
    _check_images(images)
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
    classes(labels, images)
    num_features = whole_number("num_features", num_features, 1)
    check_training(epochs, batch_size, 2e-3)
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
    if whole_number("num_features", num_features, 1) > min(flat.shape):
        raise ValueError(f"num_features must be from 1 to {min(flat.shape)}, got {num_features}")
    values = flat.double()  # in which half precision has a decomposition, and no square overflows
    _, _, directions = torch.linalg.svd(values - values.mean(0), full_matrices=False)
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
    batches = _as_channels(images).split(whole_number("batch_size", batch_size, 1))
    return torch.cat([outputs_of("network", network, some) for some in batches]).double()
