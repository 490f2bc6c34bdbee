r"""
From data to a formula
======================

*Which law produced these numbers?*

A Kolmogorov-Arnold network consists of curves in one variable, so you can read a trained network.
Each curve is compared with known functions, and then the whole network of functions is fitted to
the data again. The result is an expression.
"""

# %%
# A law of two variables
# ----------------------
#
# This is pykan's first example: :math:`y = \exp(\sin πx_1 + x_2^2)`. A penalty on the spread
# of the curves leaves only a few of them. ``prune`` removes the others, and a finer grid makes the
# remaining curves accurate.

import math

import torch
from matplotlib import pyplot
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import train_test_split

from pyro_tkam import plots
from pyro_tkam.nn import KAN, fit
from pyro_tkam.sklearn import KANRegressor
from pyro_tkam.symbolic import find_formula

torch.manual_seed(0)
x = 2 * torch.rand(1000, 2, dtype=torch.double) - 1
y = torch.exp(torch.sin(math.pi * x[:, 0]) + x[:, 1] ** 2)

net = KAN([2, 5, 1], grid_size=3).double()
fit(net, x, y, penalty=3e-3, steps=20)
net = net.prune(x)
fit(net, x, y, steps=10)
net.update_grid(x, grid_size=10)
fit(net, x, y, steps=10, grid_updates=0)
formula = find_formula(net, x, y)
print(f"{net.widths}: {formula}, rmse {formula.rmse:.1g}")
assert formula.rmse < 1e-8

# %%
# The table shows what every curve became, with the share of its variance that the form explains.
# Spline curves are not the exact functions. Therefore the constants come from a fit of the whole
# formula to the data, in float64, and they are rounded only if the error does not grow.

for place, edge in formula.edges.items():
    print(place, edge.name, f"R² {edge.r2:.4f}")
figure = plots.kan_network(net, x, formula=formula)
_, panel = pyplot.subplots(figsize=(4, 4), layout="constrained")
plots.formula_parity(formula, x, y, panel)

# %%
# A law of physics, with no form chosen by hand
# ---------------------------------------------
#
# Velocities add as :math:`(u + v)/(1 + uv)`. Written as a network, this is a sum inside a function,
# which is hard to spot. The smallest network finds it, and no form is chosen by hand.

u = 1.8 * torch.rand(1000, 2, dtype=torch.double) - 0.9
total = u.sum(-1) / (1 + u.prod(-1))
net = KAN([2, 1, 1], grid_size=3).double()
fit(net, u, total, steps=15)
net.update_grid(u, grid_size=10)
fit(net, u, total, steps=10, grid_updates=0)
velocities = find_formula(net, u, total, names=["u", "v"])
print(f"{velocities}: {[edge.name for edge in velocities.edges.values()]}")
assert velocities.rmse < 1e-8

# %%
# With noise, no formula is exact. The constants then have standard errors, and a constant is
# replaced by a simple number only within its standard error.

torch.manual_seed(1)
noisy = find_formula(net, u, total + 0.01 * torch.randn(1000), names=["u", "v"])
print(noisy)
print(f"rmse {noisy.rmse:.4f}")

# %%
# Real data
# ---------
#
# The data are 442 patients with diabetes (Efron et al. 2004). No law produced these numbers, and no
# formula is exact. We fit an additive KAN with three inputs and use gradient boosting as a
# benchmark.

inputs, progression = load_diabetes(return_X_y=True)
inputs = inputs[:, [2, 3, 8]]
x_train, x_test, y_train, y_test = train_test_split(inputs, progression, random_state=0)
regressor = KANRegressor(hidden=(), grid_size=3, penalty=1e-2, steps=20, random_state=0)
boosting = GradientBoostingRegressor(random_state=0, n_estimators=50, max_depth=2)
scores = {
    type(model).__name__: model.fit(x_train, y_train).score(x_test, y_test)
    for model in (regressor, boosting)
}
print({name: round(score, 3) for name, score in scores.items()})

# %%
# The formula shows the three curves, and its R² says how much of the variance in the test data they
# explain. If none of these forms explains a curve, it stays a spline, ``phi`` in the expression.

scaled = torch.as_tensor(regressor.scaler_.transform(x_train))
targets = torch.as_tensor(regressor.target_scaler_.transform(y_train[:, None]))
names = ["bmi", "pressure", "triglycerides"]
law = find_formula(
    regressor.network_,
    scaled,
    targets,
    names=names,
    tolerance=1e-2,
    library=["linear", "square", "tanh", "exp"],
)
test = torch.as_tensor(regressor.scaler_.transform(x_test))
predicted = regressor.target_scaler_.inverse_transform(law(test).numpy())[:, 0]
explained = 1 - ((predicted - y_test) ** 2).mean() / y_test.var()
print(f"{law}: R² {explained:.3f}")
assert explained > 0.2
