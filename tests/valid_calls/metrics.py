"""One small valid call of everything public in metrics."""

from __future__ import annotations

import torch
from torch import nn

from pyro_tkam.metrics import (
    StandardizedFeatures,
    class_shares,
    classifier_features,
    copies,
    embed,
    extrapolate,
    frechet_distance,
    kernel_distance,
    principal_features,
    reconstruction_error,
    train_classifier,
    unpaired_error,
    variance_ratio,
)
from pyro_tkam.models import TKAM
from tests.valid_calls.call import Call, calls_of

#: Made by the package, and a table.
RECORDS = ("ClassShares", "Copies", "Extrapolation", "SAMPLE_SIZES")


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    images = torch.rand(6, 8, 8)
    channels = images.unsqueeze(1)
    labels = torch.arange(6) % 2
    features = torch.randn(6, 2)
    flat = nn.Flatten()
    network = nn.Sequential(flat, nn.Linear(64, 2))
    training = {"images": images, "labels": labels, "epochs": 1, "batch_size": 3}
    pair = {"samples": images, "data": images + 0.1 * torch.randn(6, 8, 8)}
    model = TKAM.kart((8, 8), 2)
    return {
        "train_classifier": Call(
            train_classifier, {**training, "members": 1, "learning_rate": 1e-3}
        ),
        "class_shares": Call(
            class_shares, {"classifier": network, "images": images, "threshold": 0.5}
        ),
        "StandardizedFeatures": Call(StandardizedFeatures, {"network": flat, "images": channels}),
        **calls_of(StandardizedFeatures(flat, channels), forward={"images": channels}),
        "classifier_features": Call(classifier_features, {**training, "num_features": 3}),
        "principal_features": Call(principal_features, {"images": images, "num_features": 2}),
        "embed": Call(embed, {"network": flat, "images": images, "batch_size": 3}),
        "frechet_distance": Call(frechet_distance, {"real": features, "generated": features + 1}),
        "kernel_distance": Call(kernel_distance, {"real": features, "generated": features + 1}),
        "extrapolate": Call(
            extrapolate,
            {
                "distance": lambda some: 1 / len(some),
                "samples": torch.rand(9, 2),
                "sizes": [2, 3, 4],
                "confidence": 0.9,
            },
        ),
        "copies": Call(copies, {"samples": images, "training": images[:4], "held_out": images[4:]}),
        "reconstruction_error": Call(
            reconstruction_error, {"model": model, "data": images, "num_draws": 4}
        ),
        "unpaired_error": Call(unpaired_error, pair),
        "variance_ratio": Call(variance_ratio, pair),
    }
