"""The classifier that judges samples."""

import pytest
import torch

from pyro_tkam.datasets import digits, split
from pyro_tkam.metrics import class_shares, train_classifier
from pyro_tkam.metrics.classifier import Committee


class Fixed(torch.nn.Module):
    """Logits that are written in the image's first three pixels."""

    def forward(self, images):
        return images[:, 0, 0, :3]


def test_shares_count_what_is_confident():
    images = torch.zeros(5, 4, 4)
    images[0, 0, 0] = images[1, 0, 0] = images[2, 0, 2] = 20.0
    images[3, 0, 1] = 1.0  # softmax (1, e, 1): probability .58
    shares = class_shares(Fixed(), images)
    assert shares.confident == pytest.approx(0.6)
    assert shares.confident_by_class == pytest.approx((0.4, 0.0, 0.2))
    assert shares.by_class == pytest.approx((0.6, 0.2, 0.2))  # a tie goes to the first
    assert not shares.every_class
    assert class_shares(Fixed(), images, threshold=0.5).every_class


def test_a_trained_classifier_knows_digits_it_has_not_seen():
    torch.manual_seed(0)
    data = digits()
    train, test = split(len(data.images), 300)
    classifier = train_classifier(data.images[train], data.labels[train])
    right = classifier(data.images[test].unsqueeze(1)).argmax(-1) == data.labels[test]
    assert right.double().mean() > 0.9
    shares = class_shares(classifier, data.images[test])
    assert shares.every_class
    assert shares.confident > 0.6


def test_a_committee_averages_probabilities():
    members = [torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)]
    x = torch.randn(5, 4)
    mean = sum(member(x).softmax(-1) for member in members) / 2
    torch.testing.assert_close(Committee(members)(x).exp(), mean)


def test_wrong_shapes_are_named():
    with pytest.raises(
        ValueError, match=r"images must have shape \(num, height, width\) .*, got \(4, 64\)"
    ):
        train_classifier(torch.zeros(4, 64), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"labels must have the dtype .*, got torch\.float32"):
        train_classifier(torch.zeros(4, 8, 8), torch.zeros(4))
    with pytest.raises(ValueError, match="members must be an integer of at least 1, got 0"):
        train_classifier(torch.zeros(4, 8, 8), torch.zeros(4, dtype=torch.int64), members=0)
    with pytest.raises(ValueError, match=r"images must have shape \(num,.*, got \(0, 8, 8\)"):
        class_shares(Fixed(), torch.zeros(0, 8, 8))
