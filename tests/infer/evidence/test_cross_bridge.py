"""Evidence from exact draws of posteriors, in the coordinates of a model's density."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.infer import Evidence, Finding, ModelDensity, Verdict
from pyro_tkam.infer.evidence.cross_bridge import CrossFitted, cross_fitted_evidence
from pyro_tkam.infer.model.values import positions_of_values
from tests.infer.evidence_problems import (
    LATENT_DATA,
    LATENT_EXACT,
    assert_close,
    latent,
    regression,
    regression_problem,
)


def regression_draws(inputs, chains, draws):
    """Exact draws of the posterior of :func:`regression`."""
    inputs, targets = inputs
    precision = torch.eye(inputs.shape[1]).double() + 4 * inputs.double().T @ inputs.double()
    loc = torch.linalg.solve(precision, 4 * inputs.double().T @ targets.double())
    posterior = torch.distributions.MultivariateNormal(loc, precision_matrix=precision)
    return posterior.sample((chains, draws)).float()


def test_a_regression_with_fifty_weights():
    pyro.set_rng_seed(0)
    data, exact = regression_problem(80, 50)
    density = ModelDensity(regression, data)
    both = cross_fitted_evidence(density, regression_draws(data, 4, 1000))
    for evidence in (both.bridge, both.importance):
        assert_close(evidence, exact)
    assert both.bridge.verdict.trusted
    assert both.bridge.standard_error < 0.02
    assert both.preferred is both.bridge


def test_evidence_per_datum():
    pyro.set_rng_seed(0)
    density = ModelDensity(latent, (LATENT_DATA,))
    shrunk = LATENT_DATA / 1.09
    draws = shrunk + (0.09 / 1.09) ** 0.5 * torch.randn(8, 500, 3, 2)
    evidence = cross_fitted_evidence(density, draws).bridge
    assert_close(evidence, LATENT_EXACT.sum().item())
    error = (evidence.per_datum - LATENT_EXACT).abs()
    assert (error < 4.5 * evidence.per_datum_standard_error + 1e-4).all()


def two_bumps():
    z = pyro.sample("z", dist.Normal(torch.zeros(2), 10.0).to_event(1))
    bumps = [dist.Normal(loc, 0.5).log_prob(z).sum(-1) for loc in (-5.0, 5.0)]
    pyro.factor("likelihood", torch.logaddexp(*bumps))


def test_chains_in_different_modes_are_seen():
    pyro.set_rng_seed(0)
    density = ModelDensity(two_bumps)
    draws = 0.5 * torch.randn(4, 500, 2)
    draws[:2] -= 5
    draws[2:] += 5
    assert "little overlap" in cross_fitted_evidence(density, draws).bridge.verdict.names


def test_too_few_draws_are_told_with_what_is_needed():
    pyro.set_rng_seed(0)
    data, _ = regression_problem(80, 50)
    draws = regression_draws(data, 4, 50)
    verdict = cross_fitted_evidence(ModelDensity(regression, data), draws).bridge.verdict
    assert "too few draws" in verdict.names
    assert "312 are needed for 50 coordinates" in str(verdict)


@pytest.mark.parametrize(
    ("apart", "khat", "draws", "trusted", "which"),
    [
        (0.0, 0.3, 1000.0, True, "bridge"),
        (1.0, 0.3, 1000.0, True, "importance"),
        (1.0, 0.6, 1000.0, True, "bridge"),
        (1.0, 0.3, 300.0, True, "bridge"),
        (0.0, 0.3, 1000.0, False, "importance"),
    ],
)
def test_importance_is_preferred_where_it_is_good_and_the_bridge_is_not(
    apart, khat, draws, trusted, which
):
    seen = Finding("little overlap", "seen", "advice")
    bridge = Evidence(0.0, 0.01, "bridge", Verdict(() if trusted else (seen,)))
    measures = {"largest k-hat": khat, "smallest effective sample size": draws}
    importance = Evidence(apart, 0.01, "importance", Verdict((), measures))
    assert CrossFitted(bridge, importance, 0.0).preferred.method == which
    unreached = CrossFitted(bridge, importance, 0.1)  # a tenth of the draws
    assert unreached.preferred.method == "bridge"


def test_positions_are_those_of_the_values():
    def model():
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        with pyro.plate("rows", 2):
            pyro.sample("slope", dist.Normal(0.0, scale))

    density = ModelDensity(model)
    position = torch.randn(5, density.layout.dim)
    values = density.constrain(position)
    torch.testing.assert_close(
        positions_of_values(density.terms, values), position, atol=1e-4, rtol=1e-4
    )


def test_values_on_a_boundary_have_no_position():
    def model():
        with pyro.plate("rows", 3):
            pyro.sample("p", dist.Beta(0.5, 0.5))
        pyro.sample("share", dist.Dirichlet(torch.ones(2)))

    terms = ModelDensity(model).terms
    p = torch.tensor([[0.1, 0.5, 0.9], [1.0, 0.5, 0.9], [0.1, 0.0, 0.9], [0.1, 0.5, 0.9]])
    share = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    position = positions_of_values(terms, {"p": p, "share": share})
    finite = position.isfinite().flatten(1).all(1)
    assert finite.tolist() == [True, False, False, False]


def test_draws_of_another_model_are_refused():
    data, _ = regression_problem(8, 2)
    terms = ModelDensity(regression, data).terms
    with pytest.raises(ValueError, match=r"got none of \['weights'\]: they hold \['w'\]"):
        positions_of_values(terms, {"w": torch.zeros(5, 2)})
    with pytest.raises(ValueError, match="from another model"):
        positions_of_values(terms, {"weights": torch.zeros(5, 3)})


def test_percentage_error():
    evidence = Evidence(-3.0, 0.1, "bridge", Verdict())
    assert math.isclose(evidence.percentage_error, 100 * math.sqrt(math.exp(0.01) - 1))
    assert Evidence(-3.0, 100.0, "bridge", Verdict()).percentage_error == math.inf
