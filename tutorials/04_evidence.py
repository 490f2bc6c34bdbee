"""
The evidence of any Pyro model
==============================

*Do the eight schools differ, and how sure can we be of the answer?*

Eight schools coached students for a test and measured the effect (Rubin 1981). Did coaching help
all schools equally, so that the differences are noise? Or does each school have its own effect? We
write one Pyro model for each answer and compute its *evidence*, the probability of the data under
the model. The ratio of the evidences, the Bayes factor, answers the question.
"""

# %%
# Two models
# ----------
#
# Both models are plain Pyro. They use nothing from this package.

import math
import os

import arviz
import pyro
import pyro.distributions as dist
import torch
from matplotlib import pyplot

from pyro_tkam import plots
from pyro_tkam.diagnostics import to_arviz
from pyro_tkam.infer import AutoMALA, ParallelTempering, log_evidence

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked

effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def alike():
    """One effect of coaching for all schools."""
    location = pyro.sample("location", dist.Normal(0.0, 10.0))
    with pyro.plate("schools", 8):
        pyro.sample("effect", dist.Normal(location, errors), obs=effects)


def different(width=10.0):
    """Effects that vary around a common one."""
    location = pyro.sample("location", dist.Normal(0.0, 10.0))
    scatter = pyro.sample("scatter", dist.HalfNormal(width))
    with pyro.plate("schools", 8):
        deviation = pyro.sample("deviation", dist.Normal(0.0, 1.0))
        pyro.sample("effect", dist.Normal(location + scatter * deviation, errors), obs=effects)


# %%
# Their evidences
# ---------------
#
# ``log_evidence`` takes a model as it is. The result has a Monte Carlo standard error and a verdict
# in words. The verdict says whether there is a reason not to trust the value and, if so, what to
# do.

pyro.set_rng_seed(0)
evidence = {model.__name__: log_evidence(model) for model in (alike, different)}
for name, each in evidence.items():
    print(f"{name}: {each}\n")
    assert each.verdict.trusted

# %%
# The difference of two evidences is the log Bayes factor, with its standard error.

factor = evidence["alike"] - evidence["different"]
print(f"log Bayes factor for 'alike': {factor.value:.3f} ± {factor.standard_error:.3f} nats")
print(f"the data are {math.exp(factor.value):.2f} times as probable if all schools are alike")
assert 0 < factor.value < math.log(3), "barely worth mentioning, on Jeffreys' scale"

# %%
# Eight schools hardly decide the question: the data favor the simpler model, by less than a factor
# of three. The small standard error shows that this uncertainty comes from the data, not from the
# sampler.
#
# Is it right?
# ------------
#
# Here we can check. Given location and scatter, the effects are normal and can be integrated out,
# so only two dimensions remain. A sum over a grid in these two is exact to many digits.


def exact(width):
    """
    Log evidence from a grid over location and scatter; ``width=None`` means one common effect.
    """
    location = torch.linspace(-80, 80, 2001, dtype=torch.float64)
    scatter = (
        torch.linspace(0, 8 * width, 2001, dtype=torch.float64)[1:]
        if width
        else torch.zeros(1).double()
    )
    spread = (scatter[:, None, None] ** 2 + errors.double() ** 2).sqrt()
    values = dist.Normal(location[:, None], spread).log_prob(effects.double()).sum(-1)
    values = values + dist.Normal(0.0, 10.0).log_prob(location) + math.log(0.08)
    if width:
        values = (
            values + dist.HalfNormal(width).log_prob(scatter)[:, None] + math.log(8 * width / 2000)
        )
    return values.flatten().logsumexp(0).item()


for name, width in (("alike", None), ("different", 10.0)):
    miss = evidence[name].value - exact(width)
    print(f"{name}: {evidence[name].value:.4f}, exactly {exact(width):.4f}")
    assert abs(miss) < max(4 * evidence[name].standard_error, 0.05)

# %%
# The prior matters
# -----------------
#
# An evidence averages the likelihood over the prior. A vaguer prior is penalized because it puts
# probability on values that don't explain the data. Always report how the answer depends on the
# width of the prior on the scatter.

