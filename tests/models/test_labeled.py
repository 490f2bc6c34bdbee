"""
The label-coupled prior and its model: Bayes' rule, exact draws given a label, and learning from few
labels.
"""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from pyro_tkam.distributions import ExponentiallyTilted, LabeledAutoregressive, LabeledTilted
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import GaussianLikelihood, LabeledPrior, LabeledTKAM
from pyro_tkam.nn import LabeledAutoregressivePrior


def prior(labels: int = 3, latents: int = 2) -> LabeledTilted:
    torch.manual_seed(0)
    slopes = 4 * torch.randn(labels, latents, dtype=torch.float64)
    return LabeledTilted(
        torch.randn(labels, dtype=torch.float64),
        ExponentiallyTilted(lambda z: slopes * z - slopes.cos() * z**2),
    )


def grid(num: int = 400) -> torch.Tensor:
    """Midpoints of the unit square."""
    line = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    return torch.cartesian_prod(line, line)


def test_total_mass_is_one_and_the_label_follows_bayes() -> None:
    fn, z = prior(), grid()
    given = torch.stack([fn.given(torch.tensor(y)).log_prob(z) for y in range(3)], -1)
    for density in (fn.log_prob(z)[:, None], given):
        torch.testing.assert_close(
            density.exp().mean(0), torch.ones(density.shape[-1]).double(), atol=1e-4, rtol=0
        )
    joint = given + fn.log_weights
    torch.testing.assert_close(fn.log_prob(z), joint.logsumexp(-1))
    torch.testing.assert_close(fn.label_logits(z), joint - joint.logsumexp(-1, keepdim=True))
    averaged = (fn.label_logits(z) + fn.log_prob(z)[:, None]).exp().mean(0)
    torch.testing.assert_close(averaged, fn.log_weights.exp(), atol=1e-4, rtol=0)


def test_draws_given_a_label_are_exact() -> None:
    """
    Kolmogorov-Smirnov of 6 samples, p > 1e-4 each: false alarms below 1e-3; those of another label
    fail.
    """
    fn = prior()
    labels = torch.tensor([0, 1, 2])
    draws = fn.given(labels).sample((4000,))
    assert draws.shape == (4000, 3, 2)
    for y in range(3):
        for q in range(2):
            cdf = fn.components.cdf(draws[:, y].unsqueeze(-2))[:, :, q]
            assert kstest(cdf[:, y].numpy(), "uniform").pvalue > 1e-4
    assert (
        kstest(fn.components.cdf(draws[:, 0].unsqueeze(-2))[:, 1, 0].numpy(), "uniform").pvalue
        < 1e-4
    )


def test_draws_without_a_label_are_the_mixture() -> None:
    """Cell counts of 20,000 draws; five standard errors, false alarms below 1e-5."""
    fn, z = prior(), grid()
    draws = fn.sample((20_000,))
    cell = (4 * draws).long().clamp_max(3)
    found = torch.bincount(4 * cell[:, 0] + cell[:, 1], minlength=16) / 20_000
    place = (4 * z).long()
    exact = torch.zeros(16).double().index_add(
        0, 4 * place[:, 0] + place[:, 1], fn.log_prob(z).exp()
    ) / len(z)
    assert bool(((found - exact).abs() < 5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-4).all())


