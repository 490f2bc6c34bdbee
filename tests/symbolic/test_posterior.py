"""Probabilities of forms follow the posterior."""

import pytest
import torch

from pyro_tkam.symbolic import form_probabilities


def test_probabilities_are_shares_of_the_draws():
    torch.manual_seed(0)
    x = torch.linspace(-2, 2, 60)
    curves = torch.cat((torch.sin(2 * x) + 0.01 * torch.randn(3, 60), x.expand(1, -1)))
    found = form_probabilities(x, curves, library=["linear", "sin", "exp"], tolerance=1e-3)
    assert found == {"sin": 0.75, "linear": 0.25}


def test_a_wide_posterior_tells_less():
    """Where draws of a slightly bent line scatter more than it bends, a line is as probable."""
    torch.manual_seed(1)
    x = torch.linspace(-1, 1, 60)
    bent = x + 0.1 * x**2
    wide = bent + 0.2 * torch.randn(10, 1) * torch.sin(3 * x)
    library = ["linear", "square", "exp", "sin"]
    assert form_probabilities(x, bent.expand(2, -1), library=library).get("linear") is None
    assert form_probabilities(x, wide, library=library)["linear"] > 0.3
    with pytest.raises(ValueError, match=r"curves must have shape \(draws, 60\).*got \(60,\)"):
        form_probabilities(x, x)
