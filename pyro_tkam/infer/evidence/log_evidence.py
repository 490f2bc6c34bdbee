"""The log evidence of a Pyro model, by a named method, and of many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

from pyro_tkam._checks import iterable, one_of, whole_number
from pyro_tkam._progress import Progress
from pyro_tkam._threads import in_turn
from pyro_tkam.infer.evidence.annealed import Annealing
from pyro_tkam.infer.evidence.importance import ImportanceSampling
from pyro_tkam.infer.evidence.joint import JointEvidence
from pyro_tkam.infer.evidence.local import LocalEvidence
from pyro_tkam.infer.evidence.prior_factors import PriorFactorsAsData, has_prior_factors
from pyro_tkam.infer.evidence.proposals import Proposal
from pyro_tkam.infer.mcmc.kernels.automala import AutoMALA
from pyro_tkam.infer.mcmc.kernels.base import LangevinKernel, check_kernel
from pyro_tkam.infer.mcmc.kernels.mala import MALA
from pyro_tkam.infer.model.arguments import check_callable, keywords
from pyro_tkam.infer.model.density import ModelDensity
from pyro_tkam.infer.model.plates import CoupledDataError, common_plates
from pyro_tkam.infer.model.requirements import Checked, check_guide, check_model, data_seen
from pyro_tkam.infer.model.sites import Model, takes_prior_draws
from pyro_tkam.infer.parallel import map_seeded
from pyro_tkam.infer.posterior.budget import Budget
from pyro_tkam.infer.results import Evidence
from pyro_tkam.infer.tempering.parallel_tempering import ParallelTempering

FEWEST_EVALUATIONS = 20_000
LOCAL_SE = 0.01
LOCAL_EVALUATIONS = 400_000
JOINT_SE = 0.03
JOINT_EVALUATIONS = 3_000_000


@dataclass(frozen=True)
class Call:
    """The kernel that moves a model's chains, and what the model is called on."""

    kernel: LangevinKernel
    checked: Checked

    def density(self, *, standard_normal: bool) -> ModelDensity:
        """Return the model's density, without running the model anew."""
        options = {"standard_normal": standard_normal, "first": self.checked.first}
        density = self.kernel.density(self.checked.args, self.checked.kwargs, None, **options)
        assert isinstance(density, ModelDensity)
        return density

    def seen_through(self, handler: Callable[[Model], Model]) -> Call:
        """Return the call of the model under a handler, checked anew."""
        assert self.kernel.model is not None
        model = handler(self.kernel.model)
        checked = check_model(model, self.checked.args, self.checked.kwargs)
        return Call(self.kernel.with_model(model), checked)

    def joint(self) -> Call:
        """Return the same call with all data sampled and weighed as a whole."""
        return replace(self, kernel=self.kernel.with_options(batch_plates=()))


@in_turn
def log_evidence(
    model: Model,
    *args: Any,
    method: str = "auto",
    model_kwargs: Mapping[str, Any] | None = None,
    kernel: LangevinKernel | None = None,
    **options: Any,
) -> Evidence:
    """
    Estimate ``log p(x) = log ∫ p(x|z) p(z) dz`` of a Pyro model, with its standard error and a
    diagnosis.

    ``"auto"`` first weights prior draws, which is enough if the data say little, and then draws
    from Student-t distributions at the optima of the posterior. If neither works, it runs 64 chains
    from a tempered start. It bridges from distributions fitted to half of the chains to the other
    half, or weights draws from these distributions. It checks each estimate against two searches,
    climbs from prior draws and 65,536 prior draws, and continues until an estimate is trusted and
    its standard error reaches ``target_se``. It stops near ``max_evaluations``, and says so if the
    budget runs out first. Where all latents lie in the plates of the data, the evidence is per
    datum, from tempered runs of :class:`MALA` instead of these chains. If a discrete latent has
    no finite support, such as a Poisson count, it weights draws from the prior or the guide.

    :param model: a Pyro model with observed sites, called on ``args``.
    :param method: ``"auto"``; ``"importance"`` from prior or guide; ``"ais"`` (annealed importance
        sampling); or from a tempered run ``"steppingstone"`` (Raj 2025, arXiv:2506.14167, Eq. 35),
        ``"thermodynamic"`` (Eq. 31), ``"bar"`` (Bennett's ratio) or ``"bridge"``.
    :param model_kwargs: the model's keyword arguments.
    :param kernel: moves tempered chains; if None, :class:`AutoMALA`, and :class:`MALA` for
        ``"auto"``, which takes an :class:`EnsembleHMC` where data share latents.
    :param options: for ``"auto"``: ``target_se`` (nats; 0.03, and 0.01 per datum),
        ``max_evaluations`` (3,000,000, and 400,000 per datum; at least 20000), ``disable_progbar``
        (on a terminal, a bar appears after two seconds) and ``guide`` (used if other estimates are
        not trusted, but agree with its own). For ``"importance"``: those of
        :class:`ImportanceSampling`. For ``"ais"``: ``num_particles`` (500), ``steps_between`` (10),
        ``warmup_steps`` (128). For the others: those of :class:`ParallelTempering`.
    :return: value and standard error in nats, with a verdict.
    :raises ValueError: if the method is unknown, an option is out of range, or the model has no
        data, a datum that isn't finite, an improper prior, a likelihood that is zero wherever the
        prior draws, or data and a distribution that broadcast against each other.
    :raises TypeError: if the method doesn't take an option.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> pyro.set_rng_seed(0)
    >>> evidence = log_evidence(model, torch.tensor(0.5))  # exactly log N(0.5; 0, sqrt(2)) = -1.328
    >>> evidence.verdict.trusted, abs(evidence.value + 1.328) < 0.05
    (True, True)
    """
    one_of("method", method, METHODS)
    _check_options(method, options)
    check_callable(model)
    given = keywords(model_kwargs)
    kernel = DEFAULT_KERNELS[method](model) if kernel is None else check_kernel(kernel)
    if kernel.model != model:  # bound methods are equal, not the same
        raise ValueError(
            f"kernel must be made from the model {model}, got one made from {kernel.model}"
        )
    checked = check_model(model, args, given)
    if options.get("guide") is not None:
        check_guide(options["guide"], model, checked)
    call = Call(kernel, checked)
    seen = data_seen(model, checked)
    if not has_prior_factors(checked):
        return replace(_estimate(call, method, options), data=seen)
    with_data, without = (
        _estimate(call.seen_through(PriorFactorsAsData(hide)), method, options)
        for hide in (False, True)
    )
    ratio = with_data - without
    spent = with_data.evaluations + without.evaluations
    return Evidence(
        ratio.value,
        ratio.standard_error,
        with_data.method,
        ratio.verdict,
        evaluations=spent,
        data=seen,
    )


