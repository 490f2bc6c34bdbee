"""Exact evidences of the fresh regressions, by other ways than their own."""

import math

import pyro
import pytest
import torch
from torch.distributions import Chi2, MultivariateNormal, biject_to

from benchmarks import fresh_regressions
from benchmarks.fresh_regressions import FRESH_REGRESSIONS, normal, normal_pairs, on_box


def unconstrained(model, start):
    """Return the log joint density of a flat unconstrained point, and the point of a start."""
    nodes = pyro.poutine.trace(pyro.condition(model, start)).get_trace().nodes
    maps = {name: biject_to(nodes[name]["fn"].support) for name in start}
    places = {name: maps[name].inv(value) for name, value in start.items()}
    sizes = [place.numel() for place in places.values()]

    def log_joint(point):
        total, values = torch.zeros(()), {}
        parts = zip(places.items(), point.split(sizes), strict=True)
        for (name, place), part in parts:
            part = part.reshape(place.shape)
            values[name] = maps[name](part)
            total = total + maps[name].log_abs_det_jacobian(part, values[name]).sum()
        trace = pyro.poutine.trace(pyro.condition(model, values)).get_trace()
        return total + trace.log_prob_sum()

    return log_joint, torch.cat([place.flatten() for place in places.values()])


def by_importance(model, start, num):
    """Return log weights of draws of a multivariate t about the mode."""
    log_joint, point = unconstrained(model, start)
    for _ in range(30):
        curvature = -torch.func.jacrev(torch.func.grad(log_joint))(point)
        values, vectors = torch.linalg.eigh(curvature)
        steps = vectors.mT @ torch.func.grad(log_joint)(point) / values.abs()
        point = point + vectors @ steps.clamp(-1 / values.abs().sqrt(), 1 / values.abs().sqrt())
    normals = MultivariateNormal(torch.zeros(len(point)), precision_matrix=curvature / 1.3)
    draws, chi2 = normals.sample((num,)), Chi2(5.0).sample((num,)) / 5
    squares = torch.einsum("ni,ij,nj->n", draws, curvature / 1.3, draws) / chi2
    constant = math.lgamma((5 + len(point)) / 2) - math.lgamma(2.5)
    constant += 0.5 * float(torch.logdet(curvature / 1.3 / (5 * math.pi)))
    log_proposal = constant - (5 + len(point)) / 2 * torch.log1p(squares / 5)
    return torch.vmap(log_joint)(point + draws / chi2.sqrt()[:, None]) - log_proposal


STARTS = {
    "food_and_income": {"intercept": 80.0, "slope": 0.4, "log_noise": 6.0, "power": 0.8},
    "reaction_rates": {"fastest": 210.0, "half": 0.06, "noise": 10.0},
    "mixture_of_g": {"g": 30.0, "variance": 2.0, "intercept": 12.0, "weights": [1.0, 0, -1, 0]},
}


@pytest.mark.parametrize("name", STARTS)
def test_exact_evidences_are_the_mean_weight_of_draws_about_the_mode(name):
    torch.manual_seed(0)
    problem = getattr(fresh_regressions, name)()
    start = {site: torch.tensor(value) for site, value in STARTS[name].items()}
    with pyro.validation_enabled(False):
        log_weights = by_importance(problem.model, start, 20_000).double()
    ratio = (log_weights - problem.exact).exp()
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert error < 0.015
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_pairs_with_an_unknown_mean_are_one_normal_vector():
    data = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    own, of_mean = torch.tensor([[2.0, 0.7], [0.7, 1.0]]), torch.tensor([[9.0, -2.0], [-2.0, 4.0]])
    covariance = torch.kron(torch.eye(5), own) + torch.kron(torch.ones(5, 5), of_mean)
    exact = normal(data.flatten(), covariance.double())
    entries = [(each[0, 0], each[1, 1], each[0, 1]) for each in (own, of_mean)]
    torch.testing.assert_close(normal_pairs(data, *entries), exact)
    whole = MultivariateNormal(torch.zeros(10).double(), covariance.double())
    torch.testing.assert_close(whole.log_prob(data.flatten()), exact)


def test_a_box_is_integrated_over_every_axis():
    def log_joint(x, y):
        return -0.5 * (x**2 + (y - x) ** 2 / 4)

    value = on_box(log_joint, (-9, 9, 51), (-25, 25, 71), chunk=100)
    assert value == pytest.approx(math.log(2 * math.pi * 2), abs=1e-9)


def test_models_have_names_of_their_own():
    assert len({each.__name__ for each in FRESH_REGRESSIONS}) == 15


@pytest.mark.parametrize(
    "name", ["vaccine_trials", "errors_in_both", "correlated_horseshoe", "frailty"]
)
def test_models_evaluate_in_single_precision(name):
    torch.manual_seed(1)
    problem = getattr(fresh_regressions, name)()
    total = pyro.poutine.trace(problem.model).get_trace().log_prob_sum()
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert math.isfinite(problem.exact)
