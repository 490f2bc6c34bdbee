"""The default evidence: of each datum where latents lie in its plates, else of all data at once."""

from __future__ import annotations

from typing import Any

from pyro_tkam._checks import whole_number
from pyro_tkam.infer.evidence.budget import Budget
from pyro_tkam.infer.evidence.importance import ImportanceSampling
from pyro_tkam.infer.evidence.joint import JointEvidence
from pyro_tkam.infer.evidence.local import LocalEvidence
from pyro_tkam.infer.evidence.progress import Progress
from pyro_tkam.infer.evidence.proposals import Proposal
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel
from pyro_tkam.infer.model.plates import common_plates
from pyro_tkam.infer.model.requirements import Checked
from pyro_tkam.infer.results import Evidence

FEWEST_EVALUATIONS = 20_000
LOCAL_SE, LOCAL_EVALUATIONS = 0.01, 400_000
JOINT_SE, JOINT_EVALUATIONS = 0.03, 3_000_000


def automatic_evidence(
    kernel: LangevinKernel,
    checked: Checked,
    *,
    guide: Any = None,
    target_se: float | None = None,
    max_evaluations: int | None = None,
    disable_progbar: bool | None = None,
) -> Evidence:
    """Estimate by :class:`LocalEvidence` or :class:`JointEvidence`.

    :param kernel: what moves chains.
    :param checked: the model's arguments, checked.
    :param guide: a guide to draw importance samples from, where other estimates can't be trusted.
    :param target_se: standard error to reach, in nats: 0.01 for each datum of a model with local
        plates and 0.03 else, if None.
    :param max_evaluations: most evaluations of likelihood or gradient, at least 20000: 400,000 with
        local plates and 3,000,000 else, if None.
    :param disable_progbar: show no progress; if None, only on a terminal.
    :raises ValueError: if a number is out of range, or ``max_evaluations`` is too small for the
        model.
    """
    if target_se is not None and (not isinstance(target_se, int | float) or not target_se > 0):
        raise ValueError(f"target_se must be a positive number or None, got {target_se!r}")
    if max_evaluations is not None:
        whole_number("max_evaluations", max_evaluations, FEWEST_EVALUATIONS)
    if (proposal := _local_prior(kernel, checked)) is not None:
        return LocalEvidence(
            kernel,
            checked,
            proposal,
            guide=guide,
            target_se=target_se or LOCAL_SE,
            max_evaluations=max_evaluations or LOCAL_EVALUATIONS,
        ).run()
    budget = Budget(max_evaluations or JOINT_EVALUATIONS)
    with Progress(disable_progbar) as progress:
        return JointEvidence(kernel, checked, guide, target_se or JOINT_SE, budget, progress).run()


def _local_prior(kernel: LangevinKernel, checked: Checked) -> Proposal | None:
    """Return the prior of a model with local plates; None where it has none."""
    if kernel.samples_jointly or not common_plates(checked.first.plain):
        return None
    proposal = ImportanceSampling(kernel.model).propose(checked, joint=False)
    return proposal if proposal.structure.plates else None
