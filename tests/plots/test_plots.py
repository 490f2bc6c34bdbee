"""Pictures: what is drawn is what was given, on the axes that were given."""

import numpy as np
import pytest
import torch
from pyro.distributions import Normal

from pyro_tkam import plots
from pyro_tkam.distributions import AutoregressiveTilted, Conditionals, ExponentiallyTilted
from pyro_tkam.ops.shared_cells import SharedCells


def test_image_grid_puts_images_side_by_side(tmp_path):
    images = torch.arange(5.0).reshape(5, 1, 1).expand(5, 2, 3) / 5
    axes = plots.image_grid(images, columns=3, title="five")
    shown = np.asarray(axes.images[0].get_array())
    assert shown.shape == (2 * 3 - 1, 3 * 4 - 1)
    np.testing.assert_allclose(shown[0:2, 4:7], 0.2, rtol=1e-6)  # second image
    np.testing.assert_allclose(shown[3:5, 0:3], 0.6, rtol=1e-6)  # fourth
    assert axes.get_title() == "five"
    plots.save(axes, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_functions_draw_on_the_axes_they_are_given():
    axes = plots.new_figure().subplots(1, 3)
    prior = ExponentiallyTilted(lambda z: z, "uniform")
    run = {"update": [1.0, 2.0], "loss": [3.0, 4.0]}
    assert plots.image_grid(torch.zeros(2, 3, 3), axes[0]) is axes[0]
    assert plots.prior_densities(prior, axes[1]) is axes[1]
    assert plots.training_curves({"run": run}, [axes[2]])[0] is axes[2]


@pytest.mark.parametrize(
    "reference", ["uniform", "gaussian", "lognormal", "flat", Normal(0.5, 2.0)]
)
def test_prior_densities_are_normalized_and_the_most_different_come_first(reference):
    slopes = torch.tensor([0.0, 3.0, -1.0])
    interval = {"low": -1.0, "high": 1.0} if isinstance(reference, Normal) else {}
    prior = ExponentiallyTilted(lambda z: slopes * z, reference, **interval)
    axes = plots.prior_densities(prior, num=2, points=2000)
    steepest, _, dashed = axes.get_lines()
    for line in axes.get_lines():
        assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1.0, abs=2e-3)
    z, density = steepest.get_data()
    expected = prior.log_prob(torch.tensor(z).unsqueeze(-1)).exp()[:, 1]
    np.testing.assert_allclose(density, expected, rtol=1e-4)
    np.testing.assert_allclose(
        np.diff(np.log(density / dashed.get_ydata())).mean(), 3.0 * np.diff(z).mean(), rtol=1e-3
    )


def chained_pair():
    """Two latents: a standard normal one, and one whose density leans to where that one is."""
    cells = SharedCells.over(-4.0, 4.0, like=torch.zeros(()))

    def follow(z):
        lean = torch.cat((torch.zeros_like(z[..., :1]), z[..., :1]), -1)
        return Conditionals(lean[..., None] * cells.basis.grid)

    return AutoregressiveTilted(follow, (1, 1), cells)


def test_conditional_densities_are_those_of_the_contexts():
    """Each curve is a density; the second latent's differ as the first one's draws do."""
    torch.manual_seed(0)
    axes = plots.conditional_densities(chained_pair(), num=5, points=801, title="second")
    *curves, dashed = axes.get_lines()
    assert len(curves) == 5
    means = []
    for line in (*curves, dashed):
        z, density = line.get_data()
        assert np.trapezoid(density, z) == pytest.approx(1.0, abs=5e-3)
        means.append(np.trapezoid(z * density, z))
    torch.manual_seed(0)
    contexts = chained_pair().sample((5,))[:, 0]
    assert list(np.argsort(means[:5])) == contexts.argsort().tolist()
    assert np.ptp(means[:5]) > 0.3
    first = plots.conditional_densities(chained_pair(), latent=0, num=2)
    one, other, dashed = first.get_lines()
    np.testing.assert_allclose(one.get_ydata(), other.get_ydata())
    np.testing.assert_allclose(one.get_ydata(), dashed.get_ydata(), atol=1e-5)


