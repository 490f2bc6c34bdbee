"""Trajectories of EnsembleHMC beside others, on posteriors and targets; prints JSON.

Each kernel makes 64 chains of 500 draws, and the steps of its own tempered start. Warm-up, metric,
numbers of steps and adaptation of the step size are the default's. "Isokinetic" is the
Metropolis-adjusted trajectory at constant speed of Robnik, Cohn-Gordon and Seljak
(arXiv:2503.01707), with the velocity drawn anew each time. Its lengths are ``√d`` and ``π/2 √d``,
which is the default's at the typical speed. "Adapted" is the best of five lengths by the pilot of
:class:`PilotHMC`.

Effective draws are the fewest of all unconstrained coordinates, in the bulk and in a tail. R-hat is
that between the four populations of chains (nested). Gradients are those of a chain after the
warm-up; processor seconds count everything. The summary divides by the default's figures: geometric
means over seeds, and medians over the posteriors with the range of the seeds' medians. Results are
written after each run, and runs that the output holds are not repeated.

    python -m benchmarks.trajectories --threads 1 --output trajectories.json
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.posteriors import POSTERIORS, data_of
from benchmarks.samplers import SEEDS, quality
from benchmarks.targets import TARGETS
from benchmarks.timing import arguments, earlier, environment, report
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC
from pyro_tkam.infer.mcmc.chains import Adaptation
from pyro_tkam.infer.mcmc.ensemble_adaptation import EnsembleAdaptation
from pyro_tkam.infer.mcmc.judging import RHAT_LIMIT
from pyro_tkam.infer.mcmc.kernels.ensemble_hmc import SHORT_SHARE, SHORT_STEP
from pyro_tkam.infer.mcmc.metric import LARGEST_DENSE, Metric
from pyro_tkam.ops.batched import choose
from pyro_tkam.ops.hmc import Parking
from pyro_tkam.ops.langevin import (
    DIVERGENCE_THRESHOLD,
    Noise,
    Point,
    StepInfo,
    Target,
    Tuning,
)

HARDER = ("hierarchical, 205-d, centered", "horseshoe, 41-d")
QUARTER = math.pi / 2
PILOT_LENGTHS = tuple(QUARTER * factor for factor in (0.5, 0.75, 1.0, 1.5, 2.0))
RATIOS = {
    "per_gradient": ("effective_draws", "gradients"),
    "tail_per_gradient": ("tail_draws", "gradients"),
    "per_second": ("effective_draws", "process_seconds"),
}
Kernel = Callable[..., EnsembleHMC]


def turned(velocity: Tensor, force: Tensor, duration: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a unit velocity towards a force that is constant meanwhile.

    With ``e = g/|g|`` and ``δ = t |g| / (d - 1)``, ``u' ∝ u + e (sinh δ + (e·u)(cosh δ - 1))``, and
    ``(d - 1) log(cosh δ + (e·u) sinh δ)`` is the change of the kinetic energy. Both are written
    with ``exp(-δ)``, which does not overflow.

    :param velocity: ``u``, of length 1, ``(rows, *local, dim)``.
    :param force: ``g``, gradient of the log density, shaped alike.
    :param duration: ``t``, broadcastable to ``(rows, *local)``.
    :return: the velocity and the change, ``(rows, *local)``.
    """
    most = velocity.shape[-1] - 1
    size = force.norm(dim=-1, keepdim=True)
    direction = force / size.clamp_min(torch.finfo(force.dtype).tiny)
    along = (velocity * direction).sum(-1, keepdim=True).clamp(-1, 1)
    delta = (duration / most).unsqueeze(-1) * size
    shrunk = (-delta).exp()
    rest = 1 - shrunk
    moved = torch.addcmul(2 * shrunk * velocity, direction, rest * (1 + shrunk + along * rest))
    change = most * (delta + (0.5 * (1 + along + (1 - along) * shrunk.square())).log())
    return moved / moved.norm(dim=-1, keepdim=True), change.squeeze(-1)


def isokinetic_trajectory(
    start: Point, velocity: Tensor, step_size: Tensor, scale: Tensor, num_steps: int, target: Target
) -> tuple[Point, Tensor, Tensor, Tensor]:
    """Make leapfrog steps at constant speed in the coordinates ``z / s``.

    A row and datum at which density or gradient is not finite is parked, as in
    :func:`pyro_tkam.ops.hmc.trajectory`.

    :param start: where to start, with finite density.
    :param velocity: of length 1, ``(rows, *local, dim)``.
    :param step_size: length of a step, broadcastable to ``(rows, *local)``.
    :param scale: ``s``, broadcastable to ``(rows, *local, dim)``.
    :param num_steps: at least 1.
    :param target: the log density.
    :return: the end, the change of the kinetic energy, where the trajectory failed, and where it
        did so because the density was zero.
    """
    stride = step_size.unsqueeze(-1) * scale
    point = start
    velocity, kinetic = turned(velocity, scale * start.gradient, step_size / 2)
    parking = Parking(start)
    for step in range(num_steps):
        point = parking.reached(target(torch.addcmul(point.position, stride, velocity)), point)
        duration = step_size if step < num_steps - 1 else step_size / 2
        velocity, change = turned(velocity, scale * point.gradient, duration)
        kinetic = kinetic + change
    return point, kinetic, parking.failed, parking.outside


