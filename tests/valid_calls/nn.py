"""One small valid call of everything public in nn."""

import torch
from torch import nn

from pyro_tkam.nn import (
    KAN,
    AutoregressivePrior,
    Basis,
    Candidate,
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
)
from pyro_tkam.nn.forms import LIBRARY
from tests.valid_calls.call import Call, calls_of

#: Made by the package.
RECORDS = (
    "BoundEdges",
    "BoundFunctions",
    "Beams",
    "DecoderCache",
    "DensityFit",
    "Encoded",
    "FitResult",
    "GridUpdate",
    "LIBRARY",
)


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    x = torch.rand(8, 2)
    y = x.sum(-1, keepdim=True)
    latents = torch.randn(8, 3)
    small = {"grid_size": 4, "low": -1.0, "high": 1.0}
    net = KAN([2, 3, 1], grid_size=4)
    edges = KANEdges(2, 3, grid_size=4)
    layer = KANLayer(2, 3, grid_size=4)
    bank = UnivariateFunctions((3,), grid_size=4)
    prior = AutoregressivePrior(3, grid_size=4, hidden=(4,))
    tiny = {"width": 4, "num_heads": 2, "num_layers": 1}
    decoder = SequenceGenerator(3, 5, 4, **tiny)
    encoder = SequenceEncoder(5, 4, **tiny)
    z = latents[:2]
    tokens = torch.tensor([[2, 3, 0, 0], [4, 0, 0, 0]])
    conv = ConvGenerator(3, (4, 1), (4, 4), (1, 2), (0, 1))
    penalty = {"l1": 1.0, "entropy": 1.0, "smoothness": 0.1}
    regrid = {"grid_size": 5, "uniform_share": 0.1, "max_change": 10.0}
    symbolic = {"num_candidates": 2, "tolerance": 1e-3}
    return {
        "KAN": Call(
            KAN,
            {
                "widths": [2, 3, 1],
                "basis": "bspline",
                **small,
                "hidden_low": -1.0,
                "hidden_high": 1.0,
                "hidden_range": "none",
                "layer_norm": False,
                "bias": True,
                "output": "none",
                "extrapolation": "linear",
                "degree": 3,
            },
        ),
        **calls_of(
            net,
            also=("s",),  # of a layer
            forward={"s": x},
            regularization={"samples": x, **penalty},
            penalized={"samples": x, **penalty},
            prune={"samples": x, "nodes": 0.01, "edges": 0.03, "inputs": False},
            sizes={"samples": x, "kind": "spread"},
            input_scores={"samples": x},
            outside={"samples": x},
            update_grid={"samples": x, **regrid},
            expand={"widths": [2, 4, 1]},
            deepen={"samples": x},
            fix={"edges": {(0, 0, 0): "sin"}, "samples": x},
        ),
        "KAN.from_formula": Call(
            KAN.from_formula, {"formula": "sin(x) + y", "symbols": ["x", "y"]}
        ),
        "KAN.from_state_dict": Call(KAN.from_state_dict, {"state": net.state_dict()}),
        "KANEdges": Call(
            KANEdges,
            {"in_features": 2, "out_features": 3, "basis": "rbf", **small, "width": 0.5},
        ),
        **calls_of(
            edges,
            also=("z",),
            forward={"s": x},
            edges={"s": x},
            regularization={"samples": x, **penalty},
            prune={"threshold": 0.1, "samples": x},
            update_grid={"samples": x, **regrid},
            fix={"forms": {(0, 0): (LIBRARY["sin"], (1.0, 0.0, 1.0, 0.0))}},
            symbolic={"index": (0, 0), "samples": x[:, 0], **symbolic},
        ),
        "KANLayer": Call(
            KANLayer, {"in_features": 2, "out_features": 3, "basis": "rbf", **small, "bias": True}
        ),
        **calls_of(layer, also=("s", "z"), forward={"s": x}, update_grid={"samples": x, **regrid}),
        "UnivariateFunctions": Call(
            UnivariateFunctions,
            {
                "batch_shape": (3,),
                "basis": "rbf",
                "low": 0.0,
                "high": 1.0,
                "grid_size": 4,
                "degree": 3,
                "width": 0.5,
                "trainable_width": False,
                "activation": "silu",
                "fan_in": 1,
                "noise_scale": 0.1,
                "base_mean": 0.0,
                "base_spread": 1.0,
                "spline_scale": 1.0,
                "extrapolation": "zero",
            },
        ),
        **calls_of(
            bank,
            also=("z",),
            forward={"z": latents},
            regularization={"samples": latents, **penalty},
            prune={"threshold": 0.1, "samples": latents},
            update_grid={"samples": latents, **regrid},
            symbolic={"index": (0,), "samples": latents[:, 0], **symbolic},
        ),
        "Basis": Call(Basis, {"name": "rbf", **small, "degree": 3, "width": 0.5}, ("basis",)),
        "AutoregressivePrior": Call(
            AutoregressivePrior,
            {
                "latent_dim": 3,
                "blocks": (2, 1),
                "basis": "rbf",
                **small,
                "context": "perceptron",
                "hidden": (4,),
                "num_components": 1,
                "moves": False,
                "num_labels": 0,
            },
        ),
        **calls_of(
            prior,
            prune={"least": 0.01, "num_samples": 10},
            start_from={"samples": latents, "shares": torch.full((8,), 1 / 8)},
        ),
        "AutoregressivePrior.fit": Call(
            prior.fit, {"samples": torch.randn(40, 3), "steps": 1, "batch_size": 8}, expensive=True
        ),
        "fit_density": Call(
            fit_density,
            {
                "prior": prior,
                "samples": torch.randn(40, 3),
                "weights": torch.ones(40),
                "steps": 1,
                "batch_size": 8,
                "learning_rate": 1e-3,
                "patience": 1,
            },
            expensive=True,
        ),
        "LabeledAutoregressivePrior": Call(
            LabeledAutoregressivePrior, {"num_labels": 2, "latent_dim": 3, "grid_size": 4}
        ),
        "ContextNetwork": Call(
            ContextNetwork,
            {
                "blocks": (2, 1),
                "outputs": 4,
                "hidden": (4,),
                "kind": "perceptron",
                "extra": 0,
                "low": -1.0,
                "high": 1.0,
            },
        ),
        "ConvGenerator": Call(
            ConvGenerator,
            {
                "latent_dim": 3,
                "channels": (4, 1),
                "kernel_sizes": (4, 4),
                "strides": (1, 2),
                "paddings": (0, 1),
                "batch_norm": False,
                "negative_slope": 0.2,
                "output": "sigmoid",
            },
        ),
        **calls_of(conv, forward={"z": latents}),
        "SequenceGenerator": Call(
            SequenceGenerator,
            {"latent_dim": 3, "num_classes": 5, "max_length": 4, **tiny, "local": 2},
        ),
        **calls_of(
            decoder,
            forward={"z": z, "tokens": tokens},
            sample={"z": z, "length": 4},
        ),
        "SequenceEncoder": Call(
            SequenceEncoder, {"num_classes": 5, "max_length": 4, **tiny, "local": 2}
        ),
        **calls_of(encoder, forward={"tokens": tokens}),
        "beam_search": Call(beam_search, {"decoder": decoder, "z": z, "num_beams": 2}),
        "ended_excess": Call(ended_excess, {"decoder": decoder, "z": z, "tokens": tokens}),
        "ended_log_prob": Call(ended_log_prob, {"decoder": decoder, "z": z, "tokens": tokens}),
        "sample_ended": Call(sample_ended, {"decoder": decoder, "z": z}),
        "fit": Call(
            fit,
            {
                "net": net,
                "x": x,
                "y": y,
                "optimizer": "lbfgs",
                "steps": 1,
                "batch_size": None,
                "penalty": 0.0,
                "grid_updates": 0,
                "validation": (x, y),
                "callback": None,
                "loss": nn.functional.mse_loss,
            },
        ),
        "fit_formulas": Call(
            fit_formulas,
            {
                "x": torch.linspace(-1, 1, 20),
                "y": torch.linspace(-1, 1, 20).sin(),
                "library": ["sin", "x"],
                **symbolic,
            },
        ),
        "parse_expression": Call(
            parse_expression, {"text": "sin(x)", "symbols": ["x"]}, ("formula",)
        ),
        "Form": Call(Form, {"name": "double", "definition": lambda u: 2 * u, "cost": 1}),
        "Candidate.expression": Call(
            Candidate(LIBRARY["sin"], (1.0, 0.0, 1.0, 0.0), 1.0).expression,
            {"symbol": "x", "digits": 3},
        ),
    }
