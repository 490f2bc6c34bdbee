"""The Levenberg-Marquardt method: exact derivatives, accurate fits, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from pyro_tkam.nn import KAN, fit
from pyro_tkam.nn._unseen import unseen
from pyro_tkam.nn.marquardt import _put, _weights, linearized


def inputs(rows=100, columns=2):
    torch.manual_seed(0)
    return 2 * torch.rand(rows, columns, dtype=torch.double) - 1


def mixed():
    """Return a network with a product, forms, masked edges and two outputs."""
    forms = {
        (0, 0, 0): ("sin", (2.0, 0.3, 1.5, 0.2)),
        (0, 1, 0): ("square", (2.0, 0.3, 1.5, 0.2)),
        (0, 2, 0): ("cube", (1.0, 0.0, 1.0, 0.0)),
    }
    net = KAN([2, (1, 1), 2], grid_size=3, output="sigmoid").double().fix(forms)
    net.layers[0].mask[1, 1] = False
    net.layers[0].mask[2, 0] = False  # the cube
    return net


@torch.no_grad()
def test_derivatives_are_those_of_small_differences():
    x = inputs()
    net = mixed()
    with unseen(net):
        before = net(x)
        outputs, derivatives = linearized(net, x)
        torch.testing.assert_close(outputs, before, rtol=0, atol=0)
        weights = _weights(net)
        assert derivatives.shape == (2, len(x), len(weights))
        for number in range(len(weights)):
            values = []
            for change in (1e-6, -1e-6):
                moved = weights.clone()
                moved[number] += change
                _put(net, moved)
                values.append(net(x))
            difference = (values[0] - values[1]).mT / 2e-6
            torch.testing.assert_close(difference, derivatives[..., number], rtol=1e-6, atol=1e-8)
        _put(net, weights)
        torch.testing.assert_close(net(x), before)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_a_product_is_fitted_in_few_steps(dtype):
    """Two steps of L-BFGS, which evaluate the network more often, leave ten times the error."""
    x = inputs(300).to(dtype)
    y = torch.sin(3 * x[:, 0]) * x[:, 1]
    net = KAN([2, (0, 1), 1], grid_size=5).to(dtype).sparse_start(x)
    result = fit(net, x, y, optimizer="lm", steps=15)
    assert result.rmse < 2e-3
    assert bool((result.losses.diff() <= 1e-12).all())
    assert net(x).dtype == dtype


def test_batches_add_up():
    x = inputs()
    y = torch.sin(3 * x[:, :1]) * x[:, 1:]
    losses = []
    for batch_size in (None, 30):
        torch.manual_seed(1)
        net = KAN([2, 2, 1], grid_size=3).double()
        losses.append(fit(net, x, y, optimizer="lm", steps=4, batch_size=batch_size).losses)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)


def test_what_is_no_least_squares_is_refused():
    x = inputs()
    for options in ({"penalty": 0.1}, {"loss": torch.nn.functional.l1_loss}):
        with pytest.raises(
            ValueError, match="penalty, loss must be 0 and None with optimizer='lm'"
        ):
            fit(KAN([2, 1]), x, x[:, 0], optimizer="lm", **options)
    with pytest.raises(ValueError, match="constraint must be 'none' for the Levenberg-Marquardt"):
        fit(KAN([2, 1], constraint="increasing"), x, x[:, 0], optimizer="lm")
