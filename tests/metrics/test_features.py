"""Feature networks."""

import pytest
import torch

from pyro_tkam.datasets import digits, split
from pyro_tkam.metrics import classifier_features, embed, frechet_distance, principal_features


def test_principal_features_are_uncorrelated_with_unit_variance():
    torch.manual_seed(0)
    images = (torch.randn(200, 5) @ torch.randn(5, 3 * 4 * 4) * torch.linspace(1, 3, 48)).reshape(
        200, 3, 4, 4
    )
    features = embed(principal_features(images, 5), images)
    assert features.dtype == torch.float64
    torch.testing.assert_close(
        features.T @ features / 199, torch.eye(5, dtype=torch.float64), atol=1e-4, rtol=0
    )
    # Five directions make these images: the features tell every distance that the pixels do.
    flat = (images - images.mean(0)).flatten(1)
    fitted = torch.linalg.lstsq(features.float(), flat).solution
    torch.testing.assert_close(features.float() @ fitted, flat, atol=1e-3, rtol=1e-3)


def test_features_of_a_classifier_tell_digits_from_what_is_none():
    torch.manual_seed(0)
    data = digits()
    train, test = split(len(data.images), 600)
    network = classifier_features(data.images[train], data.labels[train], 8, epochs=4)
    assert network.num_features == 8
    features = embed(network, data.images[train])
    torch.testing.assert_close(
        features.std(0), torch.ones(8, dtype=torch.float64), atol=1e-4, rtol=0
    )
    held_out = frechet_distance(features, embed(network, data.images[test]))
    shuffled = data.images[test].flatten(1)[:, torch.randperm(64)].unflatten(1, (8, 8))
    ones = frechet_distance(features, embed(network, data.images[data.labels == 1]))
    assert held_out < 0.2
    assert frechet_distance(features, embed(network, shuffled)) > 10 * held_out
    assert ones > 10 * held_out


def test_bad_input_is_named():
    with pytest.raises(
        ValueError, match=r"images must have shape \(num, height, width\) .*, got \(4, 64\)"
    ):
        principal_features(torch.zeros(4, 64))
    with pytest.raises(ValueError, match="num_features must be from 1 to 4, got 5"):
        principal_features(torch.zeros(4, 8, 8), 5)
    with pytest.raises(TypeError, match=r"labels must have the dtype .*, got torch\.float32"):
        classifier_features(torch.zeros(4, 8, 8), torch.zeros(4))
