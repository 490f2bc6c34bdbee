"""Evidence of each datum by the cheapest method that its diagnosis trusts."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import log_evidence
from pyro_tkam.models import TKAM
from pyro_tkam.train.evidence import METHODS, _by_mixture, per_datum_evidence


class Gaussian(torch.nn.Module):
    """``z ~ N(0, I)``, ``x|z ~ N(z, s²)``: ``x ~ N(0, 1 + s²)``."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, self.noise).to_event(1), obs=x)

    def exact(self, x):
        return dist.Normal(0.0, math.hypot(1.0, self.noise)).log_prob(x).sum(-1)


def test_prior_draws_are_enough_where_data_say_little():
    pyro.set_rng_seed(0)
    model, data = Gaussian(1.0), torch.tensor([[0.0, 0.5], [1.0, -1.0], [0.3, 0.2]])
    report = per_datum_evidence(model, data, checked=0)
    assert (report.data.method == METHODS.index("prior")).all()
    assert report.data.trusted.all()
    assert ((report.data.value - model.exact(data)).abs() < 4.5 * report.data.standard_error).all()


@pytest.mark.slow
def test_fitted_mixtures_take_over_and_tempering_agrees():
    """4.5 standard errors for each of 5 data: false alarms below 1e-4."""
    pyro.set_rng_seed(0)
    model, data = Gaussian(0.05), torch.randn(5, 6)
    report = per_datum_evidence(model, data, checked=2)
    assert (report.data.method == METHODS.index("fitted")).all()
    assert report.data.trusted.all()
    assert ((report.data.value - model.exact(data)).abs() < 4.5 * report.data.standard_error + 0.002).all()
    assert report.agrees.all(), str(report)
    assert "cross-check by tempering: 2 of 2 agree" in str(report)


@pytest.mark.slow
def test_all_methods_agree_on_a_tkam():
    """AIS, steppingstone, BAR, bridge and fitted mixtures, four data: 5 joint standard errors and 0.05 nats."""
    pyro.set_rng_seed(0)
    model = TKAM.kart(8, latent_dim=2, coupling="shared", grid_size=5, noise_scale=0.1).requires_grad_(False)
    data = model(size=4)
    fitted = _by_mixture(model, data)
    assert fitted.trusted.all()
    tempered = {"num_temperatures": 10, "num_samples": 250, "warmup_steps": 250, "num_chains": 4}
    options = {name: tempered for name in ("steppingstone", "bar", "bridge")} | {"ais": {}}
    for method, chosen in options.items():
        found = log_evidence(model, data, method=method, **chosen)
        error = (found.per_datum_standard_error.square() + fitted.standard_error.square()).sqrt()
        assert ((found.per_datum - fitted.value).abs() < 5 * error + 0.05).all(), method


@pytest.mark.parametrize(("data", "options"), [(torch.zeros(0, 2), {}), (torch.zeros(2, 2), {"checked": -1})])
def test_bad_arguments(data, options):
    with pytest.raises(ValueError, match="checked"):
        per_datum_evidence(Gaussian(1.0), data, **options)
