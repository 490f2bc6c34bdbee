"""One small valid call of everything public in nn."""

from __future__ import annotations

from typing import Any

import torch

from pyro_tkam.nn import (
    KAN,
    AutoregressivePrior,
    Basis,
    ContextNetwork,
    ConvGenerator,
    Form,
    KANEdges,
    KANLayer,
    LabeledAutoregressivePrior,
    SequenceEncoder,
    SequenceGenerator,
    UnivariateFunctions,
    beam_search,
    ended_excess,
    ended_log_prob,
    fit,
    fit_density,
    fit_formulas,
    parse_expression,
    sample_ended,
    simplify,
)
from tests.valid_calls.call import Call, calls_of

#: Made by the package, and a table.
RECORDS = (
    "Beams",
    "BoundEdges",
    "BoundFunctions",
    "Candidate",
    "DecoderCache",
    "DensityFit",
    "Encoded",
    "FitResult",
    "GridUpdate",
    "LIBRARY",
)
GRID = {
    "basis": "bspline",
    "low": -1.0,
    "high": 1.0,
    "grid_size": 4,
    "degree": 2,
    "width": None,
    "trainable_width": False,
    "extrapolation": "linear",
}
BANK = {
    **GRID,
    "activation": "silu",
    "fan_in": 1,
    "noise_scale": 0.1,
    "base_mean": 0.0,
    "base_spread": 1.0,
    "spline_scale": 1.0,
    "constraint": "none",
    "periods": 1,
}
EDGES = {name: BANK[name] for name in BANK if name != "fan_in"}
PENALTY = {"l1": 1.0, "entropy": 1.0, "smoothness": 0.5}
MOVE = {"grid_size": 5, "uniform_share": 0.1, "widen": True, "shrink": True, "max_change": 1.0}


def kans() -> dict[str, Call]:
    samples = torch.rand(8, 2)
    net = KAN([2, 2, 1], grid_size=3)
    bank = UnivariateFunctions(3, **GRID)
    edges = KANEdges(2, 3, grid_size=3)
    layer = KANLayer(2, 3, grid_size=3)
    return {
        "UnivariateFunctions": Call(UnivariateFunctions, {"batch_shape": (3,), **BANK}),
        **calls_of(
            bank,
            forward={"z": torch.rand(8, 3)},
            update_grid={"samples": torch.rand(8, 3), **MOVE},
            regularization={"samples": torch.rand(8, 3), **PENALTY},
            prune={"threshold": 0.01, "samples": torch.rand(8, 3)},
            symbolic={
                "index": (0,),
                "samples": torch.rand(8),
                "library": ["x"],
                "num_candidates": 1,
                "tolerance": 1e-4,
            },
            expensive=("symbolic", "regularization"),
        ),
        "Basis": Call(
            Basis,
            {"name" if name == "basis" else name: GRID[name] for name in GRID},
            also=("basis",),
        ),
        "KANEdges": Call(KANEdges, {"in_features": 2, "out_features": 3, **EDGES}),
        **calls_of(
            edges,
            forward={"s": torch.rand(8, 2)},
            edges={"s": torch.rand(8, 2)},
            fix={"forms": {(0, 1): None}},
            also=("z", "edges"),
        ),
        "KANLayer": Call(KANLayer, {"in_features": 2, "out_features": 3, "bias": True, **GRID}),
        **calls_of(
            layer,
            forward={"s": torch.rand(8, 2)},
            regularization={"samples": torch.rand(8, 2), **PENALTY},
            prune={"threshold": 0.01, "samples": torch.rand(8, 2)},
            expensive=("regularization",),
        ),
        "KAN": Call(
            KAN,
            {
                "widths": [2, 3, 1],
                **GRID,
                "hidden_low": -1.0,
                "hidden_high": 1.0,
                "hidden_range": "none",
                "layer_norm": False,
                "bias": True,
                "output": "none",
            },
        ),
        **calls_of(
            net,
            forward={"s": samples},
            update_grid={"samples": samples, **MOVE, "optimizer": None},
            outside={"samples": samples},
            sizes={"samples": samples, "kind": "spread"},
            input_scores={"samples": samples},
            regularization={"samples": samples, **PENALTY},
            penalized={"samples": samples, **PENALTY},
            prune={"samples": samples, "nodes": 0.01, "edges": 0.01, "inputs": False},
            expand={"widths": [2, 3, 1]},
            deepen={"samples": samples},
            sparse_start={"samples": samples},
            fix={"edges": {(0, 0, 0): "sin"}, "samples": samples},
            from_formula={"formula": "x*y", "symbols": ["x", "y"], "grid_size": 3},
            from_state_dict={"state": net.state_dict()},
            also=("x",),
            expensive=("regularization", "penalized"),
            late=("samples",),
        ),
        "fit": Call(
            fit,
            {
                "net": net,
                "x": samples,
                "y": samples.sum(1, keepdim=True),
                "optimizer": "lbfgs",
                "steps": 1,
                "batch_size": 4,
                "penalty": 0.0,
                "grid_updates": 1,
                "validation": (samples, samples.sum(1, keepdim=True)),
                "callback": lambda *_: None,
                "loss": torch.nn.functional.mse_loss,
                "disable_progbar": True,
            },
            expensive=True,
        ),
        "simplify": Call(
            simplify,
            {"net": net, "x": samples, "y": samples.sum(1, keepdim=True), "tolerance": 1e-6},
            expensive=True,
        ),
        "fit_formulas": Call(
            fit_formulas,
            {
                "x": samples[:, 0],
                "y": samples[:, 0].sin(),
                "library": ["x", "sin"],
                "num_candidates": 1,
                "tolerance": 1e-4,
            },
            expensive=True,
        ),
        "Form": Call(Form, {"name": "cube", "definition": lambda _, u: u**3, "cost": 1}),
        "parse_expression": Call(
            parse_expression, {"text": "x + 1", "symbols": ["x"]}, also=("formula",)
        ),
    }