def isokinetic_step(
    point: Point,
    target: Target,
    tuning: Tuning,
    noise: Noise,
    num_steps: int,
    adjusted: bool = True,
) -> tuple[Point, StepInfo]:
    """Make a trajectory at constant speed from a fresh velocity, with a Metropolis test.

    The step is ``√d ε`` long, so that ``ε`` and the lengths made of it have the units of
    Hamiltonian trajectories, whose speed is about ``√d``. The energy that is recorded is the
    potential alone.

    :param point: current state, of 2 or more dimensions.
    :param target: the log density.
    :param tuning: ``ε`` as ``step_size`` and ``s`` as ``scale``.
    :param noise: from :meth:`Noise.draw` with ``num_uniforms >= 1``.
    :param num_steps: at least 1, not chosen by the state.
    :param adjusted: False takes every finite proposal that does not diverge.
    :return: the new state and what happened.
    """
    velocity = noise.momentum / noise.momentum.norm(dim=-1, keepdim=True)
    reach = tuning.step_size * math.sqrt(velocity.shape[-1])
    end, kinetic, failed, outside = isokinetic_trajectory(
        point, velocity, reach, tuning.scale, num_steps, target
    )
    ratio = end.log_density - point.log_density - kinetic
    ratio = torch.where(torch.isfinite(ratio) & ~failed, ratio, -torch.inf)
    accepted = ratio > (noise.uniforms[..., 0].log() if adjusted else -DIVERGENCE_THRESHOLD)
    evaluations = torch.full_like(accepted, num_steps, dtype=torch.int64)
    info = StepInfo(
        acceptance_rate=ratio.exp().clamp(max=1),
        accepted=accepted,
        diverging=(ratio < -DIVERGENCE_THRESHOLD) & ~outside,
        reversible=torch.ones_like(accepted),
        energy=-point.log_density,
        step_size=tuning.step_size.expand_as(ratio),
        evaluations=evaluations,
        screenings=torch.zeros_like(evaluations),
        row_evaluations=evaluations,
        failed=failed,
        outside=outside,
    )
    return choose(accepted, end, point), info


class IsokineticHMC(EnsembleHMC):
    """An ensemble with trajectories at constant speed; in one dimension, where a velocity of
    constant length cannot turn, with Hamiltonian ones.

    ``trajectory_length`` is in units of ``√d`` standard deviations.
    """

    def step(
        self, point: Point, target: Target, tuning: Tuning, adjusted: bool
    ) -> tuple[Point, StepInfo]:
        """Make a trajectory of all rows; without the Metropolis test if not ``adjusted``."""
        if point.position.shape[-1] == 1:
            return super().step(point, target, tuning, adjusted)
        stretch, chance = torch.rand(2, dtype=torch.float64).tolist()
        num_steps = max(1, math.ceil(2 * stretch * self.mean_steps(tuning.step_size)))
        if chance < SHORT_SHARE:
            tuning = replace(tuning, step_size=SHORT_STEP * tuning.step_size)
        return isokinetic_step(point, target, tuning, Noise.draw(point, 1), num_steps, adjusted)


class Pilot(EnsembleAdaptation):
    """Tries lengths in turn in the last window, and sets the one that promises most per gradient.

    As in ChEES (Hoffman, Radul and Sountsov 2021), what counts is how the squared distance
    ``|y - m|²`` from the mean changes, in the coordinates ``y`` of the metric: its autocorrelation
    ``ρ`` promises ``(1 - ρ)/(1 + ρ)`` effective draws a trajectory.
    """

    def __init__(self, kernel: PilotHMC, *options: Any) -> None:
        super().__init__(*options)
        self.kernel = kernel
        self.changes, self.spreads, self.costs = torch.zeros(3, len(PILOT_LENGTHS))
        self._former: Tensor | None = None

    def update(self, tuning: Tuning, position: Tensor, info: StepInfo) -> Tuning:
        """Return the tuning of the next step."""
        inner = position / tuning.scale
        squares = (inner - inner.mean(0)).square().sum(-1)
        tuning = super().update(tuning, position, info)
        if self._step <= self.ends[-2]:
            return tuning
        if self._former is not None:
            tried = (self._step - 1) % len(PILOT_LENGTHS)
            self.changes[tried] += (squares - self._former).square().mean()
            self.spreads[tried] += squares.var()
            self.costs[tried] += info.row_evaluations.max()
        self._former = squares
        last = self._step == self.ends[-1]
        chosen = self.best if last else self._step % len(PILOT_LENGTHS)
        self.kernel.trajectory_length = PILOT_LENGTHS[chosen]
        return tuning

    @property
    def best(self) -> int:
        """Number of the length that promises most."""
        correlation = (1 - self.changes / (2 * self.spreads)).clamp_min(0)
        return int(((1 - correlation) / (1 + correlation) / self.costs).argmax())


