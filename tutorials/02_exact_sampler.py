"""
The exact sampler
=================

*What does inverse transform sampling do, and why is the usual lookup table biased?*

Draw a number uniformly from (0, 1) and apply the inverse of a distribution function :math:`F`. The
result is a draw from that distribution. So one pass, without a Markov chain, samples any density
whose :math:`F` can be inverted. The question is how accurately. This tutorial builds the usual
inversion, finds its bias, and shows what to do instead.
"""

# %%
# A density with a learned shape
# ------------------------------
#
# The density is :math:`p(z) = \exp(f(z))/Z` on [0, 1]. Its energy is a sum of twenty Gaussian bumps
# with random heights. A prior of the paper looks like this after some training.

import numpy
import pyro
import torch
from matplotlib import pyplot

from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.nn import UnivariateFunctions

pyro.set_rng_seed(4)
bank = UnivariateFunctions((), "rbf", low=0.0, high=1.0, grid_size=20).double()
torch.nn.init.normal_(bank.coefficients, std=1.5)
energy = bank.bound()
exact = ExponentiallyTilted(energy)

# %%
# The reference is the distribution function on a grid of a million points. It uses neither of the
# two methods that we compare.

with torch.no_grad():
    grid = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    weights = energy(grid).exp()
    steps = (weights[1:] + weights[:-1]) / 2
    cumulated = torch.cat([steps.new_zeros(1), steps.cumsum(0)]) / steps.sum()


def distribution_function(z):
    """Interpolate the fine table at ``z``."""
    index = (z * 1_000_000).long().clamp(0, 999_999)
    fraction = z * 1_000_000 - index
    return cumulated[index] + fraction * (cumulated[index + 1] - cumulated[index])


# %%
# The usual table
# ---------------
#
# Take the nodes of a quadrature rule, compute the cumulative sum of their weights, look up ``u``,
# and interpolate between the two neighboring nodes (Raj 2025, arXiv:2506.14167, Eq. 21-25). This
# looks harmless.

positions, gauss_weights = numpy.polynomial.legendre.leggauss(100)  # on [-1, 1]
nodes, node_weights = torch.tensor((1 + positions) / 2), torch.tensor(gauss_weights / 2)


@torch.no_grad()
def usual_table(u):
    """Invert by interpolation between quadrature nodes."""
    mass = node_weights * energy(nodes).exp()
    table = mass.cumsum(0) / mass.sum()
    upper = torch.searchsorted(table, u).clamp(1, len(nodes) - 1)
    lower = upper - 1
    fraction = ((u - table[lower]) / (table[upper] - table[lower])).clamp(0, 1)
    return nodes[lower] + fraction * (nodes[upper] - nodes[lower])


# %%
# If ``z`` is the inverse of ``u``, then :math:`F(z) = u`. The difference :math:`F(z) - u` is
# therefore the error of an inversion, in units of probability.

u = torch.linspace(1e-6, 1 - 1e-6, 20_001, dtype=torch.float64)
with torch.no_grad():
    inverses = {"usual table": usual_table(u), "exact": exact.icdf(u)}
    errors = {name: distribution_function(z) - u for name, z in inverses.items()}
for name, error in errors.items():
    print(f"{name:12} largest error of the distribution function: {error.abs().max():.1e}")
assert errors["usual table"].abs().max() > 5e-3
assert errors["exact"].abs().max() < 1e-8

# %%
# Why is the table biased? A cumulative *weight* is not the distribution function at the node. Each
# weight is the mass around its node, and half of that mass lies above the node. The table is
# therefore too high by about half a weight everywhere. In addition, it never draws anything below
# the first node. Yet the quadrature behind the table is exact to many digits.

figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
with torch.no_grad():
    left.fill_between(
        grid[::1000], exact.log_prob(grid[::1000]).exp(), color="0.85", label="density"
    )
    draws = exact.sample((100_000,))
left.hist(draws, bins=150, range=(0, 1), density=True, histtype="step", label="100,000 exact draws")
left.set(xlabel="z", ylabel="density")
left.legend(frameon=False)
for name, error in errors.items():
    right.plot(u, error, label=name)
right.set(xlabel="u", ylabel="F(z) - u")
right.legend(frameon=False)

# %%
# What to do instead
# ------------------
#
# In each cell of the quadrature, ``ExponentiallyTilted`` keeps the polynomial through the nodes of
# that cell. The antiderivative of this polynomial is the distribution function *inside* the cell.
# Its integral over the cell is the quadrature sum, so the normalizer, the distribution function and
# the density agree. To invert it, we find the cell and take a few Newton steps on its polynomial.
# The energy is never evaluated again, no matter how many draws you make. An attribute estimates the
# error of the polynomials:

print(f"estimated error of the table: {exact.quadrature_error:.1e}")
assert exact.quadrature_error < 1e-9

# %%
# Does the bias matter? A Kolmogorov-Smirnov test shows whether 100,000 draws reveal it. The test
# compares the largest distance between the empirical and the true distribution function with
# :math:`1.95/\sqrt n`. Exact draws exceed this bound with a probability of one in a thousand.

n = 100_000
uniforms = torch.rand(n, dtype=torch.float64)
ranks = torch.arange(1, n + 1, dtype=torch.float64) / n
with torch.no_grad():
    samples = {"usual table": usual_table(uniforms), "exact": exact.icdf(uniforms)}
for name, sample in samples.items():
    distance = (distribution_function(sample.sort().values) - ranks).abs().max() * n**0.5
    print(f"{name:12} distance × √n = {distance:.2f}; chance allows 1.95")
    assert (distance > 1.95) == (name == "usual table")

# %%
# Gradients through the draws
# ---------------------------
#
# A draw moves when the density changes, and the rate is known: :math:`∂z/∂θ = -(∂F/∂θ)/p(z)`.
# PyTorch gets these gradients from ``rsample`` and ``icdf``, to any order. A table that is
# piecewise constant in :math:`θ` has no useful gradient. The example computes the gradient of a
# draw with respect to the height of one bump and compares it with a finite difference.


def draw(height):
    """Return the median if the eighth bump has another height."""
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
    tilted = ExponentiallyTilted(
        lambda z: energy(z) + height * torch.exp(-200 * (z - 0.4) ** 2), low=zero, high=one
    )
    return tilted.icdf(one / 2)


height = torch.zeros((), dtype=torch.float64, requires_grad=True)
(gradient,) = torch.autograd.grad(draw(height), height)
with torch.no_grad():
    difference = (draw(height + 1e-4) - draw(height - 1e-4)) / 2e-4
print(f"gradient {gradient:.8f}, finite difference {difference:.8f}")
assert torch.isclose(gradient, difference, rtol=1e-5)
