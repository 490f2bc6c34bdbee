"""Pictures of networks: a curve on each edge, colors of forms and masks, histories of fits."""

import numpy as np
import pyro
import pytest
import torch
from matplotlib.colors import to_rgb

from pyro_tkam import plots
from pyro_tkam.nn import KAN, fit


@pytest.fixture(autouse=True)
def _seed():
    pyro.set_rng_seed(0)


def test_a_network_has_a_curve_on_each_edge(tmp_path):
    net, x = KAN([2, (2, 1), 1]), torch.randn(50, 2)
    net.layers[0].mask[1, 0] = False
    net = net.fix({(0, 0, 1): ("sin", (1.0, 0.0, 1.0, 0.0))})
    axes = plots.kan_network(net, x, input_names=["mass", "speed"])
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 50]
    assert len(curves) == 2 * 4 + 3 - 1  # the masked one has none
    colors = [line.get_color() for line in axes.get_lines()]
    assert colors.count("tab:red") == 3  # one edge: two connections and a curve
    assert [to_rgb(color) for color in colors if color == "0.8"] == [(0.8,) * 3] * 2
    assert {"mass", "speed"} <= {text.get_text() for text in axes.texts}
    # The sine over the range of its arguments, in its box.
    red = next(line for line in curves if line.get_color() == "tab:red")
    expected = np.sin(np.linspace(float(x[:, 1].min()), float(x[:, 1].max()), 50))
    correlation = np.corrcoef(red.get_ydata(), expected)[0, 1]
    assert correlation == pytest.approx(1.0, abs=1e-6)
    plots.save(axes, tmp_path / "network.png")
    with pytest.raises(
        ValueError, match="input_names must hold 2 names, one for each input, got 1"
    ):
        plots.kan_network(net, x, input_names=["mass"])


def test_edges_with_their_axes():
    net, x = KAN([2, 3, 1]), torch.randn(50, 2)
    net.layers[0].mask[1, 0] = False
    axes = plots.kan_edges(net, x)
    assert len(axes) == 5
    line = axes[0].get_lines()[0]
    arguments = torch.tensor(line.get_xdata()).float()
    values = net.layers[0].bound()(arguments.reshape(-1, 1, 1))[:, 0, 0].detach()
    np.testing.assert_allclose(line.get_ydata(), values, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="layer must be below 2, got 2"):
        plots.kan_edges(net, x, 2)


def test_the_history_of_a_fit():
    x = torch.rand(50, 1)
    result = fit(KAN([1, 1]), x, x, steps=4, grid_updates=2, validation=(x, x), penalty=0.1)
    axes = plots.fit_history(result)
    losses, validation, penalty, ticks = axes.get_lines()
    np.testing.assert_array_equal(losses.get_ydata(), result.losses)
    np.testing.assert_array_equal(validation.get_ydata(), result.validation_losses)
    np.testing.assert_array_equal(penalty.get_ydata(), result.penalties)
    assert list(ticks.get_xdata()) == [0, 1]