def priors() -> dict[str, Call]:
    options: dict[str, Any] = {
        "latent_dim": 3,
        "blocks": (1, 2),
        "basis": "rbf",
        "grid_size": 4,
        "low": -2.0,
        "high": 2.0,
        "context": "perceptron",
        "hidden": (4,),
        "num_components": 1,
        "moves": False,
    }
    prior = AutoregressivePrior(**options)
    training = {"steps": 1, "batch_size": 4, "learning_rate": 0.01, "patience": 1}
    samples = torch.rand(12, 3)
    given = {"samples": samples, "weights": torch.ones(12)}
    return {
        "AutoregressivePrior": Call(AutoregressivePrior, {**options, "num_labels": 0}),
        **calls_of(
            prior,
            fit={**given, **training},
            prune={"least": 0.01, "num_samples": 5},
            start_from={"samples": samples, "shares": torch.ones(12)},
            expensive=("fit", "prune"),
        ),
        "LabeledAutoregressivePrior": Call(
            LabeledAutoregressivePrior, {"num_labels": 2, **options}, expensive=True
        ),
        "fit_density": Call(
            fit_density, {"prior": prior, **given, "label": None, **training}, expensive=True
        ),
        "ContextNetwork": Call(
            ContextNetwork,
            {
                "blocks": (1, 2),
                "outputs": 3,
                "hidden": (4,),
                "kind": "perceptron",
                "extra": 0,
                "low": -2.0,
                "high": 2.0,
            },
        ),
    }


def generators() -> dict[str, Call]:
    convolutions = ConvGenerator(2, [4], [4], [1], [0])
    size = {"width": 8, "num_heads": 2, "num_layers": 1, "local": 1}
    decoder = SequenceGenerator(2, 5, 4, **size)
    reader = SequenceEncoder(5, 4, **size)
    z = torch.randn(3, 2)
    tokens = torch.randint(5, (3, 4))
    ended = {"decoder": decoder, "z": z, "tokens": tokens, "encoded": None}
    drawn = {"decoder": decoder, "z": z, "encoded": None}
    return {
        "ConvGenerator": Call(
            ConvGenerator,
            {
                "latent_dim": 2,
                "channels": [4],
                "kernel_sizes": [4],
                "strides": [1],
                "paddings": [0],
                "batch_norm": False,
                "negative_slope": 0.2,
                "output": "sigmoid",
            },
        ),
        **calls_of(
            convolutions,
            forward={"z": z},
            for_images={"latent_dim": 2, "data_shape": (1, 8, 8), "channels": 2},
        ),
        "SequenceGenerator": Call(
            SequenceGenerator,
            {"latent_dim": 2, "num_classes": 5, "max_length": 4, **size, "adds_latent": False},
        ),
        **calls_of(
            decoder,
            forward={"z": z, "tokens": tokens, "encoded": None},
            start={"z": z, "encoded": None},
            sample={"z": z, "length": 3},
        ),
        "SequenceEncoder": Call(
            SequenceEncoder, {"num_classes": 5, "max_length": 4, **size, "attends": False}
        ),
        **calls_of(reader, forward={"tokens": tokens, "encoded": None}),
        "beam_search": Call(beam_search, {**drawn, "num_beams": 2}),
        "sample_ended": Call(sample_ended, drawn),
        "ended_log_prob": Call(ended_log_prob, ended),
        "ended_excess": Call(ended_excess, ended),
    }


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    return kans() | priors() | generators()