widths = [5.0, 10.0, 20.0] if SMALL else [2.0, 5.0, 10.0, 20.0, 40.0]
of_width = {10.0: evidence["different"]}
for width in widths:
    if width not in of_width:
        of_width[width] = log_evidence(different, model_kwargs={"width": width})
by_width = [of_width[width] - evidence["alike"] for width in widths]

figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
axes.errorbar(
    widths,
    [each.value for each in by_width],
    [2 * each.standard_error for each in by_width],
    fmt="o",
)
axes.plot(widths, [exact(width) - exact(None) for width in widths], color="0.5", label="exact")
axes.axhline(0, color="0.8", zorder=0)
axes.set(
    xlabel="width of the prior on the scatter",
    ylabel="log Bayes factor for 'different'",
    xscale="log",
)
axes.legend(frameon=False)
assert by_width[-1].value < by_width[0].value, "a vaguer prior on the scatter is penalized"

# %%
# How it works
# ------------
#
# The log evidence is an integral over *inverse temperatures* ``t``, from the prior (``t = 0``) to
# the posterior (``t = 1``). The integrand is the mean log likelihood under the power posterior, the
# prior times a power ``t`` of the likelihood. ``ParallelTempering`` draws at all temperatures at
# once. The area under the curve is the log evidence (thermodynamic integration). Three better
# estimators use the same draws.

pyro.set_rng_seed(1)
tempering = ParallelTempering(
    AutoMALA(different),
    num_temperatures=8,
    num_samples=200 if SMALL else 1000,
    num_chains=4,
    disable_progbar=True,
)
draws = tempering.run()
for method in ("thermodynamic", "steppingstone", "bar", "bridge"):
    estimate = draws.log_evidence(method)
    print(f"{method:14} {estimate.value:.3f} ± {estimate.standard_error:.3f}")
    assert abs(estimate.value - exact(10.0)) < 0.3

# %%
# If all schools are alike, all distributions are normal and the curve is known exactly. The left
# picture shows the trapezoids whose area is the estimate. The right picture shows the power
# posteriors, from the prior (blue) to the posterior (red).


def mean_log_likelihood(t):
    """Exact mean log likelihood of 'alike' at inverse temperatures."""
    weights = errors**-2
    precision = 0.01 + t * weights.sum()
    mean = t * (effects * weights).sum() / precision
    squares = (effects - mean[:, None]).square() + 1 / precision[:, None]
    return -0.5 * (squares * weights + (2 * math.pi * errors**2).log()).sum(-1)


pyro.set_rng_seed(2)
simple = ParallelTempering(
    AutoMALA(alike),
    num_temperatures=8,
    num_samples=1000,
    num_chains=4,
    keep_all=True,
    disable_progbar=True,
).run()
_, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
plots.evidence_curve(simple, left, exact=exact(None), exact_mean=mean_log_likelihood)
location = simple.density.constrain(simple.positions)["location"]
plots.power_posteriors(location, simple.betas, right, label="location")
averages = simple.log_likelihood.mean((1, 2))
assert (averages - mean_log_likelihood(simple.betas)).abs()[1:].max() < 0.2

# %%
# Read in ArviZ
# -------------
#
# The draws at ``t = 1`` are the posterior. ``to_arviz`` converts everything: the posterior with the
# plates as named dimensions, the sampler statistics, log likelihoods, observed data, the tempered
# draws, and the evidence.

data = to_arviz(tempering, evidence=evidence["different"])
summary = arviz.summary(data, var_names=["location", "scatter"])
print(summary.to_string())
print({name: data.attrs[name] for name in ("log_evidence", "log_evidence_standard_error")})
assert 3 < float(data["posterior"]["location"].mean()) < 10
assert data.attrs["log_evidence"] == evidence["different"].value

# %%
# You can also compare how well each model predicts a school from the others. ``arviz.compare``
# computes that score from the log likelihood of every datum, which ``to_arviz`` provides. This is a
# different question: the evidence penalizes a vague prior, and the predictive score does not.

table = arviz.compare({"alike": to_arviz(simple), "different": data})
print(table.iloc[:, :4].to_string())
assert set(table.index) == {"alike", "different"}