def _estimate(call: Call, method: str, options: dict[str, Any]) -> Evidence:
    try:
        return METHODS[method](call, **options)
    except CoupledDataError:
        return METHODS[method](call.joint(), **options)


def _auto(call: Call, **options: Any) -> Evidence:
    return automatic_evidence(call.kernel, call.checked, **options)


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
    if takes_prior_draws(checked.first.plain):
        sampling = ImportanceSampling(
            kernel.model,
            guide,
            FEWEST_EVALUATIONS,
            target_se=target_se or JOINT_SE,
            max_particles=max_evaluations or JOINT_EVALUATIONS,
        )
        evidence = sampling.draw(checked).evidence
        verdict = evidence.verdict.advising("raise max_evaluations, or use a better guide")
        return replace(evidence, verdict=verdict)
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


def _importance(call: Call, **options: Any) -> Evidence:
    joint = {"joint": call.kernel.samples_jointly}
    return ImportanceSampling(call.kernel.model, **(joint | options)).draw(call.checked).evidence


def _annealed(call: Call, **options: Any) -> Evidence:
    return Annealing(call.kernel, call.density(standard_normal=True), **options).evidence()


def _tempered(method: str) -> Callable[..., Evidence]:
    def estimate(call: Call, **options: Any) -> Evidence:
        defaults = {"num_samples": 500, "num_chains": 8, "disable_progbar": True}
        tempering = ParallelTempering(call.kernel, **(defaults | options))
        tempering.prepared = call.density(standard_normal=tempering.standard_normal)
        return tempering.run(*call.checked.args, **call.checked.kwargs).log_evidence(method)

    return estimate


def _check_options(method: str, options: dict[str, Any]) -> None:
    parameters = signature(ESTIMATORS.get(method, ParallelTempering)).parameters.values()
    takes = sorted(
        each.name
        for each in parameters
        if each.default is not each.empty or each.name == "num_samples"
    )
    unknown = sorted(set(options) - set(takes))
    if unknown:
        raise TypeError(
            f"options must be among {takes} for method {method!r}, got {unknown}; "
            "keyword arguments of the model belong in model_kwargs"
        )


ESTIMATORS: dict[str, Callable[..., Any]] = {
    "auto": automatic_evidence,
    "importance": ImportanceSampling,
    "ais": Annealing,
}
"""What is given the options; the other methods run :class:`ParallelTempering`."""

METHODS: dict[str, Callable[..., Evidence]] = {
    "auto": _auto,
    "importance": _importance,
    "ais": _annealed,
    **{name: _tempered(name) for name in ("steppingstone", "thermodynamic", "bar", "bridge")},
}


DEFAULT_KERNELS: dict[str, Callable[[Model], LangevinKernel]] = {
    **dict.fromkeys(METHODS, AutoMALA),
    "auto": MALA,
}
"""
A step of MALA takes an evaluation, one of AutoMALA some 14: draws need only lead a proposal to the
mass.
"""

OF_ALL = {"method", "model_kwargs", "kernel"}
"""What :func:`log_evidence` takes with every method."""


@dataclass(frozen=True)
class _OneEvidence:
    """What a worker computes; a lambda could not be pickled."""

    model: Model
    options: dict[str, Any]

    def __call__(self, args: Any) -> Evidence:
        given = args if isinstance(args, tuple) else (args,)
        return log_evidence(self.model, *given, **self.options)


def log_evidences(
    model: Model, many: Iterable[Any], *, executor: Executor | None = None, **options: Any
) -> list[Evidence]:
    """
    Estimate the log evidence of a model for each of many arguments, here or on many workers.

    Each estimate has its own seed, so you can repeat an argument to see how much its estimates
    vary. Results are the same to the bit on every executor. If one model holds all data in a plate,
    :func:`log_evidence` of that model is faster.

    :param model: a Pyro model; workers in other processes must be able to unpickle it.
    :param many: its arguments, a tuple for each call, or its only argument: a tensor's rows are
        the data one by one.
    :param executor: see :func:`map_seeded`.
    :param options: those of :func:`log_evidence`.
    :return: one evidence for each argument; ``sum`` adds the evidences of independent data.
    :raises TypeError, ValueError: as :func:`log_evidence` does.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> pyro.set_rng_seed(0)
    >>> [round(each.value, 1) for each in log_evidences(model, torch.tensor([0.0, 2.0]))]
    [-1.3, -2.3]
    """
    method = options.get("method", "auto")
    one_of("method", method, METHODS)
    _check_options(method, {name: options[name] for name in options.keys() - OF_ALL})
    check_callable(model)
    iterable("many", many, "arguments")
    return map_seeded(_OneEvidence(model, options), many, executor=executor)
