"""Importance sampling from the prior or a guide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_tkam._checks import flag, one_of, share, whole_number
from pyro_tkam._threads import in_turn
from pyro_tkam.infer.evidence.proposals import Proposal
from pyro_tkam.infer.model.arguments import check_callable
from pyro_tkam.infer.model.attempt import check_memory, telling_memory
from pyro_tkam.infer.model.plates import CoupledDataError
from pyro_tkam.infer.model.requirements import Checked, check_guide, check_model
from pyro_tkam.infer.model.sites import takes_prior_draws
from pyro_tkam.infer.posterior.weights import effective_draws, evidence_of_weights
from pyro_tkam.infer.results import Evidence, Finding, Verdict
from pyro_tkam.ops.estimators import pareto_smooth
from pyro_tkam.ops.resampling import RESAMPLERS

SPARE = 1.5
"""Particles over those that the error of the first ones asks for, as it is an estimate itself."""
FEWEST_PARTICLES = 25
"""Draws of which a Pareto k-hat can be told."""


@dataclass(frozen=True)
class WeightedDraws:
    """Weighted draws from the posterior, per datum if the latents are.

    :param log_weights: ``log p(x, z_s) - log q(z_s)``, ``(draw, *local)``, in nats.
    :param values: the drawn sites, each ``(draw, *plates, *event)``, of size 1 where data share the
        draws.
    :param proposal: the distribution that they come from.
    :param resampler: turns log weights ``(*local, draw)`` into indices.
    :param ess_threshold: share of effective draws below which :attr:`weights` are those of
        resampled draws.
    :param target_se: requested standard error of the evidence, in nats.
    """

    log_weights: Tensor
    values: dict[str, Tensor]
    proposal: Proposal
    resampler: Callable[..., Tensor]
    ess_threshold: float
    target_se: float = math.inf

    @property
    def num_particles(self) -> int:
        """Number of draws ``S``."""
        return len(self.log_weights)

    @cached_property
    def weights(self) -> Tensor:
        """
        Normalized weights ``(draw, *local)``; multiples of ``1/S`` where the effective sample size
        is too small.
        """
        weights = self.log_weights.softmax(0)
        few = self.effective_sample_size < self.ess_threshold * self.num_particles
        if not few.any():
            return weights
        counts = torch.zeros_like(weights).scatter_add(0, self.ancestors, torch.ones_like(weights))
        return torch.where(few, counts / self.num_particles, weights)

    @cached_property
    def smoothed_weights(self) -> Tensor:
        """
        Normalized weights ``(draw, *local)``, the largest of them Pareto-smoothed: means over the
        posterior have a smaller error with them, and a small bias.
        """
        return pareto_smooth(self.log_weights.movedim(0, -1)).log_weights.softmax(-1).movedim(-1, 0)

    @cached_property
    def distinct_draws(self) -> Tensor:
        """Number of different draws among :attr:`samples`, ``(*local)``."""
        ordered = self.ancestors.sort(0).values
        return 1 + (ordered.diff(dim=0) != 0).sum(0)

    @cached_property
    def effective_sample_size(self) -> Tensor:
        """``1 / Σ w²`` of the normalized weights, ``(*local)``, in draws."""
        return effective_draws(self.log_weights)

    @cached_property
    def khat(self) -> Tensor:
        """Pareto k-hat of the weights, ``(*local)``: below 0.7 they can be trusted."""
        return pareto_smooth(self.log_weights.movedim(0, -1)).khat

    @property
    def verdict(self) -> Verdict:
        """Whether the weights can be trusted, and whether the evidence has the requested error."""
        return self.evidence.verdict

    @cached_property
    def evidence(self) -> Evidence:
        """``log (1/S) Σ_s w_s``, of all data and of each."""
        evidence = evidence_of_weights(self.log_weights)
        verdict = evidence.verdict
        if evidence.standard_error > self.target_se:
            seen = (
                f"standard error {evidence.standard_error:.3g} after {self.num_particles} draws, "
                f"target {self.target_se:.3g}"
            )
            advice = "raise max_particles, or use a better guide"
            verdict = verdict + Verdict((Finding("target not reached", seen, advice),))
        if takes_prior_draws(self.proposal.structure.trace):
            verdict = verdict.advising("draw more particles, or use a better guide")
        return replace(evidence, verdict=verdict)

    @cached_property
    def samples(self) -> dict[str, Tensor]:
        """Equally weighted posterior draws by site, resampled, each ``(draw, *site shape)``."""
        return {
            name: self.proposal.gather(name, value, self.ancestors)
            for name, value in self.values.items()
        }

    @cached_property
    def ancestors(self) -> Tensor:
        """Index of the weighted draw behind each of :attr:`samples`, ``(draw, *local)``."""
        return self.resampler(self.log_weights.movedim(0, -1)).movedim(-1, 0)


class ImportanceSampling:
    """Importance sampling of any Pyro model, from its prior or from a guide.

    Weights are ``w_s = p(x, z_s) / q(z_s)`` and the evidence is ``(1/S) Σ_s w_s`` (Raj 2025,
    arXiv:2506.14167, Eq. 26-28). Where all latents lie in the plates of the data, each datum has
    its own weights and evidence; if the prior is the same for all data, they share its draws. Draws
    carry no gradient.

    :param model: a Pyro model.
    :param guide: a Pyro guide that draws all latent sites; None draws from the prior.
    :param num_particles: number of draws ``S``, at least 25.
    :param resampler: ``"residual"``, ``"multinomial"``, ``"systematic"`` or ``"stratified"``.
    :param ess_threshold: weights are resampled where their effective sample size is below this
        share of ``S``.
    :param target_se: standard error of the evidence to reach, in nats: the first ``num_particles``
        draws decide how many more are made.
    :param max_particles: maximum number of draws in total.
    :param joint: weight all data as a whole, even if they are independent.
    :raises ValueError: for an unknown name or a number out of range.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("data", len(x)):
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> draws = ImportanceSampling(model, num_particles=1000).run(torch.zeros(3))
    >>> draws.evidence.per_datum.shape, draws.khat.shape, draws.samples["z"].shape
    (torch.Size([3]), torch.Size([3]), torch.Size([1000, 3]))
    """

    def __init__(
        self,
        model: Any,
        guide: Any = None,
        num_particles: int = 1000,
        resampler: str = "residual",
        ess_threshold: float = 0.5,
        target_se: float | None = None,
        max_particles: int = 1_000_000,
        joint: bool = False,
    ) -> None:
        one_of("resampler", resampler, RESAMPLERS)
        whole_number("num_particles", num_particles, FEWEST_PARTICLES)
        check_callable(model)
        if guide is not None and not callable(guide):
            raise TypeError(f"guide must be callable or None, got {type(guide).__name__}")
        share("ess_threshold", ess_threshold)
        if target_se is not None:
            if not isinstance(target_se, int | float) or not target_se > 0:
                raise ValueError(f"target_se must be a positive number or None, got {target_se!r}")
            whole_number("max_particles", max_particles, num_particles)
        self.target_se = target_se
        self.max_particles = max_particles
        self.model = model
        self.guide = guide
        self.num_particles = num_particles
        self.ess_threshold = ess_threshold
        self.joint = flag("joint", joint)
        self._resampler = RESAMPLERS[resampler]

    @in_turn
    def run(self, *args: Any, **kwargs: Any) -> WeightedDraws:
        """Draw and weigh on the model's arguments.

        :raises NotImplementedError: if a plate of the model subsamples.
        :raises ValueError: if the model has no latent or no observed site, data that
            :func:`log_evidence` refuses, or an improper or scaled prior; if the guide does not draw
            the model's latent sites; or if no weight is finite and positive.
        :raises MemoryError: if there is no memory for so many draws.
        """
        checked = check_model(self.model, args, kwargs)
        if self.guide is not None:
            check_guide(self.guide, self.model, checked)
        return self.draw(checked)

    def draw(self, checked: Checked) -> WeightedDraws:
        """Draw and weigh on arguments that are checked, as :meth:`run` does."""
        try:
            return self.weigh(self.propose(checked, joint=self.joint))
        except CoupledDataError:
            return self.weigh(self.propose(checked, joint=True))

    def propose(self, checked: Checked, *, joint: bool) -> Proposal:
        """Prepare to draw on arguments that are checked.

        :param checked: what :func:`check_model` returned.
        :param joint: weigh all data as a whole.
        """
        given = (checked.args, checked.kwargs)
        return Proposal(self.model, self.guide, *given, trace=checked.first.plain, joint=joint)

    def weigh(self, proposal: Proposal) -> WeightedDraws:
        """Draw from a proposal and weigh, as :meth:`run` does.

        :raises ValueError: if no weight is finite and positive.
        :raises CoupledDataError: if draws show that data are not independent.
        :raises MemoryError: if there is no memory for so many draws.
        """
        check_memory("num_particles", self.num_particles, proposal.bytes_a_draw)
        with telling_memory("num_particles", self.num_particles):
            parts = [proposal.draw(self.num_particles)]
        _check(parts[0][0])
        target = math.inf if self.target_se is None else self.target_se
        more = self._more(parts[0][0], target)
        check_memory("max_particles", sum(more), proposal.bytes_a_draw)
        with telling_memory("max_particles", self.max_particles):
            parts += [proposal.draw(num) for num in more]
        log_weights = torch.cat([weights for weights, _ in parts])
        _check(log_weights)
        values = {name: torch.cat([each[name] for _, each in parts]) for name in parts[0][1]}
        proposal.check_independence((log_weights, values))
        return WeightedDraws(
            log_weights, values, proposal, self._resampler, self.ess_threshold, target
        )

    def _more(self, first: Tensor, target: float) -> list[int]:
        """Sizes of the batches that the target takes after a first one."""
        error = evidence_of_weights(first).standard_error
        wanted = min(SPARE * (error / target) ** 2 * len(first), self.max_particles)
        if error <= target:
            return []
        full, rest = divmod(math.ceil(wanted) - len(first), len(first))
        return [len(first)] * full + [rest] * (rest > 0)


def _check(log_weights: Tensor) -> None:
    if log_weights.numel() == 0:
        raise ValueError("model must have at least one datum, got empty data")
    if not (log_weights < torch.inf).all():
        raise ValueError(
            "model must have a log likelihood below +inf and not NaN, got NaN or +inf at some "
            "draws; are the data finite?"
        )
    if not (log_weights.amax(0) > -torch.inf).all():
        raise ValueError("model must have a likelihood above zero, got zero at every draw")
