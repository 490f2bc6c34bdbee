"""Do samples look like one class? A small classifier trained on the real data decides."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_tkam._checks import length, share, whole_number
from pyro_tkam.metrics.checks import classes, outputs_of
from pyro_tkam.ops._arguments import dense, finite


@dataclass(frozen=True)
class ClassShares:
    """
    A classifier's results on images.

    :param confident: share of the images for which it gives one class a probability above the
        threshold.
    :param confident_by_class: the same for each class; sums to ``confident``.
    :param by_class: for each class, the share of the images for which it is the most probable
        class; sums to 1.
    """

    confident: float
    confident_by_class: tuple[float, ...]
    by_class: tuple[float, ...]

    @property
    def every_class(self) -> bool:
        """Whether every class appears among the confident images."""
        return min(self.confident_by_class) > 0


class Committee(nn.Module):
    """
    Average the probabilities of several classifiers, because a single one may never be sure of some
    class.

    :param members: modules to logits.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the log of the mean probability, shape ``(num, classes)``."""
        votes = torch.stack([member(images).log_softmax(-1) for member in self.members])
        return votes.logsumexp(0) - math.log(len(votes))


def convolutions(channels: int, height: int, width: int, out_features: int) -> nn.Sequential:
    """
    Return a small network from images ``(num, channels, height, width)`` to ``(num,
    out_features)``.
    """
    quarter = -(-height // 4) * -(-width // 4)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * quarter, out_features),
    )


def train_classifier(
    images: Tensor,
    labels: Tensor,
    *,
    members: int = 3,
    epochs: int = 8,
    batch_size: int = 50,
    learning_rate: float = 2e-3,
) -> nn.Module:
    """
    Train a committee of small convolutional classifiers with Adam on the cross entropy.

    :param images: gray images, shape ``(num, height, width)``, of at least 8 × 8.
    :param labels: their classes from 0, an int64 tensor of shape ``(num,)``.
    :param members: number of classifiers, each with its own initialization and order of the images.
    :param epochs: passes over the images.
    :param batch_size: images per step.
    :param learning_rate: step size.
    :return: a module in evaluation mode, from images ``(num, 1, height, width)`` to log
        probabilities ``(num, classes)``.
    :raises TypeError: for what is no tensor of numbers, and other dtypes.
    :raises ValueError: for other shapes, NaN and infinities, and numbers below one.

    >>> images, labels = torch.rand(20, 8, 8), torch.arange(20) % 2
    >>> train_classifier(images, labels, epochs=1)(images.unsqueeze(1)).shape
    torch.Size([20, 2])
    """
    dense("images", images)
    if images.dim() != 3 or len(images) == 0 or min(images.shape[1:]) < 8:
        raise ValueError(
            "images must have shape (num, height, width) with at least 8 × 8 pixels, got "
            f"{tuple(images.shape)}"
        )
    finite("images", images)
    classes(labels, images)
    members = whole_number("members", members, 1)
    check_training(epochs, batch_size, learning_rate)
    num_classes = int(labels.max()) + 1
    networks = [
        convolutions(1, images.shape[1], images.shape[2], num_classes).to(images)
        for _ in range(members)
    ]
    for network in networks:
        fit_classes(network, images.unsqueeze(1), labels, epochs, batch_size, learning_rate)
    return Committee(networks).eval()


def check_training(epochs: int, batch_size: int, learning_rate: float) -> None:
    """
    Refuse numbers with which :func:`fit_classes` can't train.

    :param epochs: at least 1.
    :param batch_size: at least 1.
    :param learning_rate: positive.
    :raises ValueError: for other numbers.
    """
    whole_number("epochs", epochs, 1)
    whole_number("batch_size", batch_size, 1)
    length("learning_rate", learning_rate)


def fit_classes(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """
    Train a network to predict logits with Adam on the cross entropy, in a new order of the images
    every epoch.
    """
    steps = epochs * -(-len(images) // batch_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), device=images.device).split(batch_size):
            loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def class_shares(classifier: nn.Module, images: Tensor, *, threshold: float = 0.9) -> ClassShares:
    """
    Count the images for which a classifier is confident of one class.

    :param classifier: from images ``(num, 1, height, width)`` to logits ``(num, classes)``.
    :param images: shape ``(num, height, width)``.
    :param threshold: probability above which it counts as confident.
    :raises TypeError: for what is no tensor of numbers, and no classifier.
    :raises ValueError: for no images, and images that the classifier does not take.
    """
    share("threshold", threshold)
    dense("images", images)
    if images.dim() != 3 or images.numel() == 0:
        raise ValueError(
            f"images must have shape (num, height, width) with num >= 1, got {tuple(images.shape)}"
        )
    finite("images", images)
    probability = outputs_of("classifier", classifier, images.unsqueeze(1)).softmax(-1)
    largest, label = probability.max(-1)
    sure = largest > threshold
    confident, likely = (
        torch.bincount(some, minlength=probability.shape[-1]) for some in (label[sure], label)
    )
    return ClassShares(
        confident=float(sure.double().mean()),
        confident_by_class=tuple((confident.double() / len(images)).tolist()),
        by_class=tuple((likely.double() / len(images)).tolist()),
    )
