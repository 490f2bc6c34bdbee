"""
What did it learn?
==================

*Can one read a trained model, rather than only draw from it?*

Everything that a Kolmogorov-Arnold model learns is a curve of one variable. A curve can be looked
at, it can be left out when it does nothing, and often it can be written down.
"""

# %%
# A network that should become smaller
# ------------------------------------
#
# A test with a known answer: a thousand values of :math:`e^{\sin(π x_1) + x_2^2}`, standardized,
# with a little noise. Two more inputs have nothing to do with it, and the network has five hidden
# nodes where one would do.

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
# The penalty counts how much each curve varies over the data, and how evenly that is spread: a few
# large curves are cheaper than many small ones. A curve's *spread* is its standard deviation, so
# that constants, which can move between curves at will, do not count.

fit(network, x, y, steps=10, penalty=1e-2)
before = network.sizes(x)[0]

# %%
# ``prune`` returns a smaller network without the curves that account for little of the output. A
# few more steps without a penalty, on finer grids, let what is left settle; what went stays away.

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
# ``symbolic`` tries a library of functions :math:`a\,g(bx + c) + d` on a curve, and says how much
# of its variance each explains and how complex it is. Arguments tell it where the curve was in use.
# Four free numbers go far: over a short stretch the end of a hyperbolic tangent is an exponential,
# and a hyperbolic cosine is a parabola. Among formulas that explain nearly the same, to within
# ``tolerance`` of the variance, the simplest therefore comes first.

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
# The three forms are those of the question. A shift of the sum can go into the factor of the
# exponential, so signs and constants of single curves mean little; the forms do.
#
# Reading a prior
# ---------------
#
# Now real data: the model of :doc:`03_training_on_digits`, eight latents on 1,797 digits. Each
# density is the uniform reference times the exponential of a curve; where it stays at the dashed
# line, the model had no use for a change.

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
    # for a uniform reference on [0, 1] this is its divergence from it, in nats
    departure = -prior.entropy()
_, panel = pyplot.subplots(figsize=(6, 3), layout="constrained")
plots.prior_densities(prior, panel, title="the densities that learned most")

# %%
# How far each is from its reference, in nats, is exact: a sum over the nodes that normalize the
# density. And a density has a formula as well.

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
# So the samples below come from a network fed by numbers whose laws can be printed.

_, panel = pyplot.subplots(figsize=(6, 2), layout="constrained")
with torch.no_grad():
    plots.image_grid(model.generate(24).reshape(-1, 8, 8), panel, columns=12, title="samples")
