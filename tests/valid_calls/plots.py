"""One small valid call of everything public in plots."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_tkam import plots
from pyro_tkam.infer import MALA, ImportanceSampling, ParallelTempering
from pyro_tkam.models import MixturePrior, TiltedPrior
from pyro_tkam.nn import KAN, AutoregressivePrior, fit
from pyro_tkam.symbolic import find_formula
from tests.valid_calls.call import Call

RECORDS = ()


def model(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def axes() -> Any:
    return plots.new_figure().subplots()


def of_runs() -> dict[str, Call]:
    data = torch.zeros(2)
    tempering = ParallelTempering(
        MALA(model), num_temperatures=3, num_samples=4, warmup_steps=2, disable_progbar=True
    )
    ladder = tempering.run(data)
    weighted = ImportanceSampling(model, num_particles=30).run(data)
    run = {"update": [0.0, 1.0, 2.0], "loss": [3.0, 2.0, 1.0]}
    return {
        "evidence_curve": Call(
            plots.evidence_curve,
            {"draws": ladder, "axes": axes(), "exact": -1.0, "exact_mean": lambda t: -t},
        ),
        "ladders": Call(
            plots.ladders, {"num_temperatures": 3, "exponents": [1.0, 2.0], "axes": axes()}
        ),
        "swap_rates": Call(plots.swap_rates, {"draws": ladder, "axes": axes()}),
        "index_process": Call(
            plots.index_process, {"draws": ladder, "axes": axes(), "chain": 0, "datum": 0}
        ),
        "power_posteriors": Call(
            plots.power_posteriors,
            {
                "values": torch.randn(2, 1, 5),
                "betas": torch.tensor([0.0, 1.0]),
                "axes": axes(),
                "bins": 3,
                "label": "z",
            },
        ),
        "importance_weights": Call(
            plots.importance_weights, {"draws": weighted, "axes": axes(), "data": [0]}
        ),
        "training_curves": Call(
            plots.training_curves, {"runs": {"one": run}, "axes": [axes()], "window": 2}
        ),
    }


def of_networks() -> dict[str, Call]:
    x = torch.rand(8, 2)
    y = x.sum(-1, keepdim=True)
    net = KAN([2, 1], grid_size=3).double().fix({(0, 0, 0): "x", (0, 0, 1): "x"})
    samples = x.double()
    formula = find_formula(net, samples, library=["x"])
    drawn = {"net": net, "samples": samples, "input_names": ["a", "b"], "formula": formula}
    learned = KAN([2, 1], grid_size=3)
    return {
        "formula_parity": Call(
            plots.formula_parity, {"formula": formula, "x": x, "y": y, "axes": axes()}
        ),
        "kan_network": Call(plots.kan_network, {**drawn, "axes": axes()}, expensive=True),
        "kan_edges": Call(
            plots.kan_edges, {**drawn, "layer": 0, "axes": [axes(), axes()]}, expensive=True
        ),
        "fit_history": Call(
            plots.fit_history, {"result": fit(learned, x, y, steps=1), "axes": axes()}
        ),
    }


def of_priors() -> dict[str, Call]:
    bank = TiltedPrior((2, 3))
    titled = {"axes": axes(), "num": 2, "points": 5, "title": "prior"}
    return {
        "prior_densities": Call(plots.prior_densities, {"prior": bank(), **titled}),
        "prior_components": Call(
            plots.prior_components,
            {
                "prior": MixturePrior(TiltedPrior((2, 3)))(),
                "axes": [axes(), axes()],
                "num": 2,
                "points": 5,
            },
        ),
        "prior_marginals": Call(
            plots.prior_marginals,
            {
                "draws": torch.randn(5, 2),
                "reference": dist.Normal(0.0, 1.0),
                "axes": [axes()],
                "num": 1,
                "bins": 3,
            },
        ),
        "conditional_densities": Call(
            plots.conditional_densities,
            {"prior": AutoregressivePrior(2, hidden=(4,))(), **titled, "latent": 1},
        ),
        "dependence": Call(
            plots.dependence, {"matrix": torch.rand(3, 3), "axes": axes(), "title": "prior"}
        ),
    }


def of_figures() -> dict[str, Call]:
    return {
        "new_figure": Call(plots.new_figure, {"width": 3.0, "height": 2.0}),
        "save": Call(plots.save, {"axes": axes(), "path": "plot.png", "dpi": 20}),
        "are_images": Call(plots.are_images, {"data": torch.rand(2, 4, 4)}),
        "image_grid": Call(
            plots.image_grid,
            {"images": torch.rand(2, 4, 4), "axes": axes(), "columns": 2, "title": "digits"},
        ),
    }


def calls() -> dict[str, Call]:
    torch.manual_seed(0)
    return of_runs() | of_networks() | of_priors() | of_figures()
