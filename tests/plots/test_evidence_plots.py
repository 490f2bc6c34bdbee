"""Plots of tempered runs and weights draw the right numbers on the axes that they are given."""

import dataclasses

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam import plots
from pyro_tkam.infer import AutoMALA, ImportanceSampling, ParallelTempering
from tests.untrusted import untrusted

DATA = torch.tensor([0.5, 1.0])


def model(data):
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=data)


@pytest.fixture(scope="module")
def draws():
    pyro.set_rng_seed(0)
    kernel = AutoMALA(model)
    run = ParallelTempering(
        kernel,
        num_temperatures=4,
        num_samples=30,
        num_chains=2,
        keep_all=True,
        disable_progbar=True,
    )
    with untrusted():
        return run.run(DATA)


def test_evidence_curve(draws):
    axes = plots.evidence_curve(draws, exact=-2.5)
    (curve,) = axes.lines
    np.testing.assert_allclose(
        curve.get_ydata(), draws.log_likelihood.sum(-1).mean((1, 2)), rtol=1e-5
    )
    area = np.trapezoid(draws.log_likelihood.sum(-1).mean((1, 2)), draws.betas)
    assert len(axes.collections) == 3
    assert axes.get_title() == f"area {area:.2f} nats, exactly -2.50"


def test_the_exact_curve_lies_over_the_trapezoids(draws):
    axes = plots.evidence_curve(draws, exact_mean=lambda t: 3.0 * t - 1.0)
    exact = axes.lines[1]
    np.testing.assert_allclose(exact.get_ydata(), 3.0 * exact.get_xdata() - 1.0, rtol=1e-5)
    assert (exact.get_xdata()[0], exact.get_xdata()[-1]) == (0.0, 1.0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["exact mean"]
    # a polygon between the curve and the trapezoids
    shaded = axes.collections[-1].get_paths()[0].vertices
    means = draws.log_likelihood.sum(-1).mean((1, 2)).numpy()
    for x, y in shaded:
        on_curve, on_trapezoids = (
            abs(y - z) < 1e-4 for z in (3.0 * x - 1.0, np.interp(x, draws.betas, means))
        )
        assert on_curve or on_trapezoids
    assert np.ptp(shaded[:, 0]) == 1.0


def test_evidence_curve_without_a_mean_at_the_prior(draws):
    log_likelihood = draws.log_likelihood.clone()
    log_likelihood[0, 0, 0] = -torch.inf
    axes = plots.evidence_curve(
        dataclasses.replace(draws, log_likelihood=log_likelihood), exact=-2.5
    )
    (curve,) = axes.lines
    np.testing.assert_allclose(curve.get_xdata(), draws.betas[1:], rtol=1e-6)
    assert len(axes.collections) == 2
    assert (
        f"from t = {draws.betas[1]:.2g}, because the mean at 0 is -inf, exactly -2.50"
        in axes.get_title()
    )


@pytest.mark.parametrize(
    "draw",
    [
        lambda draws, axes: plots.evidence_curve(draws, axes),
        lambda draws, axes: plots.ladders(4, [1.0, 2.0], axes),
        lambda draws, axes: plots.swap_rates(draws, axes),
        lambda draws, axes: plots.index_process(draws, axes),
        lambda draws, axes: plots.power_posteriors(draws.log_likelihood[..., 0], draws.betas, axes),
        lambda draws, axes: plots.importance_weights(
            ImportanceSampling(model, num_particles=50).run(DATA), axes
        ),
    ],
)
def test_axes_are_used_and_returned(draws, draw):
    figure = plots.new_figure()
    axes = figure.subplots()
    assert draw(draws, axes) is axes
    assert figure.axes == [axes]
    assert axes.has_data()


def test_swap_rates(draws):
    axes = plots.swap_rates(draws)
    np.testing.assert_allclose(
        [bar.get_height() for bar in axes.patches], draws.swap_acceptance, rtol=1e-5
    )


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
    weighted = ImportanceSampling(model, num_particles=100).run(DATA)
    axes = plots.importance_weights(weighted, data=(0, 1))
    said = [text.get_text() for text in axes.get_legend().get_texts()]
    sizes, khats = weighted.effective_sample_size, weighted.khat
    assert said == [
        f"datum {i}: {sizes[i]:.0f} effective draws, k-hat {khats[i]:.2f}" for i in range(2)
    ]
    for line in axes.lines:
        assert abs(line.get_ydata().sum() - 1) < 1e-5
        assert (np.diff(line.get_ydata()) <= 0).all()
