"""Plots of tempered runs and weights draw the right numbers on the axes that they are given."""

import dataclasses

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam import plots
from pyro_tkam.infer import AutoMALA, ImportanceSampling, ParallelTempering


def model(data):
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=data)


@pytest.fixture(scope="module")
def draws():
    pyro.set_rng_seed(0)
    kernel = AutoMALA(model)
    run = ParallelTempering(
        kernel, num_temperatures=4, num_samples=30, num_chains=2, keep_all=True, disable_progbar=True
    )
    return run.run(torch.tensor([0.5, 1.0]))


def test_evidence_curve(draws):
    axes = plots.evidence_curve(draws, exact=-2.5)
    (curve,) = axes.lines
    np.testing.assert_allclose(curve.get_ydata(), draws.log_likelihood.sum(-1).mean((1, 2)), rtol=1e-5)
    total = draws.log_evidence("thermodynamic").value
    assert len(axes.collections) == 3
    assert abs(float(axes.get_title().split()[1]) - total) < 0.2
    assert "-2.50" in axes.get_title()


def test_evidence_curve_without_a_mean_at_the_prior(draws):
    log_likelihood = draws.log_likelihood.clone()
    log_likelihood[0, 0, 0] = -torch.inf
    axes = plots.evidence_curve(dataclasses.replace(draws, log_likelihood=log_likelihood), exact=-2.5)
    (curve,) = axes.lines
    np.testing.assert_allclose(curve.get_xdata(), draws.betas[1:], rtol=1e-6)
    assert len(axes.collections) == 2
    assert f"from t = {draws.betas[1]:.2g}, as the mean at 0 is -inf, exactly -2.50" in axes.get_title()


def test_axes_are_used_and_returned(draws):
    axes = plots.new_figure().subplots()
    assert plots.swap_rates(draws, axes) is axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], draws.swap_acceptance, rtol=1e-5)


def test_ladders():
    axes = plots.ladders(5, [1, 4])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), (np.arange(5) / 4) ** 4, rtol=1e-5)


def test_index_process_is_a_permutation(draws):
    lines = plots.index_process(draws, datum=1).lines
    paths = np.stack([line.get_ydata() for line in lines])
    assert (np.sort(paths, 0) == np.arange(4)[:, None]).all()


def test_power_posteriors(draws):
    values = draws.density.constrain(draws.positions)["z"][..., 0]
    assert len(plots.power_posteriors(values, draws.betas).patches) == 4
    with pytest.raises(ValueError, match="values"):
        plots.power_posteriors(values[:2], draws.betas)


def test_importance_weights():
    weighted = ImportanceSampling(model, num_particles=100).run(torch.tensor([0.5, 1.0]))
    lines = plots.importance_weights(weighted, data=(0, 1)).lines
    for line in lines:
        assert abs(line.get_ydata().sum() - 1) < 1e-5
        assert (np.diff(line.get_ydata()) <= 0).all()
