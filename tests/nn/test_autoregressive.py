"""The autoregressive prior as a module: its blocks, its labels, and its fit to draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from pyro_tkam.distributions import SharedCells
from pyro_tkam.nn import AutoregressivePrior
from pyro_tkam.nn.density_fit import fit_marginals

PAIR = MultivariateNormal(torch.tensor([1.0, -20.0]), torch.tensor([[4.0, 5.4], [5.4, 9.0]]))
INFORMATION = -0.5 * math.log(1 - 0.9**2)  # between the two, in nats


def test_training_starts_from_independent_standard_normals():
    z = torch.randn(7, 5)
    for context in ("perceptron", "kan"):
        fn = AutoregressivePrior(5, hidden=(16,), context=context)()
        exact = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        torch.testing.assert_close(fn.log_prob(z), exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("blocks", "sizes"), [(None, (1,) * 7), (1, (7,)), (3, (2, 2, 3)), ((4, 3), (4, 3))]
)
def test_blocks_are_as_equal_as_can_be(blocks, sizes):
    assert AutoregressivePrior(7, blocks, hidden=(8,)).blocks == sizes


@pytest.mark.parametrize(
    "options",
    [{"blocks": 8}, {"blocks": 0}, {"blocks": (3, 3)}, {"blocks": (7, 0)}, {"context": "lstm"}],
)
def test_refuses_blocks_and_contexts_that_are_none(options):
    with pytest.raises(ValueError, match="must be"):
        AutoregressivePrior(7, **options)


def test_a_label_must_be_given_where_there_are_labels_only():
    with pytest.raises(ValueError, match="label must be given for a prior with labels, got None"):
        AutoregressivePrior(3, num_labels=2, hidden=(8,))()
    with pytest.raises(
        ValueError, match="label must be None for a prior without labels, got labels"
    ):
        AutoregressivePrior(3, hidden=(8,))(torch.zeros(4, dtype=torch.int64))


def test_marginals_have_the_moments_of_the_draws():
    """The gradient of a maximum of likelihood: mean basis functions of draws and density agree."""
    torch.manual_seed(0)
    cells = SharedCells.over(-4.0, 4.0, like=torch.zeros((), dtype=torch.float64))
    draws = torch.cat([torch.randn(500, 2) - 2, 0.3 * torch.randn(500, 2) + 1]).double()
    shares = torch.rand(1000, dtype=torch.float64)
    shares = shares / shares.sum()
    coefficients = fit_marginals(cells, draws, shares).requires_grad_()
    (means,) = torch.autograd.grad(cells.log_normalizer(coefficients).sum(), coefficients)
    wanted = torch.einsum("n,nqg->qg", shares, cells.basis(draws))
    torch.testing.assert_close(means, wanted, atol=5e-3, rtol=0)


def test_fit_finds_a_dependent_pair_and_the_independent_prior_misses_its_information():
    """40,000 held-out draws: the error of a gap is .005."""
    torch.manual_seed(0)
    samples, held_out = PAIR.sample((10_000,)), PAIR.sample((40_000,))
    truth = PAIR.log_prob(held_out)
    dependent, independent = AutoregressivePrior(2, hidden=(32,)), AutoregressivePrior(2, 1)
    found = dependent.fit(samples, steps=300)
    independent.fit(samples, steps=50)
    with torch.no_grad():
        gap, missed = (
            float((truth - prior().log_prob(held_out)).mean()) for prior in (dependent, independent)
        )
    assert -0.002 < gap < 0.02
    assert abs(missed - INFORMATION) < 0.02
    assert abs(found.held_out - float(truth.mean())) < 0.1


def test_weighted_draws_are_fitted_as_the_density_that_they_stand_for():
    torch.manual_seed(0)
    wide = torch.distributions.Normal(0.0, 2.0)
    samples = wide.sample((20_000, 1))
    log_weights = torch.distributions.Normal(1.0, 0.5).log_prob(samples) - wide.log_prob(samples)
    prior = AutoregressivePrior(1)
    prior.fit(samples, log_weights[:, 0].exp(), steps=50)
    z = prior().sample((20_000,))
    assert abs(float(z.mean()) - 1) < 0.03
    assert abs(float(z.std()) - 0.5) < 0.03


def test_labels_have_densities_of_their_own():
    torch.manual_seed(0)
    label = torch.randint(2, (4000,))
    samples = torch.randn(4000, 2) * 0.5 + torch.where(label == 0, -2.0, 2.0)[:, None]
    prior = AutoregressivePrior(2, num_labels=2, hidden=(16,))
    prior.fit(samples, label=label, steps=300)
    drawn = prior(torch.arange(2).expand(2000, 2)).sample().mean(0)
    torch.testing.assert_close(drawn, torch.tensor([[-2.0, -2.0], [2.0, 2.0]]), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("samples", "weights", "wrong"),
    [
        (torch.zeros(5, 3), None, "samples must have shape"),
        (torch.full((5, 2), torch.nan), None, "samples must be finite"),
        (torch.zeros(5, 2), torch.full((5,), -1.0), "weights must have shape"),
        (torch.zeros(5, 2), torch.full((5,), torch.inf), "weights must have shape"),
        (torch.zeros(5, 2), torch.zeros(5), "weights must be positive for at least 2 samples"),
    ],
)
def test_fit_refuses_what_are_no_draws(samples, weights, wrong):
    with pytest.raises(ValueError, match=wrong):
        AutoregressivePrior(2, hidden=(8,)).fit(samples, weights)


@pytest.mark.parametrize("context", ["perceptron", "kan"])
def test_pruning_takes_latents_out_of_the_context(context):
    """Latent 1 hardly matters: without it the density stays, and it is gone for good."""
    torch.manual_seed(0)
    prior = AutoregressivePrior(4, hidden=(30,), context=context)
    with torch.no_grad():
        prior.network.layers[-1].weight.normal_(std=0.7)
        first = prior.network.layers[0]
        per = first.weight.shape[1] // 4
        first.weight[:, per : 2 * per] *= 1e-2
    z = prior().sample((2000,))
    before = prior().log_prob(z)
    keeps = prior.prune(least=0.02)
    assert keeps[0]
    assert not keeps[1]
    assert not keeps[3]  # nothing comes after it
    # of at most two latents, each below 0.02 nats
    assert (before - prior().log_prob(z)).mean().abs() < 0.04
    value = z[:5].clone().requires_grad_()
    (slope,) = torch.autograd.grad(outputs_for(prior, value).square().sum(), value)
    assert (slope[:, 1] == 0).all()
    assert (slope[:, 0] != 0).all()
    fresh = AutoregressivePrior(4, hidden=(30,), context=context)
    fresh.load_state_dict(prior.state_dict())
    torch.testing.assert_close(fresh().log_prob(z), prior().log_prob(z))


def outputs_for(prior, z):
    """Return the coefficients of all latents' densities."""
    return prior().conditionals(z).coefficients


