"""One small valid call of everything public in distributions."""

import torch
from torch.distributions import Independent, Normal

from pyro_tkam.distributions import (
    AutoregressiveTilted,
    ExponentiallyTilted,
    IsotropicNormal,
    JointEnergy,
    LabeledAutoregressive,
    LabeledTilted,
    PairwiseBernoulli,
    PairwiseCategorical,
    PairwiseContinuousBernoulli,
    PersistentULA,
    SharedCells,
    ShortRunULA,
    TiltedMixture,
)
from pyro_tkam.nn import AutoregressivePrior, LabeledAutoregressivePrior
from tests.valid_calls.call import Call, calls_of

#: Made by the package.
RECORDS = ("Conditionals",)


def bumps(z):
    return -torch.ones(3) * z.square()


def joint(z):
    return -z.square().sum(-1)


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    tilted = ExponentiallyTilted(bumps)
    mixture = TiltedMixture(torch.zeros(3), tilted)
    labeled = LabeledTilted(torch.zeros(3), ExponentiallyTilted(lambda z: z * torch.zeros(3, 2)))
    normal = Independent(Normal(torch.zeros(2), 1.0), 1)
    energy = JointEnergy(joint, normal)
    with torch.no_grad():
        autoregressive = AutoregressivePrior(3, grid_size=4, hidden=(4,))()
        of_label = LabeledAutoregressivePrior(2, 3, grid_size=4, hidden=(4,))()
    value = torch.rand(4, 3)
    shape = {"sample_shape": (2,)}
    batch = {"batch_shape": (2, 3)}
    bits = torch.ones(4, 3)
    event = {"event_dim": 1}
    return {
        "ExponentiallyTilted": Call(
            ExponentiallyTilted,
            {
                "energy": bumps,
                "reference": "gaussian",
                "low": torch.tensor(-2.0),
                "high": torch.tensor(2.0),
                "quadrature": None,
            },
        ),
        **calls_of(
            tilted,
            log_prob={"value": value},
            cdf={"value": value},
            icdf={"value": value, "upper": False},
            rsample=shape,
            expand=batch,
            expectation={"function": torch.sin},
        ),
        "TiltedMixture": Call(TiltedMixture, {"logits": torch.zeros(3), "components": tilted}),
        **calls_of(
            mixture,
            log_prob={"value": value[:, 0]},
            cdf={"value": value[:, 0]},
            icdf={"value": value[:, 0]},
            rsample=shape,
            expand={"batch_shape": (2,)},
            prune={"threshold": 0.1},
            responsibilities={"value": value[:, 0]},
            component_log_prob={"value": value[:, 0]},
            sample_component=shape,
        ),
        "LabeledTilted": Call(
            LabeledTilted, {"logits": torch.zeros(3), "components": labeled.components}
        ),
        **calls_of(
            labeled,
            log_prob={"value": torch.rand(4, 2)},
            given={"label": torch.tensor([1])},
            label_logits={"value": torch.rand(4, 2)},
            sample=shape,
            expand={"batch_shape": (2,)},
        ),
        "JointEnergy": Call(
            JointEnergy,
            {"energy": joint, "reference": normal, "sampler": ShortRunULA(2), "num_negatives": 5},
        ),
        **calls_of(
            energy,
            log_prob={"value": value[:, :2]},
            sample=shape,
            expand={"batch_shape": (2,)},
            estimate_log_normalizer={"num_particles": 20, "num_temperatures": 3, "step_size": 0.1},
        ),
        "ShortRunULA": Call(ShortRunULA, {"num_steps": 2, "step_size": 0.1}),
        "PersistentULA": Call(PersistentULA, {"run": ShortRunULA(2)}),
        "IsotropicNormal": Call(
            IsotropicNormal, {"loc": torch.zeros(4, 3), "scale": torch.tensor(1.0), **event}
        ),
        **calls_of(
            IsotropicNormal(torch.zeros(4, 3), torch.tensor(1.0)),
            log_prob={"value": value},
            rsample=shape,
            expand={"batch_shape": (4,)},
        ),
        "PairwiseBernoulli": Call(PairwiseBernoulli, {"logits": value, **event}),
        **calls_of(
            PairwiseBernoulli(value),
            log_prob={"value": bits},
            sample=shape,
            expand={"batch_shape": (4,)},
        ),
        "PairwiseCategorical": Call(PairwiseCategorical, {"logits": torch.zeros(4, 3, 5), **event}),
        **calls_of(
            PairwiseCategorical(torch.zeros(4, 3, 5)),
            log_prob={"value": bits.long()},
            sample=shape,
            expand={"batch_shape": (4,)},
        ),
        "PairwiseContinuousBernoulli": Call(
            PairwiseContinuousBernoulli, {"logits": value, **event}
        ),
        **calls_of(
            PairwiseContinuousBernoulli(value),
            log_prob={"value": value},
            sample=shape,
            expand={"batch_shape": (4,)},
        ),
        "SharedCells.over": Call(
            SharedCells.over,
            {"low": -1.0, "high": 1.0, "grid_size": 4, "basis": "rbf", "like": torch.zeros(1)},
        ),
        "AutoregressiveTilted": Call(
            AutoregressiveTilted,
            {
                "conditioner": autoregressive.conditioner,
                "blocks": autoregressive.blocks,
                "cells": autoregressive.cells,
                "batch_shape": (),
            },
        ),
        **calls_of(
            autoregressive,
            log_prob={"value": value},
            rsample=shape,
            expand={"batch_shape": (2,)},
            to_uniform={"value": value},
            from_uniform={"u": value},
            to_normal={"value": value},
            from_normal={"normal": value},
            quadrature_error={"value": value},
            dependence={"num_samples": 10},
        ),
        "LabeledAutoregressive": Call(
            LabeledAutoregressive,
            {
                "logits": torch.zeros(2),
                "of_label": lambda label: autoregressive.expand(label.shape),
            },
        ),
        **calls_of(
            of_label,
            log_prob={"value": value},
            sample=shape,
            given={"label": torch.tensor([1])},
            label_logits={"value": value},
            expand={"batch_shape": (2,)},
        ),
    }