def test_conditional_densities_refuse_what_is_not_there():
    for options, least in (({"num": 0}, "1, got 0"), ({"points": 1}, "2, got 1")):
        with pytest.raises(ValueError, match=f"must be an integer of at least {least}"):
            plots.conditional_densities(chained_pair(), **options)
    with pytest.raises(ValueError, match="latent must be from -2 to 1, got 2"):
        plots.conditional_densities(chained_pair(), latent=2)
    with pytest.raises(ValueError, match=r"prior must have batch shape \(\), got \(3,\)"):
        plots.conditional_densities(chained_pair().expand((3,)))


def test_dependence_is_a_matrix_of_gray():
    axes = plots.dependence(torch.tensor([[0.0, -0.1], [2.0, 0.0]]), title="who depends on whom")
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0, 0], [2, 0]])
    with pytest.raises(ValueError, match=r"matrix must have shape \(Q, Q\), got \(2, 3\)"):
        plots.dependence(torch.zeros(2, 3))


def test_prior_marginals_are_histograms_beside_the_reference(tmp_path):
    """
    Bars have standard errors of at most 0.013; five of them at 120 bars: false alarm below 1e-4.
    """
    draws = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)) / 2 + torch.tensor(
        [0.0, 1.0, -1.0, 0.0]
    )
    panels = plots.prior_marginals(draws, Normal(0.0, 1.0))
    assert [panel.get_title() for panel in panels] == ["latent 1", "latent 2", "latent 3"]
    for panel, mean in zip(panels, (0.0, 1.0, -1.0), strict=True):
        for bar in panel.patches:
            ends = torch.tensor([bar.get_x(), bar.get_x() + bar.get_width()])
            inside = float(Normal(mean, 0.5).cdf(ends).diff()) / bar.get_width()
            assert bar.get_height() == pytest.approx(inside, abs=0.065)
        (dashed,) = panel.get_lines()
        np.testing.assert_allclose(
            dashed.get_ydata(), Normal(0.0, 1.0).log_prob(torch.tensor(dashed.get_xdata())).exp()
        )
    plots.save(panels[0], tmp_path / "marginals.png")
    assert (tmp_path / "marginals.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(
        ValueError, match=r"draws must have shape \(N, Q\), all dimensions at least 1, got \(5,\)"
    ):
        plots.prior_marginals(torch.zeros(5), Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="axes must hold 2 axes, one for each density, got 1"):
        plots.prior_marginals(
            torch.zeros(5, 2), Normal(0.0, 1.0), plots.new_figure().subplots(1, 1, squeeze=False)[0]
        )
    with pytest.raises(ValueError, match="bins must be an integer of at least 1, got 0"):
        plots.prior_marginals(torch.zeros(5, 2), Normal(0.0, 1.0), bins=0)


def test_training_curves_draw_values_and_running_means():
    updates = np.arange(1.0, 101.0)
    loss = 3.0 - 0.01 * updates
    panels = plots.training_curves(
        {"a": {"update": updates, "loss": loss}, "b": {"update": updates, "loss": loss}}, window=5
    )
    faint, mean, *_ = panels[0].get_lines()
    np.testing.assert_array_equal(faint.get_ydata(), loss)
    # centered: a line stays itself
    np.testing.assert_allclose(mean.get_ydata(), 3.0 - 0.01 * mean.get_xdata())
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["a", "b"]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"images must have shape \(num,.*, got \(3, 4\)"):
        plots.image_grid(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="num must be an integer of at least 1, got 0"):
        plots.prior_densities(ExponentiallyTilted(lambda z: z), num=0)
    with pytest.raises(ValueError, match="runs must hold at least one run, got none"):
        plots.training_curves({})
    with pytest.raises(
        ValueError, match=r"axes must hold 1 axes, one for each of \['loss'\], got 0"
    ):
        plots.training_curves({"run": {"update": [1.0], "loss": [1.0]}}, [])