def test_pruning_refuses_labels_and_negative_divergences():
    for prior, least in ((AutoregressivePrior(3, num_labels=2), 0.1), (AutoregressivePrior(3), -1)):
        with pytest.raises(ValueError, match=r"(least|num_labels) must be .*, got"):
            prior.prune(least)


def test_draws_without_weight_do_not_undo_a_fit():
    """As importance weights that underflow; a batch of such draws would have no score."""
    torch.manual_seed(0)
    prior = AutoregressivePrior(2, hidden=(8,))
    samples = torch.randn(2000, 2)
    weights = torch.zeros(2000)
    weights[:100] = 1
    found = prior.fit(samples, weights, steps=100, batch_size=16)
    assert math.isfinite(found.held_out)
    assert found.kept > 0
    with pytest.raises(ValueError, match="weights must be positive for at least 2 samples, got 1"):
        prior.fit(samples, weights * (torch.arange(2000) == 0))


@pytest.mark.parametrize("label", [None, torch.full((100,), 2)], ids=["missing", "out of range"])
def test_labels_are_refused_before_anything_changes(label):
    prior = AutoregressivePrior(2, hidden=(8,), num_labels=2)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    with pytest.raises(ValueError, match="label must"):
        prior.fit(5 + torch.randn(100, 2), label=label)
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())
