"""
Evidence of held-out data by importance sampling from the prior or a guide, with a check of its
reliability.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_tkam._arviz import psis
from pyro_tkam._checks import whole_number
from pyro_tkam._threads import in_turn
from pyro_tkam.infer.model.draws import PlateStructure, draw_particles
from pyro_tkam.infer.model.requirements import check_guide, check_model
from pyro_tkam.infer.model.structure import plate_structure, refuse_coupled
from pyro_tkam.train.batches import tensors

_RELIABLE_KHAT = 0.7  # Vehtari et al. 2024, arXiv:1507.02646

DIAGNOSED = 100
"""Number of data, the first ones, whose k̂ is computed; this takes longer than the evidence."""


@dataclass(frozen=True)
class HeldOutEvidence:
    """
    Mean log evidence of held-out data, with diagnostics.

    :param log_evidence: mean over the data of ``log (1/S) Σ_s p(x | z_s)``, in nats per datum.
    :param standard_error: Monte Carlo standard error of that mean, from a jackknife over
        independent blocks of draws.
    :param effective_sample_size: mean effective sample size per datum.
    :param num_draws: number of draws ``S`` per datum.
    :param unreliable_share: share of data whose Pareto k̂ is above 0.7.
    :param num_dimensions: number of elements of a datum.
    """

    log_evidence: float
    standard_error: float
    effective_sample_size: float
    num_draws: int
    unreliable_share: float
    num_dimensions: int

    @property
    def per_dimension(self) -> float:
        """
        The log evidence in nats per element of a datum, for comparing data of different sizes.
        """
        return self.log_evidence / self.num_dimensions

    @property
    def reliable(self) -> bool:
        """Whether at most a twentieth of the data have a k̂ above 0.7."""
        return self.unreliable_share <= 0.05

    @property
    def verdict(self) -> str:
        """A sentence that says whether the estimate is reliable."""
        basis = (
            f"{self.unreliable_share:.0%} of the data have a Pareto k-hat above "
            f"{_RELIABLE_KHAT}, and each datum rests on {self.effective_sample_size:.1f} "
            f"effective draws of {self.num_draws}"
        )
        if self.reliable:
            return f"reliable: {basis}"
        return f"NOT reliable, and most likely too low: {basis}; its error is understated too"


@torch.no_grad()
@in_turn
def held_out_evidence(
    model: nn.Module,
    *data: Any,
    guide: nn.Module | None = None,
    num_draws: int = 1000,
    num_blocks: int = 10,
) -> HeldOutEvidence:
    """
    Estimate the log evidence of data with prior draws that all data share, or with a guide's draws.

    Each block's estimate of the evidence is unbiased. Taking the logarithm biases it downward; this
    bias is negligible only if the effective sample size is large.

    :param model: a Pyro model, ``model(*data)``, whose latents and data lie in one plate.
    :param data: one or more tensors of shape ``(num, *event)``, or dictionaries of such.
    :param guide: a guide that takes the same arguments; None draws from the prior.
    :param num_draws: draws per block.
    :param num_blocks: independent blocks, at least 2.
    :raises ValueError: for fewer than two blocks or 25 draws in all, if no plate contains all sites
        or the plate couples its data, and for any model or data that
        :func:`~pyro_tkam.infer.log_evidence` refuses.
    """
    num_blocks = whole_number("num_blocks", num_blocks, 2)
    num_draws = whole_number("num_draws", num_draws, 1)
    if num_draws * num_blocks < 25:
        raise ValueError(
            f"num_blocks and num_draws must give at least 25 draws in total, got {num_blocks} "
            f"and {num_draws}"
        )
    structure = check_independent(model, data, guide)
    log_weights = torch.stack(
        [
            draw_particles(model, guide, num_draws, structure, *data).log_weights
            for _ in range(num_blocks)
        ]
    )
    total = log_weights.flatten(0, 1)
    log_evidence = total.logsumexp(0) - math.log(len(total))
    effective = (2 * total.logsumexp(0) - (2 * total).logsumexp(0)).exp()
    # The fit of very long tails overflows; there, infinity means a weight of 0.
    with np.errstate(over="ignore"):
        _, khat = psis(total[:, :DIAGNOSED].T.double().cpu().numpy())
    return HeldOutEvidence(
        log_evidence=float(log_evidence.mean()),
        standard_error=_jackknife_error(log_weights.logsumexp(1)),
        effective_sample_size=float(effective.mean()),
        num_draws=len(total),
        unreliable_share=float(np.mean(khat > _RELIABLE_KHAT)),
        num_dimensions=sum(each[0].numel() for each in tensors(data) if each.dtype != torch.bool),
    )


def check_independent(
    model: nn.Module, data: tuple[Any, ...], guide: nn.Module | None = None
) -> PlateStructure:
    """
    Refuse a model whose data are not independent, and return its plates.

    :param model: a Pyro model, ``model(*data)``.
    :param data: its arguments.
    :param guide: a guide that takes the same arguments, or None.
    :raises ValueError: if no plate contains all sites or the plate couples its data, and for any
        model or data that :func:`~pyro_tkam.infer.log_evidence` refuses.
    """
    checked = check_model(model, data, {})
    if guide is not None:
        check_guide(guide, model, checked)
    structure = plate_structure(model, data, {})
    if structure.coupled:
        refuse_coupled(model, structure.coupled)
    if not structure.local_dims:
        raise ValueError(
            "model must have its latents and data in one plate, got none that holds all"
        )
    return structure


def _jackknife_error(block_totals: Tensor) -> float:
    """
    Return the standard error of the mean over data of the log of a sum over blocks.

    :param block_totals: log of each block's sum of weights, shape ``(blocks, data)``.
    """
    blocks = len(block_totals)
    others = ~torch.eye(blocks, dtype=torch.bool, device=block_totals.device)
    without_one = torch.stack([block_totals[keep].logsumexp(0).mean() for keep in others])
    return float(((blocks - 1) / blocks * (without_one - without_one.mean()).square().sum()).sqrt())
