"""
A learned prior in your own Pyro model
======================================

*What does a factor analysis gain when its factor need not be Gaussian?*

Factor analysis explains a few measurements of each object by one hidden number, the factor, which
it takes to be normally distributed. That is a habit rather than knowledge. Here the factor's
density is *learned*, inside an ordinary Pyro model, from Fisher's 150 irises.
"""

# %%
# The data: four measurements of each flower, standardized. There are three species, which the model
# is not told. Thirty flowers are held out, to judge the models by.

import os

import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot
from pyro.infer import SVI
from pyro.nn import PyroModule
from sklearn.datasets import load_iris
from torch import nn

from pyro_tkam.infer import ImportanceMLE, ImportanceSampling
from pyro_tkam.models import TiltedPrior

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
UPDATES = 300 if SMALL else 1000

pyro.set_rng_seed(0)
measurements, species = (torch.as_tensor(each) for each in load_iris(return_X_y=True))
measurements = measurements.float()
flowers = (measurements - measurements.mean(0)) / measurements.std(0)
order = torch.randperm(len(flowers))
training, held_out = flowers[order[30:]], flowers[order[:30]]

# %%
# The model
# ---------
#
# ``prior()`` returns the factor's current density. It is any Pyro distribution to the model, and
# everything else is what one would write without this package: a plate, the factor ``z``, and four
# measurements that depend on it linearly.


class FactorAnalysis(PyroModule):
    """Four measurements of a flower, linear in one factor, with a prior to choose."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior
        self.loadings = nn.Parameter(torch.tensor([0.5, -0.3, 0.5, 0.5]))
        self.log_noise = nn.Parameter(torch.full((4,), -0.5))

    def forward(self, x):
        density = self.prior()
        with pyro.plate("flowers", len(x)):
            z = pyro.sample("z", density)
            measured = dist.Normal(z.unsqueeze(-1) * self.loadings, self.log_noise.exp())
            pyro.sample("x", measured.to_event(1), obs=x)


gaussian = FactorAnalysis(lambda: dist.Normal(torch.tensor(0.0), torch.tensor(1.0)))
learned = FactorAnalysis(TiltedPrior((), reference="gaussian"))

# %%
# The second prior is :math:`p(z) = \exp(f(z))\, \mathcal N(z)/Z` on [-4, 4], with an energy
# :math:`f` that is learned. It starts near the Gaussian, so the two models differ in nothing but
# the freedom to leave it.
#
# Training
# --------
#
# ``ImportanceMLE`` maximizes the likelihood of the data itself, by draws from the prior; no guide
# has to be written.


def train(model):
    """Fit a model with its own empty parameter store, since both use the same names."""
    with pyro.get_param_store().scope():
        svi = SVI(model, None, pyro.optim.Adam({"lr": 0.01}), loss=ImportanceMLE(300))
        losses = [svi.step(training) for _ in range(UPDATES)]
        evidence = ImportanceSampling(model, num_particles=20_000).run(held_out).evidence
    return losses, evidence


models = {"Gaussian": gaussian, "learned": learned}
losses, evidence = {}, {}
for name, model in models.items():
    losses[name], evidence[name] = train(model)
    value, error = (
        evidence[name].value / len(held_out),
        evidence[name].standard_error / len(held_out),
    )
    print(f"{name:9} log evidence of a held-out flower: {value:.3f} ± {error:.3f} nats")

# %%
# The difference of two evidences is a log Bayes factor: how much more probable the held-out flowers
# are under one model than under the other.

gain = evidence["learned"] - evidence["Gaussian"]
print(
    f"all {len(held_out)} held-out flowers are e^{gain.value:.1f} times as probable under the "
    "learned prior"
)
assert gain.value > 5 * max(1.0, gain.standard_error)

# %%
# What was learned
# ----------------
#
# The density is a curve that can be looked at. It has two modes, as if the flowers were of two
# kinds; colored by species, the flowers' factors show which: *Iris setosa* and the rest.

with torch.no_grad(), pyro.get_param_store().scope():
    density = learned.prior()
    z = torch.linspace(-3.5, 3.5, 400)
    curve = density.log_prob(z).exp()
    draws = ImportanceSampling(learned, num_particles=5_000).run(flowers).samples["z"]
factors = draws.mean(0)

figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for name, values in losses.items():
    left.plot([value / len(training) for value in values], label=name, linewidth=0.8)
left.set(xlabel="update", ylabel="loss (nats a flower)")
left.legend(frameon=False)
right.plot(z, curve, color="black", label="learned prior")
right.plot(z, dist.Normal(0.0, 1.0).log_prob(z).exp(), "--", color="black", label="Gaussian")
for kind, label in enumerate(("setosa", "versicolor", "virginica")):
    right.hist(
        factors[species == kind], bins=30, range=(-3.5, 3.5), density=True, alpha=0.3, label=label
    )
right.set(xlabel="factor z", ylabel="density")
right.legend(frameon=False, fontsize="small")

setosa, others = factors[species == 0], factors[species != 0]
low, high = sorted([float(setosa.mean()), float(others.mean())])
valley = z[(z > low) & (z < high)]
with torch.no_grad():
    between = density.log_prob(valley).min()
    peaks = density.log_prob(torch.stack([setosa.mean(), others.mean()]))
assert (peaks > between + 1).all(), "the learned prior has a valley between setosa and the others"
assert setosa.max() < others.min() or setosa.min() > others.max(), (
    "the factor alone tells setosa apart"
)

# %%
# Everything that a Pyro distribution has, the learned one has exactly: draws, density, CDF and its
# inverse, moments.

with torch.no_grad():
    u = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(density.cdf(density.icdf(u)), u, atol=1e-5)
    print(
        f"mean {density.mean:.2f}, standard deviation {density.variance.sqrt():.2f}, deciles "
        f"{density.icdf(u)}"
    )
