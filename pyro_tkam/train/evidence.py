"""
Evidence of each held-out datum under a trained model, with the cheapest method whose verdict is
trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_tkam._checks import instance, whole_number
from pyro_tkam.infer import AutoMALA, ImportanceSampling, ModelDensity, ParallelTempering
from pyro_tkam.infer.diagnosis import DRAWS_LIMIT, KHAT_LIMIT
from pyro_tkam.infer.evidence.mixture_proposal import MixtureProposal
from pyro_tkam.infer.mcmc.chains import Chains
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops.estimators import importance, pareto_smooth
from pyro_tkam.train.folder import existing_folder
from pyro_tkam.train.held_out import check_independent
from pyro_tkam.train.ownership import sole_owner
from pyro_tkam.train.per_datum import METHODS, EvidenceReport, PerDatum

__all__ = ["evidence_of_run", "per_datum_evidence"]

PRIOR_DRAWS = 10_000
CANDIDATES = 256
"""Number of prior draws per datum, the best of which start its chains."""
NUM_CHAINS = 4
WARMUP_STEPS = 128
CHAIN_DRAWS = 128
PROPOSALS = 4000
CHUNK = 150
"""Number of data whose chains run together."""
TEMPERING: dict[str, Any] = {
    "num_temperatures": 12,
    "num_samples": 250,
    "warmup_steps": 250,
    "num_chains": 4,
}


def per_datum_evidence(
    model: nn.Module, data: Tensor, *, checked: int = 20, most_tempered: int = 40
) -> EvidenceReport:
    """
    Estimate the log evidence of each datum with the cheapest method whose verdict is trusted.

    The methods are tried in turn, each on the data for which the previous one could not be trusted.
    The first uses prior draws that all data share. The second fits a mixture to short chains of
    each datum, in coordinates in which the prior is standard normal, and refines it with its own
    importance weights. The last is tempering. A proposal can miss a mode without any sign in its
    weights, so some data are also estimated by tempering. If the two estimates of a datum disagree,
    it is not trusted. The model is left unchanged.

    The run's trained guide is not used as a proposal here, although it would be the cheapest. On
    held-out digits it missed mass on half of them, 1.2 nats on average, and its small standard
    errors did not show it (``benchmarks.per_datum``).

    :param model: a Pyro model, ``model(data)``, whose latents and data lie in one plate.
    :param data: shape ``(num, *event)``.
    :param checked: number of trusted data (the first ones) that are also tempered.
    :param most_tempered: largest number of data that fall back to tempering, which is slow; the
        others stay flagged.
    :raises TypeError: for a model that is not a module, and data that are not a tensor.
    :raises ValueError: if there are no data, a number is negative, no plate contains all sites or
        the plate couples its data, and for any model or data that
        :func:`~pyro_tkam.infer.log_evidence` refuses.
    """
    instance("model", model, nn.Module, "a module that is a Pyro model")
    dense("data", data)
    if data.dim() == 0 or len(data) == 0:
        raise ValueError(
            f"data must have shape (num, *event) with num >= 1, got {tuple(data.shape)}"
        )
    checked = whole_number("checked", checked, 0)
    most_tempered = whole_number("most_tempered", most_tempered, 0)
    store = pyro.get_param_store()
    with (
        store.scope(store.get_state()),
        _frozen(model),
        getattr(model, "holding_prior", nullcontext)(),
    ):
        with torch.random.fork_rng(devices=[]):
            check_independent(model, (data,))
        return _in_turn(model, data, checked, most_tempered)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Turn off gradients of a model's parameters temporarily."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _in_turn(model: nn.Module, data: Tensor, checked: int, most_tempered: int) -> EvidenceReport:
    result = _by_prior(model, data)
    for rows in _chunks(_untrusted(result)):
        result = result.replaced(rows, _by_mixture(model, data[rows]))
    for rows in _chunks(_untrusted(result)[:most_tempered]):
        result = result.replaced(rows, _by_tempering(model, data[rows]))
    cheap = (
        (result.trusted & (result.method < METHODS.index("tempering")))
        .nonzero()
        .squeeze(-1)[:checked]
    )
    return EvidenceReport.of(
        result, cheap, _by_tempering(model, data[cheap]) if len(cheap) else result.take(cheap)
    )


def evidence_of_run(
    folder: Path | str,
    *,
    num: int = 1000,
    checked: int = 20,
    most_tempered: int = 40,
    seed: int = 0,
) -> EvidenceReport:
    """
    Estimate the evidence of a run's held-out data and write it to ``evidence.json`` and
    ``evidence.nc`` in the folder.

    :param folder: the run folder.
    :param num: number of held-out data (the first ones).
    :param checked: see :func:`per_datum_evidence`.
    :param most_tempered: see :func:`per_datum_evidence`.
    :param seed: seed of all random numbers.
    :raises FileNotFoundError: for a missing folder, configuration or checkpoint.
    :raises TypeError: for a folder that is not a path.
    :raises ValueError: for a damaged folder, no held-out data, or a number out of range.
    :raises BlockingIOError: if another process is writing to the folder.
    """
    from pyro_tkam.train.config import TrainConfig
    from pyro_tkam.train.data import RECORDED, load_split
    from pyro_tkam.train.run import load_model

    whole_number("num", num, 1)
    whole_number("checked", checked, 0)
    whole_number("most_tempered", most_tempered, 0)
    whole_number("seed", seed, 0)
    files = existing_folder(folder)
    # If training continued meanwhile, the evidence would belong to an outdated model.
    with sole_owner(files.path, "evidence"):
        config = TrainConfig.load(files.config)
        if config.model.preset in RECORDED:
            raise ValueError(
                f"folder must be a run on rows, got one with preset {config.model.preset!r}, "
                f"{files.path}, whose evidence is in summary.json"
            )
        model = load_model(folder)
        _, held_out = load_split(config)
        pyro.set_rng_seed(seed)
        with pyro.get_param_store().scope():
            report = per_datum_evidence(
                model, held_out[:num], checked=checked, most_tempered=most_tempered
            )
        report.write(files)
    return report


def _by_prior(model: nn.Module, data: Tensor) -> PerDatum:
    return _weighted(
        ImportanceSampling(model, num_particles=PRIOR_DRAWS).run(data).log_weights, "prior"
    )


def _by_mixture(model: nn.Module, data: Tensor) -> PerDatum:
    """Fit a mixture to short chains of each datum, which start at the best of many prior draws."""
    kernel = AutoMALA(model)
    # With vmap, the priors could not use their faster gradients.
    density = ModelDensity(model, (data,), standard_normal=True, preferred=("plate", "vmap"))
    with pyro.poutine.block(), pyro.validation_enabled(False):
        drawn = density.sample_prior(CANDIDATES)
        with torch.no_grad():
            best = density.log_terms(drawn)[1].topk(NUM_CHAINS, dim=0).indices
        start = drawn.gather(0, best.unsqueeze(-1).expand(-1, *drawn.shape[1:]))
        chains = Chains.begin(kernel, density, density.point(start), WARMUP_STEPS)
        points = []
        for _ in range(WARMUP_STEPS + CHAIN_DRAWS):
            chains.step()
            points.append(chains.point)
    kept = points[WARMUP_STEPS:]
    positions = torch.stack([point.position for point in kept], 1)
    proposal = MixtureProposal(
        density, positions, torch.stack([point.log_density for point in kept], 1)
    )
    return _weighted(proposal.weigh(PROPOSALS), "fitted")


def _by_tempering(model: nn.Module, data: Tensor) -> PerDatum:
    tempering = ParallelTempering(AutoMALA(model), **TEMPERING, disable_progbar=True)
    tempering.prepared = tempering.kernel.density(
        (data,), {}, None, standard_normal=tempering.standard_normal
    )  # so that only the verdict on the evidence is reported
    evidence = tempering.run(data).log_evidence()
    assert evidence.per_datum is not None
    assert evidence.per_datum_standard_error is not None
    return _of(
        "tempering", evidence.per_datum, evidence.per_datum_standard_error, evidence.verdict.trusted
    )


def _weighted(log_weights: Tensor, method: str) -> PerDatum:
    """Average importance weights, given their logarithms of shape ``(draw, num)``."""
    estimate = importance(log_weights.mT)
    khat = pareto_smooth(log_weights.mT).khat
    effective = 1 / log_weights.softmax(0).square().sum(0)
    return _of(method, *estimate, (khat <= KHAT_LIMIT) & (effective >= DRAWS_LIMIT), khat)


def _of(
    method: str,
    value: Tensor,
    error: Tensor,
    trusted: Tensor | bool,
    khat: Tensor | float = math.nan,
) -> PerDatum:
    return PerDatum(
        value.detach(),
        error.detach(),
        torch.as_tensor(khat, dtype=value.dtype).expand_as(value),
        torch.full_like(value, METHODS.index(method), dtype=torch.int64),
        torch.as_tensor(trusted).expand_as(value),
    )


def _untrusted(result: PerDatum) -> Tensor:
    return (~result.trusted).nonzero().squeeze(-1)


def _chunks(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(CHUNK) if len(rows) else ()
