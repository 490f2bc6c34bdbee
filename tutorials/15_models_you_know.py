"""
Models that statisticians know
==============================

*How do I write my model, and how strongly do the data favor it over a simpler one?*

Most analyses begin with one of these six models: logistic regression, Poisson regression with an
offset, intercepts and slopes that vary by group, a mixture, a change point or a Gaussian process.
Each is sampled here, summarized with ArviZ and compared with a simpler model of the same data. Copy
the one that is closest to yours.
"""

# %%
# One function for all
# --------------------
# ``study`` samples a model with 64 chains, prints ArviZ's summary of some sites, and estimates the
# log Bayes factor of the model against a simpler one. A log Bayes factor of 3 means that the data
# are 20 times as probable under the first model.

import math
import os

import arviz
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from sklearn.datasets import load_iris

from pyro_tkam.diagnostics import to_arviz
from pyro_tkam.infer import EnsembleHMC, VectorizedMCMC, log_evidence

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked
DRAWS = 100 if SMALL else 500


def study(model, simpler, sites):
    pyro.set_rng_seed(0)
    chains = VectorizedMCMC(EnsembleHMC(model), num_samples=DRAWS, disable_progbar=True)
    chains.run()
    table = arviz.summary(to_arviz(chains), var_names=sites)
    print(table[["mean", "sd", "ess_bulk", "r_hat"]])
    print(chains.verdict)
    factor = log_evidence(model) - log_evidence(simpler)
    print(f"log Bayes factor against the simpler model: {factor}")
    return chains


# %%
# Logistic regression
# -------------------
# The data are four measurements of flowers from two species of iris. Does anything but the petals
# help to predict the species?

iris = load_iris()
kept = iris.target > 0
measurements = torch.tensor(iris.data[kept], dtype=torch.float32)
measurements = (measurements - measurements.mean(0)) / measurements.std(0)
virginica = torch.tensor(iris.target[kept] == 2, dtype=torch.float32)


def logistic(columns):
    def model():
        intercept = pyro.sample("intercept", dist.Normal(0.0, 2.5))
        slopes = pyro.sample("slopes", dist.Normal(torch.zeros(len(columns)), 2.5).to_event(1))
        with pyro.plate("flowers", len(virginica)):
            logits = intercept + measurements[:, columns] @ slopes
            pyro.sample("virginica", dist.Bernoulli(logits=logits), obs=virginica)

    return model


logistic_chains = study(logistic([0, 1, 2, 3]), logistic([2, 3]), ["intercept", "slopes"])

# %%
# Poisson regression with an offset
# ---------------------------------
# Expected counts are proportional to exposure, here the number of years that a region was observed.
# The logarithm of the exposure is added to the linear predictor with a coefficient of one. The
# simpler model has no covariate.

years = torch.tensor([3.0, 12.0, 7.0, 1.0, 20.0, 5.0, 9.0, 15.0, 2.0, 11.0, 6.0, 18.0])
density = torch.linspace(-1.5, 1.5, 12)
events = torch.tensor([1.0, 4.0, 2.0, 1.0, 13.0, 3.0, 8.0, 17.0, 3.0, 18.0, 12.0, 41.0])


def poisson(covariate):
    def model():
        rate = pyro.sample("rate", dist.Normal(0.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0)) if covariate else 0.0
        with pyro.plate("regions", len(events)):
            log_mean = rate + slope * density + years.log()
            pyro.sample("events", dist.Poisson(log_mean.exp()), obs=events)

    return model


poisson_chains = study(poisson(True), poisson(False), ["rate", "slope"])

# %%
# Varying intercepts and slopes
# -----------------------------
# The data are simulated: eight schools with ten pupils each, from a model whose slopes do vary. The
# non-centered parameterization writes deviations as standard normals times a scale. It keeps the
# posterior easy to sample when groups are small.

pyro.set_rng_seed(1)
schools, pupils = 8, 10
school = torch.arange(schools).repeat_interleave(pupils)
hours = torch.randn(schools * pupils)
truth = (
    1.0 + 0.5 * torch.randn(schools)[school] + (0.8 + 0.6 * torch.randn(schools)[school]) * hours
)
scores = truth + 0.5 * torch.randn(schools * pupils)


def varying(slopes_vary):
    def model():
        intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        spread = pyro.sample("spread", dist.HalfNormal(torch.ones(2)).to_event(1))
        with pyro.plate("schools", schools):
            level = pyro.sample("level", dist.Normal(0.0, 1.0))
            turn = pyro.sample("turn", dist.Normal(0.0, 1.0)) if slopes_vary else torch.zeros(())
        levels = intercept + spread[..., :1] * level
        slopes = slope + spread[..., 1:] * turn.expand(level.shape)
        with pyro.plate("pupils", schools * pupils):
            mean = levels[..., school] + slopes[..., school] * hours
            pyro.sample("scores", dist.Normal(mean, noise), obs=scores)

    return model


