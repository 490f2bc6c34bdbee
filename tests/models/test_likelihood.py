"""
Likelihoods in the model: the evidence by draws against exact ones, integers as data, and a learned
noise.
"""

import math

import pyro
import pytest
import torch
from torch import nn

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import (
    TKAM,
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    GaussianLikelihood,
    MixturePrior,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import SequenceGenerator


def sequence() -> SequenceLikelihood:
    return SequenceLikelihood(SequenceGenerator(1, 3, 4, width=8, num_heads=2, num_layers=1))


def model(likelihood, generator: nn.Module) -> TKAM:
    return TKAM(MixturePrior(TiltedPrior((1, 2), grid_size=5)), generator, likelihood)


# likelihood, generator, data
INSTANCES = {
    "gaussian": lambda: (GaussianLikelihood(0.5), nn.Linear(1, 4), torch.randn(3, 4)),
    "learned": lambda: (GaussianLikelihood(0.5, learned=True), nn.Linear(1, 4), torch.randn(3, 4)),
    "bernoulli": lambda: (BernoulliLikelihood(), nn.Linear(1, 4), torch.rand(3, 4).round()),
    "continuous_bernoulli": lambda: (
        ContinuousBernoulliLikelihood(),
        nn.Linear(1, 4),
        torch.rand(3, 4),
    ),
    "categorical": lambda: (
        CategoricalLikelihood(),
        nn.Sequential(nn.Linear(1, 12), nn.Unflatten(-1, (4, 3))),
        torch.randint(3, (3, 4)),
    ),
    "label": lambda: (CategoricalLikelihood(event_dim=0), nn.Linear(1, 3), torch.randint(3, (3,))),
    "sequence": lambda: (sequence(), nn.Identity(), torch.randint(3, (3, 4))),
}


@pytest.mark.parametrize("name", INSTANCES)
def test_the_evidence_is_that_of_quadrature_and_every_parameter_learns(name: str) -> None:
    """5,000 draws; tolerances above five standard errors, false alarms below 1e-5."""
    pyro.set_rng_seed(0)
    likelihood, generator, x = INSTANCES[name]()
    fn = model(likelihood, generator)
    u = (torch.arange(2000) + 0.5) / 2000
    with torch.no_grad():
        scored = likelihood(generator(fn.prior().icdf(u[:, None]))[:, None])
        exact = scored.expand((2000, 3)).log_prob(x).logsumexp(0) - math.log(2000)
    elbo = ImportanceMLE(5000)
    elbo(fn, None)(x).backward()
    torch.testing.assert_close(elbo.statistics.log_evidence, exact, atol=0.1, rtol=0)
    still = [
        n for n, p in fn.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)
    ]
    # the token four places before the last of four
    assert not [n for n in still if "embed.3" not in n]
    assert fn.generate(5).shape == fn(size=5).shape == (5, *x.shape[1:])


def test_a_learned_noise_finds_the_datas() -> None:
    pyro.set_rng_seed(0)
    x = 0.3 * torch.randn(500, 4)
    likelihood = GaussianLikelihood(1.0, learned=True)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-likelihood(torch.zeros(4)).log_prob(x).mean()).backward()
        optimizer.step()
    assert abs(likelihood.noise_scale.item() - x.square().mean().sqrt().item()) < 1e-3


def test_bad_sequences_are_refused() -> None:
    pyro.set_rng_seed(0)
    fn = model(sequence(), nn.Identity())
    with pytest.raises(ValueError, match=r"x must have rows of shape \(4,\), got \(5,\)"):
        fn(torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="tokens must hold classes from 0 to 2, got 3"):
        ImportanceMLE(5).loss(fn, None, torch.full((2, 4), 3))
    with pytest.raises(TypeError, match=r"tokens must hold integers, got torch\.float32"):
        ImportanceMLE(5).loss(fn, None, torch.zeros(2, 4))
