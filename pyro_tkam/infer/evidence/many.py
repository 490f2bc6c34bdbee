"""Evidences of one model at many arguments."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from pyro_tkam.infer.evidence.log_evidence import log_evidence
from pyro_tkam.infer.model.sites import Model
from pyro_tkam.infer.parallel import map_seeded
from pyro_tkam.infer.results import Evidence


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
    Estimate the log evidence of a model at each of many arguments, here or on many workers.

    Each estimate has a seed of its own, so that the same argument may be given several times, to
    see how its estimates scatter. Results are the same to the bit on every executor. Where one
    model holds all data in a plate, :func:`log_evidence` of that model is faster.

    :param model: a Pyro model; workers in other processes must be able to unpickle it.
    :param many: its arguments, a tuple for each call, or its only argument: a tensor's rows are
        the data one by one.
    :param executor: see :func:`map_seeded`.
    :param options: those of :func:`log_evidence`.
    :return: one evidence for each; ``sum`` adds up those of independent data.
    :raises TypeError, ValueError: as :func:`log_evidence` does.

    >>> import pyro, torch, pyro.distributions as dist
    >>> def model(x):
    ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    >>> pyro.set_rng_seed(0)
    >>> [round(each.value, 1) for each in log_evidences(model, torch.tensor([0.0, 2.0]))]
    [-1.3, -2.3]
    """
    return map_seeded(_OneEvidence(model, options), many, executor=executor)