varying_chains = study(varying(True), varying(False), ["intercept", "slope", "spread", "noise"])

# %%
# A mixture
# ---------
# Discrete sites are summed out. The model has a first center and a positive distance to the second.
# The centers are therefore ordered by construction, and the labels of the components cannot switch.

pyro.set_rng_seed(2)
waiting = torch.cat([1.5 + 0.4 * torch.randn(40), 4.0 + 0.6 * torch.randn(60)])


@config_enumerate
def mixture():
    first = pyro.sample("first", dist.Normal(2.0, 2.0))
    gap = pyro.sample("gap", dist.LogNormal(0.5, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(torch.full((2,), -0.5), 0.5).to_event(1))
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    with pyro.plate("eruptions", len(waiting)):
        second = pyro.sample("second", dist.Bernoulli(share)).long()
        spread = torch.where(second == 1, scale[..., 1], scale[..., 0])
        pyro.sample("waiting", dist.Normal(first + gap * second, spread), obs=waiting)


def one_component():
    first = pyro.sample("first", dist.Normal(2.0, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(-0.5, 0.5))
    with pyro.plate("eruptions", len(waiting)):
        pyro.sample("waiting", dist.Normal(first, scale), obs=waiting)


mixture_chains = study(mixture, one_component, ["first", "gap", "scale", "share"])

# %%
# A time series with a change
# ---------------------------
# The data are the yearly flow of the Nile at Aswan from 1871 to 1970, in 10⁸ cubic meters (Cobb
# 1978). The year of the change is a discrete site over all years. It is summed out exactly.

# fmt: off
flow = torch.tensor([
    1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960, 1180,
    799, 958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694, 940, 833,
    701, 916, 692, 1020, 1050, 969, 831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821, 768, 845,
    864, 862, 698, 845, 744, 796, 1040, 759, 781, 865, 845, 944, 984, 897, 822, 1010, 771, 676, 649,
    846, 812, 742, 801, 1040, 860, 874, 848, 890, 744, 749, 838, 1050, 918, 986, 797, 923, 975, 815,
    1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740,
]) / 100.0
# fmt: on
year = torch.arange(1871, 1971)


@config_enumerate
def change():
    before = pyro.sample("before", dist.Normal(9.0, 3.0))
    after = pyro.sample("after", dist.Normal(9.0, 3.0))
    noise = pyro.sample("noise", dist.HalfNormal(3.0))
    when = pyro.sample("when", dist.Categorical(logits=torch.zeros(len(flow))))
    mean = torch.where(torch.arange(len(flow)) < when.unsqueeze(-1), before, after)
    pyro.sample("flow", dist.Normal(mean, noise).to_event(1), obs=flow)


def constant():
    before = pyro.sample("before", dist.Normal(9.0, 3.0))
    noise = pyro.sample("noise", dist.HalfNormal(3.0))
    pyro.sample("flow", dist.Normal(before.expand(100), noise).to_event(1), obs=flow)


change_chains = study(change, constant, ["before", "after", "noise"])

# %%
# A Gaussian process
# ------------------
# The model is a smooth function with unknown length scale, observed at 25 noisy points. The
# function itself is integrated out in closed form. The simpler model is a straight line.

pyro.set_rng_seed(3)
place = torch.linspace(0.0, 1.0, 25)
heights = (2 * math.pi * place).sin() + 0.3 * torch.randn(25)
apart = (place[:, None] - place).square()


def process():
    size = pyro.sample("size", dist.HalfNormal(1.0))
    length = pyro.sample("length", dist.LogNormal(-1.5, 0.7))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    covariance = size.square() * (-apart / (2 * length.square())).exp()
    covariance = covariance + (noise.square() + 1e-4) * torch.eye(25)
    pyro.sample(
        "heights",
        dist.MultivariateNormal(torch.zeros(25), covariance_matrix=covariance),
        obs=heights,
    )


def line():
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    pyro.sample("heights", dist.Normal(level + slope * place, noise).to_event(1), obs=heights)


process_chains = study(process, line, ["size", "length", "noise"])

# %%
# What next
# ---------
# If a verdict says not to trust the draws, it gives the number behind this and says what to do; see
# :doc:`../verdicts`. To compare models that you have sampled elsewhere, see
# :doc:`12_comparing_models`.
