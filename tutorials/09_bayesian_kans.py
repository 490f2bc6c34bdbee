"""
Bayesian KANs
=============

*How sure can we be of a curve learned from few data?*

A Kolmogorov-Arnold network consists of curves, and a fitted curve is one answer among many. Replace
its coefficients with random variables, and Pyro's inference returns the posterior over all of them.
"""

# %%
# The data and the model
# ----------------------
#
# The data are 442 patients with diabetes. We predict disease progression after a year from body
# mass index, blood pressure and a blood lipid (Efron et al. 2004). One layer of a KAN is an
# additive model: :math:`y = \sum_i φ_i(x_i)` plus noise.

import math
import os

import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot
from pyro.infer import Predictive
from pyro.nn import PyroModule, PyroSample
from sklearn.datasets import load_diabetes

from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC, bridge_evidence, compare
from pyro_tkam.nn import KANLayer

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked

pyro.set_rng_seed(0)
features, progression = (torch.as_tensor(each).float() for each in load_diabetes(return_X_y=True))
NAMES = ["body mass index", "blood pressure", "log triglycerides"]
inputs = features[:, [2, 3, 8]]
inputs = (inputs / inputs.std(0)).clamp(-2.5, 2.5)
target = (progression - progression.mean()) / progression.std()
order = torch.randperm(len(target))
train, test = order[100:], order[:100]

# %%
# ``coefficients`` is an ordinary parameter of a layer, with shape ``(in, functions, out)``.
# Assigning a ``PyroSample`` makes it random. With ``base_spread=0``, the layer starts without its
# base functions, and nothing in this tutorial adds them. What remains is a sum of six bumps for
# each feature.


class AdditiveModel(PyroModule):
    """A layer with random coefficients and unknown noise."""

    def __init__(self, basis="rbf", grid_size=6):
        super().__init__()
        self.layer = KANLayer(
            3, 1, basis, low=-2.5, high=2.5, grid_size=grid_size, base_spread=0.0, bias=False
        )
        shape = self.layer.coefficients.shape
        self.layer.coefficients = PyroSample(dist.Normal(0.0, 0.5).expand(shape).to_event(3))
        self.noise = PyroSample(dist.HalfNormal(1.0))

    def forward(self, x, y=None):
        noise = self.noise
        mean = self.layer(x).squeeze(-1)
        with pyro.plate("patients", len(x)):
            return pyro.sample("y", dist.Normal(mean, noise), obs=y)


# %%
# Overlapping bumps have correlated coefficients. The 64 chains of ``EnsembleHMC`` learn these
# correlations from each other during warm-up, and run in one batch.

model = AdditiveModel()
mcmc = VectorizedMCMC(EnsembleHMC(model), num_samples=50 if SMALL else 200, disable_progbar=True)
mcmc.run(inputs[train], target[train])
print(mcmc.verdict)
assert mcmc.verdict.trusted

# %%
# The intervals are calibrated: nine in ten of the held-out patients lie inside their 90% interval,
# within the accuracy that a hundred patients allow.

draws = mcmc.get_samples(num_samples=1000)
predicted = Predictive(model, draws)(inputs[test])["y"]
low, high = predicted.quantile(torch.tensor([0.05, 0.95]), 0)
covered = ((target[test] > low) & (target[test] < high)).float().mean()
error = (predicted.mean(0) - target[test]).square().mean()
print(
    f"{covered:.0%} of held-out patients in their 90% interval; "
    f"{1 - error / target[test].var():.0%} explained"
)
assert 0.8 <= covered <= 0.98

# %%
# The figure shows the curves, one for each feature, with their full uncertainty. They are most
# uncertain where there are few patients.

axis = torch.linspace(-2.5, 2.5, 101)
with torch.no_grad():
    basis = model.layer.basis.bound()(axis)  # (points, functions)
    scale = model.layer.scale.squeeze()
    curves = scale * torch.einsum("pf,sif->sip", basis, draws["layer.coefficients"].squeeze(-1))
curves = curves - curves.mean(-1, keepdim=True)  # a constant may move from one curve to another
bands = curves.quantile(torch.tensor([0.05, 0.5, 0.95]), 0)
figure, panels = pyplot.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
for panel, name, column, (lower, middle, upper) in zip(
    panels, NAMES, inputs[train].T, bands.unbind(1), strict=True
):
    panel.fill_between(axis, lower, upper, alpha=0.3, linewidth=0)
    panel.plot(axis, middle)
    panel.plot(column, torch.full_like(column, -1.6), "|", color="black", markersize=5, alpha=0.3)
    panel.set_xlabel(f"{name} (standardized)")
panels[0].set_ylabel("effect on progression")
width = (bands[2] - bands[0]).mean(0)
assert width[-1] > 1.5 * width[50], "the bands open toward the ends, where there are few patients"
assert (bands[1, 0, 70] - bands[1, 0, 30]) > 0.3, "progression rises with body mass index"

# %%
# How fine a grid, and which basis?
# ---------------------------------
#
# Six bumps were a guess. The evidence of each choice says how probable the patients' data are under
# it. A grid that is finer than the data require is penalized for its extra freedom. The posterior
# draws are all that we need to compute the evidence.


def held_out_densities(candidate, fit):
    """Log density of each held-out patient, averaged over the posterior."""
    parts = fit.get_samples(num_samples=500)
    layer = candidate.layer
    basis = layer.basis.bound()(inputs[test])  # (patients, in, functions)
    weights = layer.scale.squeeze() * parts["layer.coefficients"].squeeze(-1)
    means = torch.einsum("pif,sif->sp", basis, weights)
    log_density = dist.Normal(means, parts["noise"].unsqueeze(-1)).log_prob(target[test])
    return log_density.logsumexp(0) - math.log(500)


choices = {"2 bumps": ("rbf", 2), "6 bumps": ("rbf", 6)}
if not SMALL:
    choices |= {"4 bumps": ("rbf", 4), "12 bumps": ("rbf", 12)}
    choices |= {"3 cubic splines": ("bspline", 3), "6 cubic splines": ("bspline", 6)}
evidences, densities = {}, {}
for name, (basis, grid_size) in choices.items():
    candidate, fit = AdditiveModel(basis, grid_size), mcmc
    if name != "6 bumps":
        fit = VectorizedMCMC(
            EnsembleHMC(candidate), num_samples=50 if SMALL else 200, disable_progbar=True
        )
        fit.run(inputs[train], target[train])
    evidences[name] = bridge_evidence(candidate, inputs[train], target[train], draws=fit)
    densities[name] = held_out_densities(candidate, fit)
table = compare(evidences)
table["held out"] = {name: each.sum().item() for name, each in densities.items()}
print(table[["log_evidence", "standard_error", "posterior_probability", "held out"]].round(3))
assert table["trusted"].all()

# %%
# The held-out patients agree with this choice, as far as a hundred of them can show. Under the
# model that the evidence prefers, their log density is as high as under any other, within the noise
# of the difference.

chosen = table.index[0]
best = table["held out"].idxmax()
apart = densities[best] - densities[chosen]
noise = apart.std() * len(test) ** 0.5
print(
    f"chosen by evidence: {chosen}; best held out: {best}, by {apart.sum():.2f} ± {noise:.2f} nats"
)
assert apart.sum() <= 2 * noise
