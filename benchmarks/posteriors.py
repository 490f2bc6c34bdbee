"""Eight posteriors of Stan's posteriordb as plain Pyro models, with moments of reference draws.

A flat prior of a Stan program is flat here too: a site that gives support and shape, its density
masked away. Ordered pairs are a lower value and a positive gap. The license is in
``posteriordb/LICENSE``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "posteriordb"
Data = dict[str, Any]
Draws = dict[str, Tensor]


def flat_vector(name: str, size: int) -> Tensor:
    """Sample a vector with a flat prior."""
    draw: Tensor = pyro.sample(name, dist.Normal(0.0, 1.0).expand([size]).to_event(1).mask(False))
    return draw


def flat_scale(name: str = "sigma") -> Tensor:
    """Sample a positive number with a flat prior."""
    draw: Tensor = pyro.sample(name, dist.HalfNormal(1.0).mask(False))
    return draw


def regression(design: Tensor, y: Tensor, sigma: Callable[[], Tensor] = flat_scale) -> None:
    """Sample coefficients and observe a linear regression."""
    beta = flat_vector("beta", design.shape[-1])
    scale = sigma()
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(design @ beta, scale), obs=y)


def columns(*each: Tensor) -> Tensor:
    """Return a design with an intercept."""
    return torch.stack([torch.ones_like(each[0]), *each], -1)


def kidscore_interaction(data: Data) -> None:
    """Test scores of children, by their mothers' school and score; correlations of 0.99."""
    high_school, iq = data["mom_hs"], data["mom_iq"]
    design = columns(high_school, iq, high_school * iq)
    regression(design, data["kid_score"], lambda: pyro.sample("sigma", dist.HalfCauchy(2.5)))


def mesquite(data: Data) -> None:
    """Yields of mesquite bushes: 46 data, coefficients of hundreds."""
    names = ("diam1", "diam2", "canopy_height", "total_height", "density", "group")
    regression(columns(*(data[name] for name in names)), data["weight"])


def nes(data: Data) -> None:
    """Party identification in a survey of 1996; ten parameters."""
    age = data["age_discrete"]
    ages = ((age == group).to(data["partyid7"].dtype) for group in (2, 3, 4))
    rest = (data[name] for name in ("educ1", "gender", "income"))
    regression(columns(data["real_ideo"], data["race_adj"], *ages, *rest), data["partyid7"])


def eight_schools(data: Data) -> None:
    """Rubin's eight schools, non-centered; a heavy tail of the scale."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", data["J"]):
        standard = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * standard, data["sigma"]), obs=data["y"])


def effects(draws: Draws, data: Data) -> Draws:
    """Return the schools' effects."""
    return {"theta": draws["mu"][..., None] + draws["tau"][..., None] * draws["theta_trans"]}


def factor_of_process(x: Tensor, rho: Tensor, alpha: Tensor) -> Tensor:
    """Return the Cholesky factor of a Gaussian process's covariance."""
    distance = (x[:, None] - x) / rho[..., None, None]
    covariance = alpha[..., None, None].square() * (-0.5 * distance.square()).exp()
    return torch.linalg.cholesky(covariance + 1e-10 * torch.eye(len(x)).to(x))


def poisson_process(data: Data) -> None:
    """Counts under a Gaussian process, with a Cholesky factor inside; 13 parameters."""
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    with pyro.plate("latent", data["N"]):
        standard = pyro.sample("f_tilde", dist.Normal(0.0, 1.0))
    f = factor_of_process(data["x"], rho, alpha) @ standard
    with pyro.plate("data", data["N"]):
        pyro.sample("k", dist.Poisson(f.exp()), obs=data["k"])


def process_values(draws: Draws, data: Data) -> Draws:
    """Return the process at the data."""
    factor = factor_of_process(data["x"], draws["rho"], draws["alpha"])
    return {"f": (factor @ draws["f_tilde"][..., None])[..., 0]}


def recursion(coefficient: Tensor, drive: Tensor) -> Tensor:
    """Solve ``s_t = coefficient s_{t-1} + drive_t`` with ``s_{-1} = 0``, by doubling."""
    state, shift = drive, 1
    while shift < drive.shape[-1]:
        before = torch.nn.functional.pad(state[..., :-shift], (shift, 0))
        state = state + coefficient * before
        coefficient, shift = coefficient.square(), 2 * shift
    return state


def arma11(data: Data) -> None:
    """A time series with moving averages, which explodes where ``|theta| > 1``."""
    y = data["y"]
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = pyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = pyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    before = torch.cat([mu.reshape(1), y[:-1]])  # the first step looks back at mu
    error = recursion(-theta, y - mu - phi * before)
    pyro.factor("errors", dist.Normal(0.0, sigma).log_prob(error).sum())


