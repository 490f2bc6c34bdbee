"""One small valid call of everything public in models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DecodedSequence,
    EndedSequence,
    GaussianLikelihood,
    Heads,
    JointPrior,
    KARTGenerator,
    LabeledPrior,
    LabeledTKAM,
    LatentGenerator,
    Likelihood,
    MixturePrior,
    MultimodalTKAM,
    PairELBO,
    PairGuide,
    Seq2SeqTKAM,
    SequenceLikelihood,
    StandardizedLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import KAN, SequenceGenerator
from tests.models.small import labeled, multimodal
from tests.valid_calls.call import Call, calls_of

#: Made by the package.
RECORDS = ("PairTerms",)
FUNCTIONS = {"reference": "uniform", "basis": "rbf", "grid_size": 4}
NETWORK = {
    "basis": "rbf",
    "grid_size": 3,
    "widths": (3,),
    "noise_scale": 0.5,
    "output": "sigmoid",
    "layer_norm": False,
}
OPTIONS = {
    "degree": 2,
    "trainable_width": False,
    "hidden_range": "none",
    "generator": "kan",
    "learned_noise": True,
    "standardized": False,
    "energy_constraint": "none",
    "energy_periods": 1,
    "edge_constraint": "none",
    "edge_periods": 1,
}
MOVES = {"grid_size": 4, "uniform_share": 0.1, "shrink": False, "max_change": 1.0}


def presets() -> dict[str, Call]:
    model = TKAM.mixture(4, 3, 2, grid_size=4, layer_norm=False)
    parts = {
        "prior": TiltedPrior((5, 2)),
        "generator": nn.Linear(2, 4),
        "likelihood": GaussianLikelihood(),
        "coupling": "independent",
    }
    x = torch.rand(3, 4)
    size = {"data_shape": (2, 2), "latent_dim": 2}
    return {
        "TKAM": Call(TKAM, parts),
        "NetworkOptions": Call(
            lambda **options: TKAM.kart(4, 2, grid_size=3, **options),
            OPTIONS,
            also=("constraint", "periods"),
            expensive=True,
        ),
        **calls_of(
            model,
            kart={**size, **NETWORK, "coupling": "shared", "reference": "uniform"},
            mixture={**size, **NETWORK, "num_components": 2, "reference": "uniform"},
            autoregressive={
                **size,
                **NETWORK,
                "blocks": 2,
                "context": "perceptron",
                "context_widths": (4,),
            },
            deep={**size, **NETWORK, "sampler": None, "energy_widths": (3,)},
            forward={"x": x, "size": 5},
            generate={"num": 2, "differentiable": False},
            update_grid={"num_samples": 6, **MOVES},
            reweigh={"x": x, "penalty": 0.1, "size": 5, "num_particles": 30},
            prune={"threshold": 1e-6, "num_samples": 6},
            also=("samples",),
            expensive=("kart", "mixture", "autoregressive", "deep", "reweigh"),
            late=("x",),
        ),
    }


def of_several() -> dict[str, Call]:
    classes = labeled(4)
    kinds = multimodal(4)
    x = torch.rand(3, 4)
    several = {"image": x, "label": torch.tensor([0, 1, 2])}
    masks = {"image": torch.tensor([True, False, True])}
    weighed = {"num_particles": 30, "guide": None}
    return {
        "LabeledTKAM": Call(
            LabeledTKAM,
            {
                "prior": LabeledPrior(3, 2),
                "generator": nn.Linear(2, 4),
                "likelihood": GaussianLikelihood(),
                "label_weight": 1.0,
            },
        ),
        **calls_of(
            classes,
            forward={"x": x, "label": torch.tensor([0, -1, 2]), "size": 5},
            generate={"label": torch.tensor([0, 2])},
            classify={"x": x, **weighed},
            also=("model",),
            expensive=("classify",),
            late=("x",),
        ),
        "Heads": Call(Heads, {"heads": {"image": nn.Linear(2, 4)}, "trunk": nn.Linear(2, 2)}),
        "MultimodalTKAM": Call(
            MultimodalTKAM,
            {
                "prior": MixturePrior(TiltedPrior((2, 2))),
                "generator": Heads({"image": nn.Linear(2, 4)}),
                "likelihoods": {"image": GaussianLikelihood()},
                "coupling": "independent",
            },
        ),
        **calls_of(
            kinds,
            forward={"x": several, "observed": masks, "size": 5},
            generate={"num": 2},
            conditional={"x": several, "observed": masks, **weighed},
            complete={"x": several, "observed": masks, **weighed},
            also=("model",),
            expensive=("conditional", "complete"),
            late=("x", "observed"),
        ),
    }


def priors() -> dict[str, Call]:
    bank = TiltedPrior((2, 3), "gaussian", grid_size=4)
    single = TiltedPrior((), "gaussian", grid_size=4)
    mixture = MixturePrior(TiltedPrior((2, 3), "gaussian", grid_size=4))
    joint = JointPrior(nn.Linear(2, 1), 2)
    searched = {"library": ["x"], "num_candidates": 1, "tolerance": 1e-3}
    samples = torch.randn(6, 2).clamp(-2, 2)
    return {
        "TiltedPrior": Call(
            TiltedPrior,
            {"batch_shape": (2, 3), **FUNCTIONS, "low": 0.0, "high": 1.0, "quadrature": None},
        ),
        **calls_of(
            bank,
            update_grid={"samples": samples.unsqueeze(-1).expand(6, 2, 3), **MOVES},
            symbolic={"index": (0, 1), **searched},
            expensive=("symbolic",),
        ),
        **{
            f"TiltedPrior.fit.{name}": Call(single.fit, {name: target, "ridge": 1e-3})
            for name, target in (
                ("samples", samples[:, 0]),
                ("density", torch.distributions.Normal(0.0, 1.0)),
                ("formula", "exp(-x**2)"),
            )
        },
        "MixturePrior": Call(MixturePrior, {"components": TiltedPrior((2, 3))}),
        **calls_of(
            mixture,
            fit={"samples": samples, "noise_scale": 0.1, "ridge": 1e-3},
            reweigh={
                "latents": samples.unsqueeze(1),
                "weights": torch.full((6, 1), 1 / 6),
                "penalty": 0.1,
                "size": 5,
            },
            prune={"threshold": 1e-3},
            update_grid={"samples": samples, **MOVES},
            symbolic={"index": (0,), **searched},
            expensive=("symbolic",),
        ),
        "LabeledPrior": Call(
            LabeledPrior, {"num_labels": 3, "latent_dim": 2, **FUNCTIONS}, also=("batch_shape",)
        ),
        **calls_of(LabeledPrior(3, 2, grid_size=4), fit={"samples": samples, "ridge": 1e-3}),
        "JointPrior": Call(
            JointPrior, {"energy": nn.Linear(2, 1), "latent_dim": 2, "sampler": None}
        ),
        **calls_of(joint, update_grid={"samples": samples}),
    }


def likelihoods() -> dict[str, Call]:
    output = torch.randn(3, 4)
    found: dict[str, Call] = {
        "Likelihood": Call(Likelihood, {"event_dim": 1}),
        "GaussianLikelihood": Call(
            GaussianLikelihood, {"noise_scale": 0.5, "event_dim": 1, "learned": False}
        ),
        "StandardizedLikelihood": Call(
            StandardizedLikelihood, {"noise_scale": 0.5, "data_shape": (4,), "learned": False}
        ),
        **calls_of(StandardizedLikelihood(0.5, (4,)), fit={"rows": output}),
    }
    for kind in (BernoulliLikelihood, CategoricalLikelihood, ContinuousBernoulliLikelihood):
        found[kind.__name__] = Call(kind, {"event_dim": 1})
        found |= calls_of(
            kind(),
            noiseless={"output": output},
            expected={"output": output},
            also=("logits", "event_dim"),
        )
    return found


def generators() -> dict[str, Call]:
    options: dict[str, Any] = {"data_shape": (2, 2), "mean": 0.5, "spread": 0.3}
    outer = nn.Linear(2, 4)
    z = torch.rand(3, 2)
    inner = z.unsqueeze(-1)
    return {
        "LatentGenerator": Call(LatentGenerator, {"outer": outer, **options}),
        "KARTGenerator": Call(KARTGenerator, {"outer": outer, **options}),
        **calls_of(
            LatentGenerator(KAN([2, 4], grid_size=3), **options),
            forward={"z": z},
            prune={"samples": z, "threshold": 1e-3},
            also=("s", "nodes"),
        ),
        **calls_of(
            KARTGenerator(KAN([2, 4], grid_size=3), **options),
            forward={"z": inner},
            also=("s",),
        ),
        "AmortizedGuide": Call(
            AmortizedGuide,
            {"model": TKAM.kart(4, 2, grid_size=3), "hidden": (3,), "encoder": None},
        ),
        **calls_of(
            AmortizedGuide(TKAM.kart(4, 2, grid_size=3), (3,)),
            forward={"x": torch.rand(3, 4)},
            posterior={"x": torch.rand(3, 4)},
        ),
    }


def sequences() -> dict[str, Call]:
    options = {
        "num_source": 7,
        "num_target": 9,
        "max_source": 5,
        "max_target": 6,
        "latent_dim": 3,
        "blocks": (1, 2),
        "width": 8,
        "num_heads": 2,
        "num_layers": 1,
        "source_layers": 1,
        "context_widths": (8,),
    }
    model = TKAM.seq2seq(**options)
    guide = PairGuide(model)
    source = torch.tensor([[2, 3, 0], [2, 5, 6]])
    target = torch.tensor([[8, 0], [8, 2]])
    decoder = SequenceGenerator(3, 7, 5, width=8, num_heads=2, num_layers=1)
    unused = SequenceGenerator(3, 7, 5, width=8, num_heads=2, num_layers=1)
    z = torch.randn(2, 3)
    parts = {
        "prior": model.prior,
        "source_decoder": model.source_decoder,
        "encoder": model.encoder,
        "target_decoder": model.target_decoder,
    }
    tokens = torch.tensor([[2, 3, 0, 0, 0], [2, 5, 6, 1, 1]])
    return {
        "TKAM.seq2seq": Call(TKAM.seq2seq, options, also=("num_classes", "max_length")),
        "Seq2SeqTKAM": Call(Seq2SeqTKAM, parts),
        **calls_of(
            model,
            forward={"source": source, "target": target, "size": 5},
            generate={"num": 2},
            respond={"source": source, "guide": guide, "num": 2, "num_beams": 2},
            search={"source": source, "guide": guide, "num_beams": 2, "num_draws": 2},
            also=("x",),
        ),
        "PairGuide": Call(PairGuide, {"model": model, "num_layers": 1}),
        **calls_of(guide, forward={"source": source, "target": target, "size": 5}),
        "PairELBO": Call(PairELBO, {"free_nats": 0.5, "unknown_share": 0.1}),
        **calls_of(
            PairELBO(0.5, 0.1),
            terms={"model": model, "guide": guide, "source": source, "target": target},
            read={"source": source},
        ),
        "PairELBO.loss": Call(
            lambda source, target, size: PairELBO().loss(model, guide, source, target, size=size),
            {"source": source, "target": target, "size": 5},
        ),
        "DecodedSequence": Call(DecodedSequence, {"decoder": decoder, "z": z, "length": 5}),
        **calls_of(
            DecodedSequence(decoder, z),
            log_prob={"value": tokens},
            sample={"sample_shape": (2,)},
            expand={"batch_shape": (3, 2)},
            also=("tokens",),
            expensive=("sample",),
        ),
        "EndedSequence": Call(EndedSequence, {"decoder": decoder, "z": z, "encoded": None}),
        **calls_of(
            EndedSequence(decoder, z),
            log_prob={"value": tokens},
            sample={"sample_shape": (2,)},
            expand={"batch_shape": (3, 2)},
            also=("tokens",),
            expensive=("sample",),
        ),
        "SequenceLikelihood": Call(SequenceLikelihood, {"decoder": unused}),
        **calls_of(
            SequenceLikelihood(unused),
            forward={"z": z},
            noiseless={"output": z},
            also=("z",),
            late=("output",),
        ),
    }


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    return presets() | of_several() | priors() | likelihoods() | generators() | sequences()