def test_draws_given_a_label_are_pathwise() -> None:
    tilt = torch.tensor([[1.0], [2.0]], dtype=torch.float64, requires_grad=True)

    def draw(tilt: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        fn = LabeledTilted(torch.zeros(2).double(), ExponentiallyTilted(lambda z: tilt * z))
        return fn.given(torch.tensor([1, 0, 1])).rsample()

    assert torch.autograd.gradcheck(draw, tilt)


def test_the_distribution_expands_in_a_plate() -> None:
    with pyro.plate("data", 5):
        z = pyro.sample("z", prior())
    assert z.shape == (5, 2)
    assert prior().expand((4, 5)).log_prob(z).shape == (4, 5)
    assert prior().expand((4,)).sample((3,)).shape == (3, 4, 2)


def clusters(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes of points about (-1, 0) and (1, 0)."""
    y = torch.arange(num) % 2
    return torch.stack([2.0 * y - 1, torch.zeros(num)], -1) + 0.3 * torch.randn(num, 2), y


@pytest.mark.slow
def test_ten_labels_name_two_clusters_that_unlabeled_data_find() -> None:
    pyro.set_rng_seed(0)
    x, y = clusters(400)
    label = torch.full_like(y, -1)
    label[:10] = y[:10]
    generator = nn.Linear(1, 2)
    model = LabeledTKAM(
        LabeledPrior(2, 1, "uniform", grid_size=6), generator, GaussianLikelihood(0.3)
    )
    loss = ImportanceMLE(40)(model, None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        some = torch.cat([torch.arange(10), torch.randint(400, (40,))])
        optimizer.zero_grad()
        (loss(x[some], label[some]) / len(some)).backward()
        optimizer.step()
    test, truth = clusters(500)
    assert (model.classify(test, num_particles=2000).argmax(-1) == truth).double().mean() > 0.97
    drawn = model.generate(torch.arange(2).repeat(200))
    assert ((drawn[:, 0] > 0).long() == torch.arange(2).repeat(200)).double().mean() > 0.9


def test_labels_and_data_each_score_their_part() -> None:
    """
    log p(x, y) = log p(x) + log p(y | x), each by importance sampling from as many draws as need
    be.
    """
    pyro.set_rng_seed(0)
    model = LabeledTKAM(LabeledPrior(3, 1), nn.Linear(1, 2), GaussianLikelihood(1.0))
    x, y = torch.randn(4, 2), torch.tensor([0, 2, -1, 1])
    elbo = ImportanceMLE(50_000, ess_threshold=0.0)
    elbo.loss(model, None, x)  # it looks at the model, with draws of its own, the first time
    evidence = []
    for label in (None, y):
        pyro.set_rng_seed(0)
        elbo.loss(model, None, x, label)
        evidence.append(elbo.statistics.log_evidence)
    pyro.set_rng_seed(0)
    elbo.loss(model, None, x, torch.full((4,), -1))
    assert torch.equal(elbo.statistics.log_evidence, evidence[0])
    pyro.set_rng_seed(0)
    log_p = model.classify(x, num_particles=50_000).log()
    expected = torch.where(y >= 0, log_p.gather(1, y.clamp_min(0)[:, None]).squeeze(1), 0.0)
    torch.testing.assert_close(evidence[1] - evidence[0], expected, atol=0.02, rtol=0)


def test_a_run_returns_the_data() -> None:
    model, x = (
        LabeledTKAM(LabeledPrior(3, 1), nn.Linear(1, 2), GaussianLikelihood(0.5)),
        torch.randn(4, 2),
    )
    assert model(x) is x
    assert model(size=5).shape == (5, 2)


def test_the_label_weight_scales_the_label_only() -> None:
    x, y, totals = torch.randn(4, 2), torch.tensor([0, 2, -1, 1]), []
    plain = LabeledTKAM(LabeledPrior(3, 1), nn.Linear(1, 2), GaussianLikelihood(0.5))
    heavy = LabeledTKAM(plain.prior, plain.generator, plain.likelihood, label_weight=7.0)
    trace = pyro.poutine.trace(plain).get_trace(x, y)
    for model in (plain, heavy):
        replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace)).get_trace(x, y)
        replayed.compute_log_prob()
        totals.append({name: replayed.nodes[name]["log_prob_sum"] for name in ("z", "label", "x")})
    torch.testing.assert_close(totals[1]["label"], 7 * totals[0]["label"])
    torch.testing.assert_close(totals[1]["x"], totals[0]["x"])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0, 3]), "label must hold classes from 0 to 2, got 3"),
        (torch.tensor([0, -2]), "label must hold classes from 0 to 2, got -2"),
        (torch.tensor([0]), r"label must have shape \(2,\), one for each row of x, got \(1,\)"),
    ],
)
def test_refuses_labels_outside_the_classes(label: torch.Tensor, message: str) -> None:
    model = LabeledTKAM(LabeledPrior(3, 1), nn.Linear(1, 2), GaussianLikelihood(0.5))
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(2, 2), label)


def test_refuses_bad_input() -> None:
    model = LabeledTKAM(LabeledPrior(3, 1), nn.Linear(1, 2), GaussianLikelihood(0.5))
    with pytest.raises(TypeError, match=r"label must hold integers, got torch\.float32"):
        model(torch.zeros(2, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="label must hold classes from 0 to 2, got 3"):
        model.generate(torch.tensor([3]))
    with pytest.raises(ValueError, match=r"x must have rows of shape \(2,\), got \(5,\)"):
        model(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="x must be finite, got NaN or infinite elements"):
        model(torch.full((2, 2), math.nan))
    with pytest.raises(
        ValueError, match="size must be at least the 3 rows of the mini-batch, got 2"
    ):
        model(torch.zeros(3, 2), size=2)
    with pytest.raises(TypeError, match=r"x must have the dtype of the.*, got torch\.float64"):
        model(torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"label_weight must be positive and finite, got 0\.0"):
        LabeledTKAM(model.prior, model.generator, model.likelihood, label_weight=0.0)
    with pytest.raises(TypeError, match="components must be an ExponentiallyTilted, got Normal"):
        LabeledTilted(torch.zeros(3), dist.Normal(torch.zeros(3, 1), 1.0))
    with pytest.raises(
        ValueError, match=r"logits and components must have.*, got \(2,\) and \(3, 2\)"
    ):
        LabeledTilted(torch.zeros(2).double(), prior().components)
    with pytest.raises(TypeError, match=r"logits must have the dtype of the.*, got torch\.float32"):
        LabeledTilted(torch.zeros(3), prior().components)
    with pytest.raises(ValueError, match=r"logits must be finite or -inf, got NaN or .inf"):
        LabeledTilted(torch.full((3,), math.nan).double(), prior().components)


def chain(labels: int = 3, latents: int = 2) -> LabeledAutoregressive:
    torch.manual_seed(0)
    module = LabeledAutoregressivePrior(labels, latents, hidden=(8,))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    return module.double()()


def test_a_chain_with_labels_follows_bayes_and_its_draws_are_exact() -> None:
    """Kolmogorov-Smirnov of 6 samples, p > 1e-4 each; those of another label fail."""
    fn = chain()
    line = torch.linspace(-9, 9, 121, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    given = torch.stack([fn.given(torch.tensor(y)).log_prob(z) for y in range(3)], -1)
    cell = (line[1] - line[0]) ** 2
    masses = given.exp().sum(0) * cell
    torch.testing.assert_close(masses, torch.ones(3).double(), atol=1e-3, rtol=0)
    joint = given + fn.log_weights
    torch.testing.assert_close(fn.log_prob(z), joint.logsumexp(-1))
    torch.testing.assert_close(fn.label_logits(z), joint.log_softmax(-1))
    labels = torch.arange(3)
    draws = fn.given(labels).sample((1000,))
    own = fn.given(labels).to_uniform(draws).flatten(1)
    other = fn.given((labels + 1) % 3).to_uniform(draws).flatten(1)
    assert all(kstest(column.detach().numpy(), "uniform").pvalue > 1e-4 for column in own.T)
    assert min(kstest(column.detach().numpy(), "uniform").pvalue for column in other.T) < 1e-6
    assert fn.sample((5,)).shape == (5, 2)


def test_known_labels_are_scored_apart_with_the_same_joint_density() -> None:
    torch.manual_seed(0)
    prior = LabeledAutoregressivePrior(3, 2, hidden=(8,))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter))
    model = LabeledTKAM(prior, nn.Linear(2, 4), GaussianLikelihood(0.5))
    x, z, label = torch.randn(5, 4), torch.randn(5, 2), torch.tensor([0, 2, 1, 1, 0])

    def joint(label: torch.Tensor) -> torch.Tensor:
        held = pyro.condition(model, data={"z": z})
        return pyro.poutine.trace(held).get_trace(x, label).log_prob_sum()

    known = joint(label)
    expected = joint(torch.full_like(label, -1)) + sum(
        prior().label_logits(z)[row, y] for row, y in enumerate(label.tolist())
    )
    torch.testing.assert_close(known, expected)
    assert model.generate(torch.tensor([0, 0, 2])).shape == (3, 4)
    assert model.classify(x, num_particles=50).shape == (5, 3)


def test_each_label_may_have_an_interval_of_its_own() -> None:
    low, high = torch.tensor([[0.0], [0.5]]).double(), torch.tensor([[1.0], [2.0]]).double()
    components = ExponentiallyTilted(lambda z: 0 * z, low=low, high=high).expand((2, 3))
    fn = LabeledTilted(torch.zeros(2).double(), components, validate_args=True)
    draws = fn.sample((1000,))
    assert draws.min() < 0.5
    assert draws.max() > 1
    inside = ((draws[:, None] >= low) & (draws[:, None] <= high)).all(-1)
    shares = inside / torch.tensor([1.0, 1.5]).double() ** 3 / 2
    torch.testing.assert_close(fn.log_prob(draws), shares.sum(-1).log())
    posterior = shares / shares.sum(-1, keepdim=True)
    torch.testing.assert_close(fn.label_logits(draws).exp(), posterior)
    given = fn.given(torch.tensor([0, 1])).log_prob(draws[:, None])
    torch.testing.assert_close(given.exp(), 2 * shares)
    other = torch.tensor([[0.0, 0.0, 3.0], [1.0, 1.0, 4.0]]).double()
    fn = LabeledTilted(
        fn.log_weights, ExponentiallyTilted(lambda z: 0 * z, low=other, high=other + 1)
    )
    assert fn.support.check(fn.sample((100,))).all()
    assert not fn.support.check(torch.tensor([0.5, 0.5, 0.5]).double())
