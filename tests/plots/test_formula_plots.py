"""The picture of a formula shows its error."""

import pytest
import torch

from pyro_tkam import plots


def test_parity_shows_every_output_and_the_error():
    x = torch.rand(30, 2)
    axes = plots.formula_parity(lambda x: x + 0.5, x, x)
    assert axes.get_title() == "rmse 0.5"
    assert len(axes.lines) == 3
    assert torch.allclose(torch.tensor(axes.lines[1].get_ydata()), x[:, 1] + 0.5)
    with pytest.raises(ValueError, match=r"y must have shape \(30, 2\), got \(30, 1\)"):
        plots.formula_parity(lambda x: x, x, x[:, 0])
