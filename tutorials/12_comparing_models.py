"""
Comparing models you already have
=================================

*Which dose-response curve do the data on beetles support, and how strongly?*

Bliss (1935) exposed 481 flour beetles to eight doses of carbon disulfide and counted the dead.
Ever since, these data have been used to ask which curve relates mortality to dose. In this
tutorial, five models are fitted as usual, and their *draws* show how probable each model is. No
sampler has to run again.
"""

# %%
# The models
# ----------
# We compare three curves with two coefficients, one with an extra curvature, and a hierarchical
# model in which every dose varies around the curve. Priors are part of each model. A slope of five
# standard deviations takes mortality from none to all within the range of doses.

import math
import os
import tempfile
from pathlib import Path

import arviz
import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot

from pyro_tkam.diagnostics import save, to_arviz
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC, bridge_evidence, compare

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked

dose = torch.tensor([1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839])
beetles = torch.tensor([59.0, 60.0, 62.0, 56.0, 63.0, 59.0, 62.0, 60.0])
dead = torch.tensor([6.0, 13.0, 18.0, 28.0, 52.0, 53.0, 61.0, 60.0])
x = (dose - dose.mean()) / dose.std()


def linear():
    """A straight line on the scale of a link function."""
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 5.0))
    return intercept + slope * x


def count(probability):
    with pyro.plate("doses", len(x)):
        pyro.sample("dead", dist.Binomial(beetles, probability), obs=dead)


def logit():
    count(linear().sigmoid())


def probit():
    count(torch.special.ndtr(linear()))


def cloglog():
    """One minus the exponential of minus an exponential: the complementary log-log link."""
    count(-torch.expm1(-linear().exp()))


def quadratic():
    curvature = pyro.sample("curvature", dist.Normal(0.0, 1.0))
    count((linear() + curvature * x.square()).sigmoid())


def scattered():
    """Each dose has its own deviation, as if one tray had been warmer than the others."""
    scatter = pyro.sample("scatter", dist.HalfNormal(1.0))
    with pyro.plate("trays", len(x)):
        deviation = pyro.sample("deviation", dist.Normal(0.0, 1.0))
    count((linear() + scatter * deviation).sigmoid())


# %%
# Draws
# -----
#
# You can use any sampler: ``pyro.infer.MCMC`` with several chains, a file that ArviZ wrote last
# year, or a dictionary ``{site: (chain, draw, ...)}``. Here many chains run in one batch.

pyro.set_rng_seed(0)
models = {each.__name__: each for each in (logit, probit, cloglog, quadratic, scattered)}
fits = {}
for name, model in models.items():
    fits[name] = VectorizedMCMC(
        EnsembleHMC(model), num_samples=60 if SMALL else 200, num_chains=64, disable_progbar=True
    )
    fits[name].run()

# %%
# Evidences
# ---------
#
# Each evidence takes one call. It fits a normal distribution to half of the chains and *bridges* it
# with the other half, in both directions. The result has a standard error and a verdict. The
# verdict says whether the halves agree, whether there are enough draws, and whether the draws come
# from this model at all.

evidences = {name: bridge_evidence(models[name], draws=fits[name]) for name in models}
print(evidences["cloglog"])
assert all(each.verdict.trusted for each in evidences.values())

# %%
# A file works as well as a run, and so do the samples alone:

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "cloglog.nc"
    save(to_arviz(fits["cloglog"]), path)
    from_file = bridge_evidence(cloglog, draws=path)
apart = from_file - evidences["cloglog"]
print(f"from the file: {from_file.value:.4f} ± {from_file.standard_error:.4f}")
assert abs(apart.value) < 5 * apart.standard_error

# %%
# Draws from another model are detected, even if all names match:

wrong = bridge_evidence(probit, draws=fits["cloglog"])
print(wrong.verdict)
assert "draws of another posterior" in wrong.verdict.names