class PilotHMC(EnsembleHMC):
    """An ensemble whose trajectory length a pilot chooses at the end of its warm-up."""

    def adaptation(
        self, warmup_steps: int, dim: int | None = None, metric: Metric | None = None
    ) -> Adaptation:
        """Return windows of metric and step size, starting from a metric, with a pilot."""
        dense = dim is not None and dim <= LARGEST_DENSE
        return Pilot(self, warmup_steps, self.target_accept_prob, dense, metric)


KERNELS: dict[str, tuple[Kernel, dict[str, float]]] = {
    "default": (EnsembleHMC, {}),
    "shorter, × 0.75": (EnsembleHMC, {"trajectory_length": 0.75 * QUARTER}),
    "longer, × 1.5": (EnsembleHMC, {"trajectory_length": 1.5 * QUARTER}),
    "adapted": (PilotHMC, {}),
    "isokinetic, √d": (IsokineticHMC, {"trajectory_length": 1.0}),
    "isokinetic, 1.57 √d": (IsokineticHMC, {"trajectory_length": QUARTER}),
}


def measured(name: str, kernel: str, seed: int) -> dict[str, Any]:
    """Run chains; return what they gave and took."""
    make, options = KERNELS[kernel]
    pyro.set_rng_seed(100)
    known = name in POSTERIORS
    model = POSTERIORS[name].model if known else TARGETS[name]()
    data = (data_of(name),) if known else ()
    pyro.set_rng_seed(seed)
    chosen = make(model, **options)
    begin = time.process_time()
    mcmc = VectorizedMCMC(chosen, 500, disable_progbar=True)
    mcmc.run(*data)
    measures = mcmc.verdict.measures
    seconds = time.process_time() - begin
    stats = mcmc.sample_stats
    result = {
        "effective_draws": measures["smallest effective sample size"],
        "tail_draws": measures["smallest in a tail"],
        "rhat": measures["largest R-hat between groups"],
        "gradients": int(stats["n_steps"].sum()) // len(stats["n_steps"]),
        "process_seconds": seconds,
        "acceptance": stats["acceptance_rate"].mean().item(),
        "trajectory_length": chosen.trajectory_length,
        "findings": sorted(mcmc.verdict.names),
    }
    if known:
        found = quality(name, mcmc.get_samples(group_by_chain=True), *data)
        result["largest_error"] = found["largest_error"]
    return result


def keys(short: bool) -> list[str]:
    """Return the runs to make, kernels beside each other: ``posterior/kernel/seed``."""
    groups: list[list[str]] = [["arma-arma11"]] if short else [[*POSTERIORS], [*HARDER]]
    return [
        f"{name}/{kernel}/{seed}"
        for names in groups
        for seed in SEEDS[: 1 if short else None]
        for name in names
        for kernel in KERNELS
    ]


def ratios(runs: dict[str, Any], kernel: str, of: str) -> dict[str, list[float]]:
    """Return a kernel's figures over the default's, by posterior, one for each seed.

    :param runs: by ``posterior/kernel/seed``.
    :param kernel: its name.
    :param of: one of ``RATIOS``.
    """
    above, below = RATIOS[of]
    found: dict[str, list[float]] = {}
    for key, run in runs.items():
        name, each, seed = key.rsplit("/", 2)
        if each == kernel:
            default = runs[f"{name}/default/{seed}"]
            ratio = run[above] / run[below] / (default[above] / default[below])
            found.setdefault(name, []).append(ratio)
    return found


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """Return ratios to the default, and runs with a finding or an R-hat above 1.01, by kernel.

    :param runs: by ``posterior/kernel/seed``, of every kernel.
    """
    told: dict[str, Any] = {}
    for kernel in KERNELS:
        told[kernel] = {}
        for of in RATIOS:
            found = ratios(runs, kernel, of)
            means = {name: geometric_mean(each) for name, each in found.items()}
            seeds = zip(*(found[name] for name in POSTERIORS if name in found), strict=True)
            medians = [median(each) for each in seeds]
            told[kernel][of] = {
                "by_posterior": means,
                "median": median(mean for name, mean in means.items() if name in POSTERIORS),
                "seeds": [min(medians), max(medians)],
            }
        own = {key: run for key, run in runs.items() if key.split("/")[1] == kernel}
        told[kernel]["rhat"] = max(run["rhat"] for run in own.values())
        told[kernel]["failures"] = {
            key: run["findings"]
            for key, run in own.items()
            if run["findings"] or run["rhat"] > RHAT_LIMIT
        }
    return told


def main() -> None:
    """Make the runs that are missing."""
    options = arguments(__doc__)
    torch.set_default_dtype(torch.float64)
    output: Path | None = options.output
    known = earlier(output).get("runs", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measured("arma-arma11", "default", 0)  # the first run pays for what is loaded late
    for key in keys(options.short):
        if key in known:
            continue
        name, kernel, seed = key.rsplit("/", 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            known[key] = measured(name, kernel, int(seed))
        print(key, json.dumps(known[key]), flush=True)
        if output is not None:
            text = json.dumps({"environment": environment(), "runs": known}, indent=2)
            output.write_text(text + "\n")
    report({"summary": summary(known), "runs": known}, output)


if __name__ == "__main__":
    main()
