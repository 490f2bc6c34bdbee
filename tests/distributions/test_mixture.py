"""The mixture: its own inverse CDF against bisection, gradients, weights, and what is refused."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import chisquare, kstest
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import kl_divergence

from pyro_tkam.distributions import ExponentiallyTilted, TiltedMixture
from pyro_tkam.nn import UnivariateFunctions
from pyro_tkam.ops.quadrature import composite
from tests.distributions.energies import integrals

U = torch.tensor([1e-4, 0.03, 0.2, 0.5, 0.81, 0.9999], dtype=torch.double)[:, None].expand(-1, 3)


def components(
    seed: int = 0, batch: tuple[int, ...] = (3, 4), low: object = None, high: object = None
):
    torch.manual_seed(seed)
    functions = UnivariateFunctions(batch, "rbf", -4.0, 4.0, 20)
    torch.nn.init.normal_(functions.coefficients)
    return ExponentiallyTilted(functions.double().bound(), "gaussian", low, high)


def mixture(**options) -> TiltedMixture:
    parts = components(**options)
    return TiltedMixture(torch.randn(3, 4, dtype=torch.double), parts)


DIFFERENT = {
    "low": torch.tensor([-4.0, -2.0, 0.0, -3.0]).double(),
    "high": torch.tensor([4.0, 0.0, 1.0, 3.0]).double(),
}


@pytest.mark.parametrize("ends", [{}, DIFFERENT], ids=["one interval", "different intervals"])
def test_inverse_cdf_against_an_independent_bisection(ends):
    prior = mixture(**ends)
    with torch.no_grad():
        z = prior.icdf(U)
        marks = torch.unique(
            torch.cat([torch.linspace(-4, 4, 20), torch.tensor([-2.0, 0.0, 1.0, -3.0, 3.0])])
        ).double()

        def cdf(at):  # from the energies, by scipy
            return integrals(prior.log_prob, marks, at)

        low, high = torch.full_like(z, -4.0), torch.full_like(z, 4.0)
        for _ in range(50):
            middle = (low + high) / 2
            below = cdf(middle) < U
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        assert (cdf(z) - U).abs().max() <= 1e-9
        assert ((z - middle).abs() * prior.log_prob(z).exp()).max() <= 1e-9
        torch.testing.assert_close(
            cdf(torch.full_like(z[:1], 4.0)), torch.ones(1, 3).double(), atol=1e-10, rtol=0
        )


def test_log_prob_weighs_normalized_components():
    prior = mixture()
    z = torch.linspace(-3.9, 3.9, 7, dtype=torch.double)[:, None].expand(-1, 3)
    by_hand = (prior.weights * prior.components.log_prob(z[..., None]).exp()).sum(-1).log()
    torch.testing.assert_close(prior.log_prob(z), by_hand)
    torch.testing.assert_close(prior.component_log_prob(z), prior.components.log_prob(z[..., None]))
    posterior = (
        prior.weights * prior.component_log_prob(z).exp() / prior.log_prob(z).exp()[..., None]
    )
    torch.testing.assert_close(prior.responsibilities(z), posterior)


@pytest.mark.parametrize("ends", [{}, DIFFERENT], ids=["one interval", "different intervals"])
def test_moments_are_those_of_the_components(ends):
    prior = mixture(**ends)
    w, parts = prior.weights, prior.components
    mean = (w * parts.mean).sum(-1)
    torch.testing.assert_close(prior.mean, mean, atol=1e-9, rtol=0)
    variance = (w * (parts.variance + (parts.mean - mean[:, None]).square())).sum(-1)
    torch.testing.assert_close(prior.variance, variance, atol=1e-9, rtol=0)


def test_entropy_is_the_mean_of_the_log_density():
    prior = mixture()
    log_density = prior.components.expectation(lambda z: prior.log_prob(z.squeeze(-1))[..., None])
    torch.testing.assert_close(
        prior.entropy(), -(prior.weights * log_density).sum(-1), atol=1e-9, rtol=0
    )


def small(logits, slopes, low, high) -> TiltedMixture:
    parts = ExponentiallyTilted(
        lambda z: slopes * torch.sin(z),
        "uniform",
        low,
        high,
        quadrature=composite(1, 10, base_cells=4),
    )
    return TiltedMixture(logits, parts)


@pytest.mark.parametrize("different", [False, True])
def test_pathwise_derivatives_in_weights_and_components(different):
    """Of all values at once, as making the mixture takes longest; each has its own size."""
    torch.manual_seed(0)
    logits, slopes = torch.randn(2, 3).double(), 2 * torch.randn(2, 3).double()
    low = torch.tensor([0.0, 0.1, 0.2] if different else 0.0).double()
    high = torch.tensor([1.5, 2.0, 1.8] if different else 2.0).double()
    u = torch.tensor([[0.03, 0.25], [0.6, 0.95]]).double()

    def function(*arguments):
        prior, at = small(*arguments[:4]), arguments[-1]
        return prior.icdf(at), prior.log_prob(at), prior.mean, prior.entropy()

    inputs = [x.clone().requires_grad_() for x in (logits, slopes, low, high, u)]
    assert gradcheck(function, inputs, atol=1e-6)
    assert gradgradcheck(function, inputs, atol=1e-5, rtol=2e-4)


def test_draws_follow_the_cdf_and_components_their_weights():
    """Kolmogorov-Smirnov and chi-square, 20,000 draws; false alarms: 6e-4 together."""
    prior = mixture()
    torch.manual_seed(1)
    z, index = prior.sample((20_000,)), prior.sample_component((20_000,))
    assert z.shape == index.shape == (20_000, 3)
    for q in range(3):
        assert kstest(prior.cdf(z)[:, q].detach().numpy(), "uniform").pvalue > 1e-4
        counts = index[:, q].bincount(minlength=4)
        assert chisquare(counts.numpy(), 20_000 * prior.weights[q].detach().numpy()).pvalue > 1e-4


def test_two_stage_draws_have_the_same_law():
    """
    Drawing a component first and then from it (Eq. 13); Kolmogorov-Smirnov, false alarms: 1e-4.
    """
    prior = mixture()
    torch.manual_seed(2)
    index = prior.sample_component((20_000,))
    z = prior.components.sample((20_000,)).gather(-1, index[..., None])[..., 0]
    assert kstest(prior.cdf(z)[:, 0].detach().numpy(), "uniform").pvalue > 1e-4


def test_weights_of_zero_leave_components_out():
    parts = components()
    logits = (
        torch.tensor([0.0, -torch.inf, 1.0, -torch.inf], dtype=torch.double)
        .expand(3, 4)
        .clone()
        .requires_grad_()
    )
    prior = TiltedMixture(logits, parts)
    z = prior.rsample((5,))
    (z.sum() + prior.log_prob(z).sum() + prior.entropy().sum()).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 1] == 0).all()


@pytest.mark.parametrize("batch", [(5,), (8,), (3, 8)], ids=str)
@pytest.mark.parametrize("expanded", [True, False])
def test_components_may_have_fewer_batch_dimensions_than_logits(batch, expanded):
    slopes = torch.tensor([-8.0, 0.0, 8.0])
    logits = 3 * torch.randn(*batch, 3, generator=torch.Generator().manual_seed(0))
    shared = ExponentiallyTilted(lambda z: slopes * z)
    given = TiltedMixture(logits, shared.expand(logits.shape) if expanded else shared)
    full = TiltedMixture(logits, ExponentiallyTilted(lambda z: slopes * z + torch.zeros(*batch, 1)))
    u = torch.rand(7, *batch, generator=torch.Generator().manual_seed(1))
    z = full.icdf(u)
    assert given.batch_shape == given.quadrature_error.shape == batch
    torch.testing.assert_close(given.icdf(u), z, rtol=0, atol=1e-5)
    for name in ("log_prob", "cdf"):
        torch.testing.assert_close(getattr(given, name)(z), getattr(full, name)(z))
    torch.testing.assert_close(given.mean, full.mean)


def test_divergences_between_batches_are_those_of_each_pair():
    slopes = torch.arange(3.0)
    one, three = ExponentiallyTilted(lambda z: -z), ExponentiallyTilted(lambda z: slopes * z)
    pairs = [
        kl_divergence(one, ExponentiallyTilted(lambda z, slope=slope: slope * z))
        for slope in slopes
    ]
    for found in (
        kl_divergence(one, three),
        kl_divergence(one.expand((3,)), three.expand((2, 3)))[1],
    ):
        torch.testing.assert_close(found, torch.stack(pairs))


def test_mean_field_objectives_take_tilted_sites_in_a_plate():
    heights = torch.nn.Parameter(torch.zeros(()))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ExponentiallyTilted(lambda z: z))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", ExponentiallyTilted(lambda z: heights * z))

    x = torch.linspace(0, 1, 5)
    pyro.set_rng_seed(0)
    losses = {
        elbo: elbo(num_particles=2000, vectorize_particles=True).loss(model, guide, x)
        for elbo in ELBOS
    }
    torch.testing.assert_close(*losses.values(), rtol=0.01, atol=0)


ELBOS = (pyro.infer.Trace_ELBO, pyro.infer.TraceMeanField_ELBO)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.full((4,), torch.nan).double(),),
            ValueError,
            r"logits must be finite or -inf, got NaN or .inf",
        ),
        (
            (torch.full((4,), torch.inf).double(),),
            ValueError,
            r"logits must be finite or -inf, got NaN or .inf",
        ),
        (
            (torch.full((4,), -torch.inf).double(),),
            ValueError,
            r"logits must hold at least one.*, got a mixture with only -inf",
        ),
        (
            (torch.zeros(3).double(),),
            ValueError,
            r"logits must have a last dimension.*, got shape \(3,\)",
        ),
        ((torch.zeros(4),), TypeError, r"logits must have the dtype of the.*, got torch\.float32"),
        (([0.0] * 4,), TypeError, "logits must be a tensor, got list"),
        (
            (torch.zeros(4), torch.distributions.Normal(torch.zeros(4), 1.0)),
            TypeError,
            "components must be an ExponentiallyTilted, got Normal",
        ),
        (
            (torch.zeros(1), ExponentiallyTilted(lambda z: 0 * z)),
            ValueError,
            r"components must have batch shape \(\*batch, K\), got \(\)",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        TiltedMixture(*(arguments if len(arguments) == 2 else (*arguments, components(batch=(4,)))))


def test_prune_takes_a_probability():
    with pytest.raises(ValueError, match=r"threshold must be a number from 0 to 1, got 1\.5"):
        mixture().prune(1.5)