# %%
# Bayes factors and probabilities
# -------------------------------
#
# ``compare`` sorts the models. It gives the Bayes factor of each model against the best and each
# model's posterior probability, with errors. Prior probabilities are equal unless you pass
# ``prior_probabilities``.

table = compare(evidences)
print(table[["log_evidence", "standard_error", "bayes_factor", "posterior_probability"]])
assert table.index[0] == "cloglog"
assert table.loc["cloglog", "posterior_probability"] > 0.5

figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
axes.barh(
    table.index[::-1],
    table["posterior_probability"][::-1],
    xerr=2 * table["posterior_probability_error"][::-1],
)
axes.set(xlabel="posterior probability of the model", xlim=(0, 1))

# %%
# Is it right?
# ------------
#
# For two coefficients, we can sum over a grid, which is exact to many digits.


def exact(link):
    intercept, slope = torch.meshgrid(
        torch.linspace(-8, 8, 801).double(), torch.linspace(-2, 18, 801).double(), indexing="ij"
    )
    line = intercept[..., None] + slope[..., None] * x.double()
    likelihood = dist.Binomial(beetles.double(), link(line)).log_prob(dead.double()).sum(-1)
    prior = dist.Normal(0.0, 2.0).log_prob(intercept) + dist.Normal(0.0, 5.0).log_prob(slope)
    return (likelihood + prior).flatten().logsumexp(0).item() + math.log(0.02 * 0.025)


links = {
    "logit": torch.sigmoid,
    "probit": torch.special.ndtr,
    "cloglog": lambda line: -torch.expm1(-line.exp()),
}
for name, link in links.items():
    evidence = evidences[name]
    print(f"{name}: {evidence.value:.4f} ± {evidence.standard_error:.4f}, exact {exact(link):.4f}")
    assert abs(evidence.value - exact(link)) < 5 * evidence.standard_error + 0.005

# %%
# The Savage-Dickey ratio
# -----------------------
#
# ``logit`` is ``quadratic`` with a curvature of zero, and the other priors are the same. In this
# case, the Bayes factor is the posterior density of the curvature at zero divided by its prior
# density there. The draws of one model are enough to compute it. This works only for nested models,
# and only if some draws come near zero. Here we can compute the Bayes factor both ways.

curvature = fits["quadratic"].get_samples()["curvature"]
width = 1.06 * curvature.std() * len(curvature) ** -0.2
density_at_zero = dist.Normal(curvature, width).log_prob(torch.zeros(())).exp().mean()
savage_dickey = (density_at_zero / dist.Normal(0.0, 1.0).log_prob(torch.zeros(())).exp()).log()
factor = evidences["logit"] - evidences["quadratic"]
print(f"log Bayes factor for the straight line: {factor.value:.2f} ± {factor.standard_error:.2f}")
print(f"by the density at zero: {savage_dickey:.2f}")
assert abs(savage_dickey - factor.value) < 0.7

# %%
# Prediction is a different question
# ----------------------------------
#
# Leave-one-out cross-validation rates how well a fit predicts one more dose. The evidence rates
# what a model predicted before it saw any data. The two can differ: a wide prior hardly changes the
# first but lowers the second. Here they agree on the best curve.


def predicted(fit):
    loo = arviz.loo(to_arviz(fit))
    return float(getattr(loo, "elpd", None) or loo.elpd_loo)


elpd = {name: predicted(fits[name]) for name in ("logit", "probit", "cloglog")}
for name, value in elpd.items():
    print(f"{name}: log evidence {evidences[name].value:.2f}, expected log density {value:.2f}")
assert max(elpd, key=elpd.get) == "cloglog"

# %%
# How much do the priors matter?
# ------------------------------
#
# The last column of the table is the change of the log evidence with the power to which a prior is
# raised: half a nat for each coefficient whose prior is vague. If a prior is more than a hundred
# times as wide as its posterior, ``compare`` warns, because such a Bayes factor says more about the
# width than about the data.

print(table["prior_sensitivity"])
