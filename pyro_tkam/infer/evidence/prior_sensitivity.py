"""How much an evidence depends on how wide the prior is."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.failures import ForRows, by_rows
from pyro_tkam.infer.results import Verdict

PRIOR_DRAWS = 500
SENSITIVITY = "prior sensitivity"
WIDTH = "widest prior over posterior"
VAGUE_WIDTH = 100.0


def prior_verdict(
    density: ModelDensity, positions: Tensor, log_prior: Tensor, names: list[str]
) -> Verdict:
    """
    Measure what power-scaled priors do to a log evidence, and how wide priors are.

    With the prior ``p^α / ∫ p^α`` of the unconstrained coordinates, ``d log Z / d log α`` at
    ``α = 1`` is ``E_posterior[log p] - E_prior[log p]``: half a nat for every coordinate whose
    prior is vague (Kallioinen et al. 2024, arXiv:2107.14054, have what it does to the posterior).
    Widths are distances between quartiles. Nothing is said of a prior that can't be drawn from.

    :param density: of the model.
    :param positions: posterior draws ``(row, *local, dim)``.
    :param log_prior: log prior there, ``(row, *local)``.
    :param names: the site of each coordinate.
    """
    if not density.can_sample_prior():
        return Verdict()
    with torch.no_grad(), ForRows():
        drawn = density.sample_prior(PRIOR_DRAWS)
        log_prior_drawn, _ = by_rows(density.log_terms, drawn)
    slope = log_prior.double().mean(0) - log_prior_drawn.double().nanmean(0)
    measures = {SENSITIVITY: slope.sum().item()}
    ratios = _width(drawn) / _width(positions)
    worst = int(ratios.argmax())
    measures[WIDTH] = ratios.flatten()[worst].item()
    if measures[WIDTH] <= VAGUE_WIDTH:
        return Verdict(measures=measures)
    note = (
        f"the prior of {names[worst % len(names)]!r} is {measures[WIDTH]:.0f} times as wide as "
        "its posterior: a prior ten times as wide would lower the log evidence by 2.3 nats"
    )
    return Verdict(measures=measures, notes=(note,))


def _width(positions: Tensor) -> Tensor:
    quartiles = positions.detach().double().quantile(torch.tensor([0.25, 0.75]).double(), dim=0)
    return (quartiles[1] - quartiles[0]).clamp(min=torch.finfo(torch.float64).tiny)
