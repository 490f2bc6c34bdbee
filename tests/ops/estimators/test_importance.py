import math

import pytest
import torch

from pyro_tkam import _arviz
from pyro_tkam.ops.estimators import importance, pareto_smooth
from tests.laws.estimators import ConjugateRegression, errors_are_calibrated, value_is_right

DOUBLE = torch.float64


def test_evidence_from_prior_draws():
    torch.manual_seed(0)
    model = ConjugateRegression.example(num_data=2, dim=1)
    draws = torch.randn(1000, 2000, 1, dtype=DOUBLE)
    estimate = importance(model.log_lik(draws))
    errors_are_calibrated(estimate, model.log_evidence)
    value_is_right(estimate._replace(value=estimate.value.exp()), model.log_evidence.exp())


def heavy_tailed(tail_index, shape=(6, 4000)):
    """Log weights of a Pareto law, whose tail index is that of the generalized Pareto fit."""
    return tail_index * torch.empty(shape, dtype=DOUBLE).exponential_()


@pytest.mark.parametrize("tail_index", [0.2, 0.6, 1.1])
@pytest.mark.parametrize("shape", [(30,), (4, 1000), (2, 3, 4000)])
def test_pareto_smoothing_is_that_of_arviz(tail_index, shape):
    torch.manual_seed(0)
    log_weights = heavy_tailed(tail_index, shape) - 900.0
    smoothed, khat = pareto_smooth(log_weights)
    expected, expected_khat = _arviz.psis(log_weights)
    torch.testing.assert_close(khat, torch.from_numpy(expected_khat), rtol=1e-5, atol=1e-5)
    # ArviZ leaves out small terms of the fit's average.
    torch.testing.assert_close(
        smoothed.log_softmax(-1), torch.from_numpy(expected), rtol=1e-4, atol=1e-4
    )


def test_khat_is_the_tail_index():
    # The fit's standard deviation is (1 + k) / √190 for each of 50 sets of weights; their mean gets
    # 5 of its own.
    torch.manual_seed(0)
    for tail_index in (0.3, 0.7, 1.0):
        khat = pareto_smooth(heavy_tailed(tail_index, (50, 4000))).khat
        assert abs(khat.mean() - tail_index) < 5 * (1 + tail_index) / (50 * 190) ** 0.5


def test_smoothing_keeps_the_scale_and_makes_heavy_tails_more_exact():
    torch.manual_seed(0)
    log_weights = heavy_tailed(0.7, (2000, 500))  # a mean of 1 / (1 - 0.7), and no variance
    exact = -math.log(0.3)
    raw = importance(log_weights).value - exact
    smooth = importance(pareto_smooth(log_weights).log_weights).value - exact
    assert smooth.square().mean() < raw.square().mean()


def test_weights_without_a_tail():
    equal, few, half = torch.zeros(100), torch.zeros(100), torch.randn(100)
    few[:3] = torch.tensor([1.0, 2.0, 3.0])
    half[::2] = -math.inf
    log_weights = torch.stack([equal, few, half])
    smoothed, khat = pareto_smooth(log_weights)
    assert khat[0] == -math.inf
    assert khat[1] == math.inf
    assert khat[2].isfinite()
    assert torch.equal(smoothed[:2], log_weights[:2])
    assert (smoothed[2, ::2] == -math.inf).all()
    assert not smoothed.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [3, 60, 300, 3000])
def test_khat_of_weights_that_overflow_the_fit_is_large(dtype, spread):
    torch.manual_seed(0)
    log_weights = (spread * torch.randn(50, 4000, dtype=torch.float64)).to(dtype)
    smoothed, khat = pareto_smooth(log_weights)
    assert (khat > 0.7).all()  # NaN fails
    assert not smoothed.isnan().any()
    assert (smoothed <= log_weights.amax(-1, keepdim=True)).all()


def test_ties_with_the_cutoff_are_no_part_of_the_tail():
    torch.manual_seed(0)
    log_weights = torch.cat([torch.full((950,), -1.0, dtype=DOUBLE), heavy_tailed(0.5, (50,))])
    smoothed, khat = pareto_smooth(log_weights)
    expected, expected_khat = _arviz.psis(log_weights)
    # ArviZ takes a finer grid for a shorter tail
    assert abs(khat - torch.from_numpy(expected_khat)) < 0.02
    torch.testing.assert_close(
        smoothed.log_softmax(-1), torch.from_numpy(expected), rtol=1e-2, atol=1e-2
    )


def test_float32_agrees_with_float64():
    torch.manual_seed(0)
    log_weights = heavy_tailed(0.5, (3, 2000))
    smoothed, khat = pareto_smooth(log_weights.float())
    assert smoothed.dtype == khat.dtype == torch.float32
    torch.testing.assert_close(khat.double(), pareto_smooth(log_weights).khat, rtol=0, atol=1e-3)


@pytest.mark.parametrize("estimator", [importance, pareto_smooth])
def test_weights_that_are_none_are_refused(estimator):
    for wrong in (math.nan, math.inf):
        log_weights = torch.zeros(2, 50)
        log_weights[1, 7] = wrong
        with pytest.raises(ValueError, match="must be below"):
            estimator(log_weights)
    with pytest.raises(ValueError, match="not all -inf"):
        estimator(torch.full((2, 50), -math.inf))
    for empty in (torch.zeros(0), torch.zeros(0, 50), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="log_weights must have shape"):
            estimator(empty)
    with pytest.raises(
        TypeError, match="log_weights must be one tensor of chains of equal length, got list"
    ):
        estimator([torch.zeros(50), torch.zeros(49)])
