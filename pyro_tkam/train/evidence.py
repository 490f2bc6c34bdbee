"""Evidence of every held-out datum of a trained model, by the cheapest method that its diagnosis trusts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_tkam._arviz import from_groups, save
from pyro_tkam.infer import AutoMALA, ImportanceSampling, ModelDensity, ParallelTempering
from pyro_tkam.infer.chains import Chains
from pyro_tkam.infer.fitted import MixtureProposal
from pyro_tkam.infer.verdict import DRAWS_LIMIT, KHAT_LIMIT
from pyro_tkam.ops.estimators import importance, pareto_smooth
from pyro_tkam.train.folder import RunFolder, write_text

PRIOR_DRAWS = 10_000
CANDIDATES = 256
"""Prior draws of each datum, among which its chains' starts are the best ones."""
NUM_CHAINS = 4
WARMUP_STEPS = 128
CHAIN_DRAWS = 128
PROPOSALS = 4000
CHUNK = 50
"""Data whose chains run together."""
TEMPERING: dict[str, Any] = {"num_temperatures": 12, "num_samples": 250, "warmup_steps": 250, "num_chains": 4}
AGREEMENT_SIGMAS = 4.0
METHODS = ("prior", "fitted", "tempering")


@dataclass(frozen=True)
class PerDatum:
    """Log evidence of each datum, in nats.

    :param value: ``log p(x_b)``, ``(num,)``.
    :param standard_error: shaped alike.
    :param khat: Pareto k-hat of importance weights; NaN where there are none.
    :param method: index into ``METHODS``.
    :param trusted: whether the estimate's diagnosis found nothing wrong.
    """

    value: Tensor
    standard_error: Tensor
    khat: Tensor
    method: Tensor
    trusted: Tensor

    def replaced(self, rows: Tensor, other: PerDatum) -> PerDatum:
        """Return a copy with some rows taken from another."""
        return PerDatum(*(old.index_copy(0, rows, new) for old, new in zip(_fields(self), _fields(other), strict=True)))

    def take(self, rows: Tensor) -> PerDatum:
        """Return some rows."""
        return PerDatum(*(each[rows] for each in _fields(self)))


