"""
A learned prior in your own Pyro model
======================================

*What does factor analysis gain if its factor need not be Gaussian?*

Factor analysis explains a few measurements of each object by one hidden number, the factor. It
usually assumes that the factor is normally distributed. This assumption is mere convention. In
this tutorial, an ordinary Pyro model *learns* the density of the factor from Fisher's 150 irises.
"""

# %%
# The data are four measurements of each flower, standardized. There are three species, but the
# model doesn't see them. Thirty flowers are held out to evaluate the models.

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
# ``prior()`` returns the current density of the factor. The model uses it like any other Pyro
# distribution. Everything else is ordinary Pyro: a plate, the factor ``z``, and four measurements
# that depend linearly on the factor.


class FactorAnalysis(PyroModule):
    """Four measurements of a flower, linear in one factor, with a choice of prior."""

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
# The second prior is :math:`p(z) = \exp(f(z))\, \mathcal N(z)/Z` on [-4, 4], with a learned energy
# :math:`f`. It starts near the Gaussian, so the only difference between the two models is that the
# second prior can move away from it.
#
# Training
# --------
#
# ``ImportanceMLE`` maximizes the likelihood of the data directly, with draws from the prior. It
# needs no guide.


def train(model):
    """Fit a model in its own empty parameter store, because both models use the same names."""
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
# The difference of two evidences is a log Bayes factor. It says how much more probable the held-out
# flowers are under one model than under the other.

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
# The learned density is a curve that you can plot. It has two modes, as if there were two kinds of
# flowers. Coloring the factors by species shows which: *Iris setosa* and the rest.

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
# The learned density offers everything that a Pyro distribution has, and all of it is exact: draws,
# density, CDF, inverse CDF and moments.

with torch.no_grad():
    u = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(density.cdf(density.icdf(u)), u, atol=1e-5)
    print(
        f"mean {density.mean:.2f}, standard deviation {density.variance.sqrt():.2f}, deciles "
        f"{density.icdf(u)}"
    )