def garch11(data: Data) -> None:
    """A time series of changing variance; two parameters are uniform on a triangle."""
    y = data["y"]
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0).mask(False))
    alpha0 = flat_scale("alpha0")
    alpha1 = pyro.sample("alpha1", dist.Beta(1.0, 2.0))
    share = pyro.sample("share", dist.Uniform(0.0, 1.0))
    first = torch.as_tensor(data["sigma1"], dtype=y.dtype).square().reshape(1)
    drive = torch.cat([first, alpha0 + alpha1 * (y[:-1] - mu).square()])
    variance = recursion(share * (1 - alpha1), drive)
    with pyro.plate("times", len(y)):
        pyro.sample("y", dist.Normal(mu, variance.sqrt()), obs=y)


def persistence(draws: Draws, data: Data) -> Draws:
    """Return how long variance lasts."""
    return {"beta1": draws["share"] * (1 - draws["alpha1"])}


def gauss_mix(data: Data) -> None:
    """A mixture of two normals with ordered means, of 1,000 data."""
    low = pyro.sample("mu_low", dist.Normal(0.0, 2.0))
    mu = torch.stack([low, low + flat_scale("mu_gap")])
    pyro.factor("mu_high", dist.Normal(0.0, 2.0).log_prob(mu[1]))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    kinds = dist.Categorical(torch.stack([theta, 1 - theta]))
    with pyro.plate("data", len(data["y"])):
        pyro.sample("y", dist.MixtureSameFamily(kinds, dist.Normal(mu, sigma)), obs=data["y"])


def ordered_means(draws: Draws, data: Data) -> Draws:
    """Return the means of a mixture."""
    low = draws["mu_low"]
    return {"mu": torch.stack([low, low + draws["mu_gap"]], -1)}


def _nothing(draws: Draws, data: Data) -> Draws:
    return {}


@dataclass(frozen=True)
class Posterior:
    """A posterior of posteriordb.

    :param model: takes its data.
    :param sites: that are parameters of posteriordb too, under the same name.
    :param derive: computes parameters that are none from draws ``(chain, draw, *shape)``.
    """

    model: Callable[[Data], None]
    sites: tuple[str, ...]
    derive: Callable[[Draws, Data], Draws] = _nothing


POSTERIORS = {
    "eight_schools-eight_schools_noncentered": Posterior(eight_schools, ("mu", "tau"), effects),
    "arma-arma11": Posterior(arma11, ("mu", "phi", "theta", "sigma")),
    "low_dim_gauss_mix-low_dim_gauss_mix": Posterior(gauss_mix, ("sigma", "theta"), ordered_means),
    "garch-garch11": Posterior(garch11, ("mu", "alpha0", "alpha1"), persistence),
    "gp_pois_regr-gp_pois_regr": Posterior(poisson_process, ("rho", "alpha"), process_values),
    "nes1996-nes": Posterior(nes, ("beta", "sigma")),
    "kidiq-kidscore_interaction": Posterior(kidscore_interaction, ("beta", "sigma")),
    "mesquite-mesquite": Posterior(mesquite, ("beta", "sigma")),
}


def data_of(name: str) -> Data:
    """Read the data of a posterior; lists are tensors of the default type."""
    raw = json.loads((FOLDER / "data" / f"{name}.json").read_text())
    return {
        key: torch.tensor(each, dtype=torch.get_default_dtype()) if isinstance(each, list) else each
        for key, each in raw.items()
    }


def reference_of(name: str) -> dict[str, dict[str, float]]:
    """Read moments of the reference draws, by parameter, with the draws that they are worth."""
    read: dict[str, dict[str, float]] = json.loads(
        (FOLDER / "reference" / f"{name}.json").read_text()
    )
    return read


def scalars(name: str, draws: Draws, data: Data) -> dict[str, np.ndarray]:
    """Turn draws by site ``(chain, draw, *shape)`` into draws ``(chain, draw)`` of parameters."""
    posterior = POSTERIORS[name]
    values = {site: draws[site] for site in posterior.sites} | posterior.derive(draws, data)
    result = {}
    for key, value in values.items():
        array = value.detach().double().numpy()
        if array.ndim == 2:
            result[key] = array
        else:
            flat = array.reshape(*array.shape[:2], -1)
            result |= {f"{key}[{i + 1}]": flat[..., i] for i in range(flat.shape[-1])}
    return result