@dataclass(frozen=True)
class EvidenceReport:
    """Evidence of held-out data, with a cross-check by tempering.

    :param data: of each datum.
    :param checked: the rows that were estimated by tempering, too.
    :param tempered: what it gave for them.
    """

    data: PerDatum
    checked: Tensor
    tempered: PerDatum

    @property
    def difference(self) -> Tensor:
        """Tempering minus the cheaper method, at the checked rows, in nats."""
        return self.tempered.value - self.data.value[self.checked]

    @property
    def agrees(self) -> Tensor:
        """Whether the two are within four standard errors, at the checked rows."""
        own = self.data.standard_error[self.checked]
        error = (own.square() + self.tempered.standard_error.square()).sqrt()
        return self.difference.abs() <= AGREEMENT_SIGMAS * error

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole."""
        data = self.data
        num = len(data.value)
        return {
            "num": num,
            "log_evidence": data.value.mean().item(),
            "standard_error": math.hypot(*data.standard_error.tolist()) / num,
            "spread_over_data": data.value.std().item() / num**0.5 if num > 1 else None,
            "trusted": int(data.trusted.sum()),
            "methods": {name: int((data.method == index).sum()) for index, name in enumerate(METHODS)},
            "checked": len(self.checked),
            "agreeing": int(self.agrees.sum()),
            "mean_difference": self.difference.mean().item() if len(self.checked) else None,
        }

    def __str__(self) -> str:
        numbers = self.summary()
        ways = ", ".join(f"{count} by {name}" for name, count in numbers["methods"].items() if count)
        head = (
            f"log evidence {numbers['log_evidence']:.3f} ± {numbers['standard_error']:.2g} nats a datum (Monte Carlo)"
        )
        lines = [f"{head}, over {numbers['num']} data: {ways}", f"trusted: {numbers['trusted']} of {numbers['num']}"]
        if numbers["checked"]:
            found = f"{numbers['agreeing']} of {numbers['checked']} agree within {AGREEMENT_SIGMAS:.0f} standard errors"
            lines.append(f"cross-check by tempering: {found}, mean difference {numbers['mean_difference']:+.3f} nats")
        if numbers["trusted"] < numbers["num"]:
            lines.append("NOT to be trusted as a whole: the others' evidences are most likely too low")
        return "\n".join(lines)

    def write(self, files: RunFolder) -> None:
        """Write ``evidence.json`` and ``evidence.nc`` into a run folder."""
        columns = dict(zip(PerDatum.__dataclass_fields__, _fields(self.data), strict=True))
        rows = {name: column.tolist() for name, column in columns.items()}
        rows["method"] = [METHODS[index] for index in rows["method"]]
        rows["khat"] = [None if math.isnan(khat) else khat for khat in rows["khat"]]
        check = {"rows": self.checked.tolist(), "tempering": self.tempered.value.tolist()}
        content = {**self.summary(), "per_datum": rows, "cross_check": check}
        write_text(files.path / "evidence.json", json.dumps(content, indent=2) + "\n")
        groups = {"evidence": {f"log_evidence_{name}": each.numpy() for name, each in columns.items()}}
        attributes = {"log_evidence": self.summary()["log_evidence"], "methods": ", ".join(METHODS)}
        save(from_groups(groups, sample_dims={"evidence": ("data",)}, attrs=attributes), files.path / "evidence.nc")


def per_datum_evidence(model: nn.Module, data: Tensor, *, checked: int = 20, most_tempered: int = 40) -> EvidenceReport:
    """
    Estimate the log evidence of each datum by the cheapest method that its diagnosis trusts.

    In turn, for the data that the last method could not be trusted on: draws from the prior that all data share;
    a mixture fitted to short chains of each datum, in coordinates in which the prior is standard normal, and refined
    by its own weights; tempering. A unimodal proposal may miss a mode without a trace in its weights, so some data are
    estimated by tempering as well.

    :param model: a Pyro model, ``model(data)``, whose latents and data lie in one plate.
    :param data: shape ``(num, *event)``.
    :param checked: number of trusted data (the first) that are also tempered.
    :param most_tempered: most data that fall back to tempering, which is slow; the others stay flagged.
    :raises ValueError: if there are no data, or a number is negative.
    """
    if len(data) == 0 or checked < 0 or most_tempered < 0:
        raise ValueError(f"data, checked, most_tempered: got {len(data)} data, {checked} and {most_tempered}")
    model.requires_grad_(False)
    result = _by_prior(model, data)
    for rows in _chunks(_untrusted(result)):
        result = result.replaced(rows, _by_mixture(model, data[rows]))
    for rows in _chunks(_untrusted(result)[:most_tempered]):
        result = result.replaced(rows, _by_tempering(model, data[rows]))
    cheap = (result.trusted & (result.method < METHODS.index("tempering"))).nonzero().squeeze(-1)[:checked]
    return EvidenceReport(result, cheap, _by_tempering(model, data[cheap]) if len(cheap) else result.take(cheap))


def evidence_of_run(
    folder: Path | str, *, num: int = 1000, checked: int = 20, most_tempered: int = 40, seed: int = 0
) -> EvidenceReport:
    """
    Estimate the evidence of a run's held-out data and write it into the folder, ``evidence.json`` and ``evidence.nc``.

    :param folder: the run folder.
    :param num: number of held-out data (the first).
    :param checked: see :func:`per_datum_evidence`.
    :param most_tempered: see :func:`per_datum_evidence`.
    :param seed: seed of everything random.
    :raises FileNotFoundError: for a missing folder, configuration or checkpoint.
    :raises ValueError: for a damaged folder, no held-out data, or a number out of range.
    """
    from pyro_tkam.train.config import TrainConfig
    from pyro_tkam.train.run import load_model, load_split

    if num < 1:
        raise ValueError(f"num: got {num}, takes a whole number of at least 1")
    model = load_model(folder)
    files = RunFolder(Path(folder))
    _, held_out = load_split(TrainConfig.load(files.config))
    pyro.set_rng_seed(seed)
    with pyro.get_param_store().scope():
        report = per_datum_evidence(model, held_out[:num], checked=checked, most_tempered=most_tempered)
    report.write(files)
    return report


def _by_prior(model: nn.Module, data: Tensor) -> PerDatum:
    return _weighted(ImportanceSampling(model, num_particles=PRIOR_DRAWS).run(data).log_weights, "prior")


def _by_mixture(model: nn.Module, data: Tensor) -> PerDatum:
    """Fit a mixture to short chains of each datum that start at the best of some prior draws."""
    kernel = AutoMALA(model)
    density = ModelDensity(model, (data,), standard_normal=True)
    with pyro.poutine.block(), pyro.validation_enabled(False):
        drawn = density.sample_prior(CANDIDATES)
        with torch.no_grad():
            best = density.log_terms(drawn)[1].topk(NUM_CHAINS, dim=0).indices
        start = drawn.gather(0, best.unsqueeze(-1).expand(-1, *drawn.shape[1:]))
        density.expect(NUM_CHAINS)
        chains = Chains.begin(kernel, density, start, WARMUP_STEPS)
        points = []
        for _ in range(WARMUP_STEPS + CHAIN_DRAWS):
            chains.step()
            points.append(chains.point)
    kept = points[WARMUP_STEPS:]
    positions = torch.stack([point.position for point in kept], 1)
    proposal = MixtureProposal(density, positions, torch.stack([point.log_density for point in kept], 1))
    return _weighted(proposal.weigh(PROPOSALS), "fitted")


def _by_tempering(model: nn.Module, data: Tensor) -> PerDatum:
    run = ParallelTempering(AutoMALA(model), **TEMPERING, disable_progbar=True).run(data)
    evidence = run.log_evidence()
    assert evidence.per_datum is not None
    assert evidence.per_datum_standard_error is not None
    return _of("tempering", evidence.per_datum, evidence.per_datum_standard_error, evidence.verdict.trusted)


def _weighted(log_weights: Tensor, method: str) -> PerDatum:
    """Average log weights ``(draw, num)``."""
    estimate, khat = importance(log_weights.mT), pareto_smooth(log_weights.mT).khat
    effective = 1 / log_weights.softmax(0).square().sum(0)
    return _of(method, *estimate, (khat <= KHAT_LIMIT) & (effective >= DRAWS_LIMIT), khat)


def _of(method: str, value: Tensor, error: Tensor, trusted: Tensor | bool, khat: Tensor | float = math.nan) -> PerDatum:
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


def _fields(data: PerDatum) -> tuple[Tensor, ...]:
    return (data.value, data.standard_error, data.khat, data.method, data.trusted)
