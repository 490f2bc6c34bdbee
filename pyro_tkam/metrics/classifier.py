"""Do samples look like one class? A small classifier of the real data says."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClassShares:
    """
    What a classifier thinks of images.

    :param confident: share of the images to which it gives one class with a probability above the threshold.
    :param by_class: share of the images that are confidently of each class; sums to ``confident``.
    """

    confident: float
    by_class: tuple[float, ...]

    @property
    def every_class(self) -> bool:
        """Whether every class appears among the confident ones."""
        return min(self.by_class) > 0


def _network(size: tuple[int, int], num_classes: int) -> nn.Module:
    quarter = -(-size[0] // 4) * -(-size[1] // 4)
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * quarter, num_classes),
    )


def train_classifier(
    images: Tensor, labels: Tensor, *, epochs: int = 8, batch_size: int = 50, learning_rate: float = 2e-3
) -> nn.Module:
    """
    Train a small convolutional classifier by Adam on the cross entropy.

    :param images: grey images, shape ``(num, height, width)``, of at least 8 × 8.
    :param labels: their classes from 0, an int64 tensor of shape ``(num,)``.
    :param epochs: passes over the images.
    :param batch_size: images a step.
    :param learning_rate: step size.
    :return: a module in evaluation mode, from images ``(num, 1, height, width)`` to logits ``(num, classes)``.
    :raises ValueError: for other shapes.

    >>> images, labels = torch.rand(20, 8, 8), torch.arange(20) % 2
    >>> train_classifier(images, labels, epochs=1)(images.unsqueeze(1)).shape
    torch.Size([20, 2])
    """
    if images.dim() != 3 or len(images) == 0 or min(images.shape[1:]) < 8:
        raise ValueError(f"images: got shape {tuple(images.shape)}, takes (num, height, width) of at least 8 × 8")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels: got {labels.dtype} of shape {tuple(labels.shape)}, takes a class for each image")
    network = _network((images.shape[1], images.shape[2]), int(labels.max()) + 1).to(images)
    steps = epochs * -(-len(images) // batch_size)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), device=images.device).split(batch_size):
            loss = nn.functional.cross_entropy(network(images[rows].unsqueeze(1)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def class_shares(classifier: nn.Module, images: Tensor, *, threshold: float = 0.9) -> ClassShares:
    """
    Count the images that a classifier gives one class.

    :param classifier: from images ``(num, 1, height, width)`` to logits ``(num, classes)``.
    :param images: shape ``(num, height, width)``.
    :param threshold: probability above which a class is given.
    :raises ValueError: for no images.
    """
    if images.dim() != 3 or len(images) == 0:
        raise ValueError(f"images: got shape {tuple(images.shape)}, takes (num, height, width), at least one")
    probability, label = classifier(images.unsqueeze(1)).softmax(-1).max(-1)
    classes = classifier(images[:1].unsqueeze(1)).shape[-1]
    counts = torch.bincount(label[probability > threshold], minlength=classes)
    shares = counts.double() / len(images)
    return ClassShares(float(shares.sum()), tuple(shares.tolist()))
