"""
Counts without a bound: their evidence by draws of the prior or a guide, against sums over counts.

An estimate may be 4.5 standard errors and 0.002 nats off.
"""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_tkam.infer import (
    SMC,
    ImportanceSampling,
    InverseTransformReparam,
    RandomWalk,
    log_evidence,
)
from tests.infer.evidence_problems import assert_close

Case = tuple[Callable[[], None], Tensor]
COUNTS = torch.arange(3000.0, dtype=torch.float64)
WAYS = [{}, {"method": "importance", "num_particles": 20_000}]


def seen_with_noise(prior: dist.Distribution, data: Tensor, noise: float) -> Case:
    """One count, measured several times, and its exact evidence."""

    def model() -> None:
        count = pyro.sample("count", prior)
        with pyro.plate("times", len(data)):
            pyro.sample("x", dist.Normal(count, noise), obs=data)

    likelihood = dist.Normal(COUNTS[:, None], noise).log_prob(data.double()).sum(-1)
    return model, (prior.log_prob(COUNTS) + likelihood).logsumexp(0)


def detected() -> Case:
    """Animals at four sites are detected with one chance, three times: counts share nothing."""
    data = torch.tensor([[3.0, 4, 2], [6, 5, 7], [1, 2, 0], [4, 4, 5]])

    def model() -> None:
        with pyro.plate("sites", 4):
            count = pyro.sample("count", dist.Poisson(8.0))
            each = dist.Binomial(count[..., None].expand(*count.shape, 3), 0.5)
            pyro.sample("x", each.to_event(1), obs=data)

    exact = torch.zeros((), dtype=torch.float64)
    for row in data.double():
        counts = COUNTS[int(row.max()) : 100]
        likelihood = dist.Binomial(counts[:, None].expand(-1, 3), 0.5).log_prob(row).sum(-1)
        exact = exact + (dist.Poisson(8.0).log_prob(counts) + likelihood).logsumexp(0)
    return model, exact


def detected_with_unknown_chance() -> Case:
    """A count and the chance of detection, a Beta, which is integrated exactly for each count."""
    data = torch.tensor([3.0, 5.0, 4.0])

    def model() -> None:
        chance = pyro.sample("chance", dist.Beta(4.0, 4.0))
        count = pyro.sample("count", dist.Poisson(9.0))
        with pyro.plate("times", 3):
            pyro.sample("x", dist.Binomial(count, chance), obs=data)

    counts, seen = COUNTS[5:200], data.double()
    missed = 3 * counts - seen.sum()
    ways = [_log_choose(counts, each) for each in seen]
    beta = torch.lgamma(4 + seen.sum()) + torch.lgamma(4 + missed) - torch.lgamma(8 + 3 * counts)
    likelihood = sum(ways) + beta - 2 * math.lgamma(4) + math.lgamma(8)
    return model, (dist.Poisson(9.0).log_prob(counts) + likelihood).logsumexp(0)


def _log_choose(total: Tensor, number: Tensor) -> Tensor:
    return torch.lgamma(total + 1) - torch.lgamma(number + 1) - torch.lgamma(total - number + 1)


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize(
    "case",
    [
        seen_with_noise(dist.Poisson(5.0), torch.tensor([7.2, 8.5, 7.9]), 1.0),
        seen_with_noise(dist.Poisson(1000.0), torch.tensor([1040.0]), 2.0),
        seen_with_noise(dist.Geometric(0.3), torch.tensor([4.3]), 0.5),
        seen_with_noise(
            dist.NegativeBinomial(3.0, probs=torch.tensor(0.7)), torch.tensor([9.0]), 2.0
        ),
        detected(),
        detected_with_unknown_chance(),
    ],
    ids=["Poisson", "large Poisson", "Geometric", "NegativeBinomial", "sites", "unknown chance"],
)
def test_evidence_of_counts(case: Case, options: dict[str, object]) -> None:
    model, exact = case
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, **options)
    assert_close(evidence, exact.item())
    assert evidence.verdict.trusted, str(evidence)


def noisy(model: Callable[[], None]) -> Callable[[], None]:
    """Return the model with its count as a function of normal noise."""
    return pyro.poutine.reparam(model, {"count": InverseTransformReparam()})


FAR = seen_with_noise(dist.Poisson(20.0), torch.tensor([60.0]), 1.0)


def only_draws_advised(verdict, option: str) -> bool:
    return {each.advice for each in verdict.findings} == {f"{option}, or use a better guide"}


def test_a_count_that_no_prior_draw_reaches_takes_a_guide() -> None:
    """Chains, tempered or not, refuse the model: advice must not name them."""
    model, exact = FAR

    def guide() -> None:
        pyro.sample("count", dist.Poisson(55.0))

    pyro.set_rng_seed(0)
    lost = log_evidence(model, max_evaluations=100_000)
    assert only_draws_advised(lost.verdict, "raise max_evaluations")
    draws = ImportanceSampling(model).run()
    assert only_draws_advised(draws.verdict, "draw more particles")
    found = log_evidence(model, guide=guide)
    assert_close(found, exact.item())
    assert found.verdict.trusted


@pytest.mark.parametrize(
    "case",
    [
        seen_with_noise(dist.Poisson(5.0), torch.tensor([7.2, 8.5, 7.9]), 1.0),
        seen_with_noise(dist.Geometric(0.3), torch.tensor([4.3]), 0.5),
        detected(),
    ],
    ids=["Poisson", "Geometric", "sites"],
)
def test_smc_moves_the_noise_of_counts(case: Case) -> None:
    """An error of four runs is told from these four: it may be 7 times as large."""
    model, exact = case
    pyro.set_rng_seed(0)
    smc = SMC(noisy(model), 256, kernel=RandomWalk(), disable_progbar=True)
    smc.run()
    assert smc.verdict.trusted, str(smc.verdict)
    assert abs(smc.log_evidence.value - exact) < 7 * smc.log_evidence.standard_error
    assert smc.log_evidence.standard_error < 0.15


def test_the_default_finds_a_far_count_by_its_noise() -> None:
    """No draw of the count itself comes near."""
    model, exact = FAR
    pyro.set_rng_seed(0)
    evidence = log_evidence(noisy(model))
    assert_close(evidence, exact.item())
    assert evidence.verdict.trusted, str(evidence)


@pytest.mark.parametrize(
    "run",
    [
        lambda model: SMC(model, kernel=RandomWalk()).run(),
        lambda model: log_evidence(model, method="steppingstone"),
    ],
)
def test_chains_refuse_counts_and_name_the_remedy(run) -> None:
    remedies = "use importance sampling, or, .* apply InverseTransformReparam"
    with pytest.raises(ValueError, match=rf"got 'count' \(Poisson\).* {remedies}"):
        run(FAR[0])
