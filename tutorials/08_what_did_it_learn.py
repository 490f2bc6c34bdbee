"""
What did it learn?
==================

*Can you read a trained model, and not just draw from it?*

Everything that a Kolmogorov-Arnold model learns is a curve of one variable. You can look at a
curve, leave it out if it does nothing, and often write it down as a formula.
"""

# %%
# Making a network smaller
# ------------------------
#
# We start with a test whose answer is known: a thousand values of :math:`e^{\sin(π x_1) + x_2^2}`,
# standardized, with a little noise. Two more inputs are irrelevant, and the network has five hidden
# nodes where one would be enough.

import math
import os

import pyro
import torch
from matplotlib import pyplot

from pyro_tkam import plots
from pyro_tkam.datasets import digits, split
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM
from pyro_tkam.nn import KAN, fit

SMALL = "PYRO_TKAM_SMALL" in os.environ  # set where only the code is checked

pyro.set_rng_seed(0)
x = 2 * torch.rand(1000, 4) - 1
clean = torch.exp(torch.sin(math.pi * x[:, 0]) + x[:, 1] ** 2)
y = (clean - clean.mean()) / clean.std() + 0.01 * torch.randn(1000)
network = KAN([4, 5, 1], grid_size=3)

# %%
# The penalty measures how much each curve varies over the data and how evenly this variation is
# distributed. A few large curves cost less than many small ones. The *spread* of a curve is its
# standard deviation. Constants, which can move freely between curves, therefore don't count.

fit(network, x, y, steps=10, penalty=1e-2)
before = network.sizes(x)[0]

# %%
# ``prune`` returns a smaller network without the curves that contribute little to the output. We
# then take a few more steps without a penalty, on finer grids. This lets the remaining curves
# settle, and the removed curves stay removed.

small = network.prune(x)
small.update_grid(x, grid_size=8)
error = fit(small, x, y, steps=5 if SMALL else 20).loss
after = small.sizes(x)[0]
print(f"{network.widths} became {small.widths}, with a mean squared error of {error:.5f}")
assert small.widths == [4, 1, 1], "one hidden node is enough"
assert error < 1e-3
assert (after[0, :2] > 0.1).all()
assert (after[0, 2:] == 0).all(), "the two inputs without effect are gone"

figure, panels = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained", sharex=True)
for panel, table, title in zip(
    panels, (before, after), ("five hidden nodes", "after pruning"), strict=True
):
    panel.imshow(table, cmap="Blues", vmin=0.0, vmax=0.6, aspect="auto")
    for row, column in torch.cartesian_prod(torch.arange(len(table)), torch.arange(4)).tolist():
        value = float(table[row, column])
        shade = "white" if value > 0.3 else "black"
        panel.text(
            column, row, f"{value:.3f}", ha="center", va="center", color=shade, fontsize="small"
        )
    panel.set_xticks(range(4), [f"$x_{i + 1}$" for i in range(4)])
    panel.set_yticks(range(len(table)), [f"node {i + 1}" for i in range(len(table))])
    panel.set_title(f"spread of a curve, {title}", fontsize="medium")

# %%
# Reading the formula
# -------------------
#
# ``symbolic`` fits each function of a library, as :math:`a\,g(bx + c) + d`, to a curve. It reports
# how much of the curve's variance each function explains and how complex the function is. The
# arguments show where the curve was used. Four free parameters are very flexible: over a short
# interval, the end of a hyperbolic tangent is an exponential, and a hyperbolic cosine is a
# parabola. Therefore, among formulas whose explained variance is within ``tolerance`` of the best,
# the simplest comes first.

first, last = small.layers
hidden = first(x).detach().squeeze(-1)
found = {
    "of $x_1$": (first, (0, 0), x[:, 0]),
    "of $x_2$": (first, (0, 1), x[:, 1]),
    "of their sum": (last, (0, 0), hidden),
}
figure, panels = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
names = []
for panel, (title, (layer, place, arguments)) in zip(panels, found.items(), strict=True):
    best, *_ = candidates = layer.symbolic(place, arguments, tolerance=1e-3)
    names.append(best.name)
    print(
        f"{title}: {best.expression()}  out of",
        {each.name: f"{each.r2:.5f}" for each in candidates},
    )
    axis = torch.linspace(float(arguments.min()), float(arguments.max()), 200)
    with torch.no_grad():
        curve = layer.bound()(axis.reshape(-1, 1, 1))[:, *place]
    panel.plot(axis, curve, linewidth=4, alpha=0.4, label="learned")
    panel.plot(axis, best(axis.double()), "k--", label=best.name)
    panel.set_title(f"curve {title}", fontsize="medium")
    panel.legend(frameon=False)
assert names[:2] == ["sin", "square"]
assert SMALL or names[2] == "exp", names

# %%
# These are the three forms in the original expression. Shifting the sum is the same as scaling the
# exponential, so the signs and constants of single curves mean little. Only the forms matter.
#
# Reading a prior
# ---------------
#
# Now we use real data and the model of :doc:`03_training_on_digits`, with eight latents on 1,797
# digits. Each density is the uniform reference times the exponential of a curve. Where the density
# stays at the dashed line, the model did not need to change the reference.

pyro.set_rng_seed(1)
images = digits().images[split(1797, 300)[0]]
model = TKAM.kart((8, 8), latent_dim=8, coupling="shared", grid_size=10, noise_scale=0.25)
loss = ImportanceMLE(100)(model, None)
optimizer = torch.optim.Adam(loss.parameters(), 3e-3)
for _ in range(150 if SMALL else 1500):
    optimizer.zero_grad()
    loss(images[torch.randperm(len(images))[:100]]).backward()
    optimizer.step()
with torch.no_grad():
    prior = model.prior()
    # # for a uniform reference on [0, 1], this is the divergence from the reference, in nats
    departure = -prior.entropy()
_, panel = pyplot.subplots(figsize=(6, 3), layout="constrained")
plots.prior_densities(prior, panel, title="the densities that learned most")

# %%
# The divergence of each density from its reference, in nats, is exact: it is a sum over the nodes
# that normalize the density. A density also has a formula.

place = tuple(int(i) for i in torch.unravel_index(departure.argmax(), departure.shape))
best, *_ = model.prior.symbolic(place)
print(
    f"largest divergence from the reference: {departure.max():.3f} nats at {place}, median "
    f"{departure.median():.3f}"
)
print(f"log density there: {best.expression('z')}  (R² {best.r2:.3f})")
assert departure.min() >= -1e-6
assert departure.max() > 2 * departure.median()
assert best.r2 > 0.9

# %%
# The samples below therefore come from a network whose inputs have distributions that you can write
# down.

_, panel = pyplot.subplots(figsize=(6, 2), layout="constrained")
with torch.no_grad():
    plots.image_grid(model.generate(24).reshape(-1, 8, 8), panel, columns=12, title="samples")
