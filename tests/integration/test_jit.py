"""Pyro's ``jit_compile`` is refused by name where TorchScript cannot record a model."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, JitTrace_ELBO
from pyro.nn import PyroModule, PyroSample

from pyro_tkam.models import TKAM, AmortizedGuide, TiltedPrior
from pyro_tkam.nn import KANLayer

# Newer versions of torch say so of what is called here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")

REFUSAL = "jit_compile must be False for a model with"


class BayesianLayer(PyroModule):
    """A layer whose coefficients are latent."""

    def __init__(self, basis):
        super().__init__()
        self.layer = KANLayer(2, 1, basis, low=-1.0, high=1.0)
        shape = self.layer.coefficients.shape
        self.layer.coefficients = PyroSample(dist.Normal(0.0, 1.0).expand(shape).to_event(3))

    def forward(self, x, y):
        mean = self.layer(x)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean, 0.1).to_event(1), obs=y)


def nuts(model, *args):
    kernel = NUTS(model, jit_compile=True, ignore_jit_warnings=True)
    MCMC(kernel, num_samples=1, warmup_steps=1, disable_progbar=True).run(*args)


def test_nuts_of_a_learned_prior():
    prior = TiltedPrior(2, "gaussian")

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior().to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 0.3), obs=x)

    with pytest.raises(NotImplementedError, match=REFUSAL):
        nuts(model, torch.randn(3))


@pytest.mark.parametrize("basis", ["rbf", "bspline", "chebyshev", "fourier"])
def test_nuts_of_a_bayesian_layer(basis):
    with pytest.raises(NotImplementedError, match=REFUSAL):
        nuts(BayesianLayer(basis), torch.rand(10, 2), torch.rand(10, 1))


def test_the_traced_bound_of_a_model():
    model = TKAM.mixture(8, 3, 2)
    loss = JitTrace_ELBO(ignore_jit_warnings=True)
    svi = SVI(model, AmortizedGuide(model), pyro.optim.Adam({"lr": 1e-3}), loss)
    with pytest.raises(NotImplementedError, match=REFUSAL):
        svi.step(torch.rand(5, 8))
