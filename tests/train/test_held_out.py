"""Evidence of held-out data by prior importance sampling."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.train import HeldOutEvidence, held_out_evidence


def linear(width, noise):
    """``x = z (1, …, 1) + noise``, whose evidence is Gaussian."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample(
                "x", dist.Normal(z.unsqueeze(-1).expand(*z.shape, width), noise).to_event(1), obs=x
            )

    covariance = torch.ones(width, width) + noise**2 * torch.eye(width)
    return model, dist.MultivariateNormal(torch.zeros(width), covariance)


def test_the_mean_and_its_error_are_right():
    """
    The error must hold what it says: 40 repeats, with a mean square of (deviation / error) within
    [0.5, 2].
    """
    pyro.set_rng_seed(0)
    model, exact = linear(2, 0.5)
    x = exact.sample((20,))
    found = [held_out_evidence(model, x, num_draws=200, num_blocks=10) for _ in range(40)]
    truth = float(exact.log_prob(x).mean())
    scores = torch.tensor([(each.log_evidence - truth) / each.standard_error for each in found])
    # false alarm: about 3 in 1000 for t of 9 degrees of freedom
    assert 0.5 < scores.square().mean() < 2.0
    assert all(each.reliable and each.num_draws == 2000 for each in found)
    assert "reliable" in found[0].verdict
    assert "NOT" not in found[0].verdict


def test_a_narrow_posterior_is_called_unreliable():
    pyro.set_rng_seed(0)
    model, exact = linear(400, 0.1)
    evidence = held_out_evidence(model, exact.sample((10,)), num_draws=50)
    assert evidence.unreliable_share > 0.5
    assert not evidence.reliable
    assert evidence.verdict.startswith("NOT reliable, and most likely too low")


def test_the_effective_sample_size_of_equal_weights_is_the_number_of_draws():
    pyro.set_rng_seed(0)
    model, exact = linear(1, 1e4)
    evidence = held_out_evidence(model, exact.sample((3,)), num_draws=30, num_blocks=2)
    assert evidence.effective_sample_size == pytest.approx(60, rel=1e-3)
    assert evidence == HeldOutEvidence(**vars(evidence))


@pytest.mark.parametrize(("num_draws", "num_blocks"), [(100, 1), (5, 2), (0, 10)])
def test_too_few_draws_are_named(num_draws, num_blocks):
    model, exact = linear(1, 1.0)
    with pytest.raises(
        ValueError, match=r"num_(blocks|draws|blocks and num_draws) must (be|give) .*, got "
    ):
        held_out_evidence(model, exact.sample((3,)), num_draws=num_draws, num_blocks=num_blocks)


def test_what_no_evidence_takes_is_refused():
    model, _ = linear(2, 1.0)
    with pytest.raises(ValueError, match=r"model must have finite data, got a NaN .*'x'"):
        held_out_evidence(model, torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(ValueError, match="model must have data, got a plate of size zero"):
        held_out_evidence(model, torch.zeros(0, 2))
