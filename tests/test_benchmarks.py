"""What the benchmarks compare with must itself be right."""

import json

import pyro
import pytest
import torch
from torch.distributions import (
    Cauchy,
    Exponential,
    Gamma,
    HalfCauchy,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)

from benchmarks import __main__ as runner
from benchmarks import evidence_calibration, further_problems
from benchmarks.densities import PROBLEMS
from benchmarks.quality import by_encoder
from benchmarks.text import KneserNey
from benchmarks.timing import environment


def test_five_grams_are_a_distribution_after_seen_and_unseen_contexts():
    torch.manual_seed(0)
    symbols = torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1]), 500, replacement=True).tolist()
    model = KneserNey(symbols, num_classes=5, order=5)  # the last symbol is never seen
    for context in [tuple(symbols[10:14]), (3, 3, 3, 3), (4, 4, 4, 4), (0, 0, 4, 0)]:
        p = torch.tensor(
            [model.probability(context, symbol, 0.75) for symbol in range(5)], dtype=torch.float64
        )
        torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
        assert (p > 0).all()


def test_all_scripts_are_run_and_their_seconds_kept(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(runner, "HERE", tmp_path)
    (tmp_path / "results").mkdir()
    for name in ("gradient_variance", "timing"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(runner.sys, "argv", ["benchmarks"])
    monkeypatch.setattr(
        runner.subprocess, "run", lambda command, **options: commands.append(command)
    )
    runner.main()
    assert [command[2] for command in commands] == ["benchmarks.gradient_variance"]
    assert list(json.loads((tmp_path / "results" / "seconds.json").read_text())) == [
        "gradient_variance"
    ]


def test_results_say_on_which_processor_they_were_made():
    assert environment()["processor"]


@pytest.mark.parametrize(
    ("name", "place"),
    [("banana", (0.0, -1.0)), ("ring", (2.0, 0.0)), ("correlated", (0.5, 0.5)), ("grid", (2.0, 0))],
)
def test_draws_of_densities_have_the_density_that_is_told(name, place):
    torch.manual_seed(0)
    z, log_prob = PROBLEMS[name](400_000)
    bump = Independent(Normal(torch.tensor(place), 0.2), 1)
    ratio = (bump.log_prob(z) - log_prob).exp()  # its mean is the integral of the bump
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert error < 0.01
    assert abs(float(ratio.mean()) - 1) < 4 * error


def test_weights_of_an_exact_encoder_are_the_evidence():
    weight, noise = torch.randn(3, 2), 0.5
    precision = torch.eye(2) + weight.mT @ weight / noise**2

    def encode(x):
        return MultivariateNormal(
            torch.linalg.solve(precision, weight.mT @ x[..., None] / noise**2).squeeze(-1),
            precision_matrix=precision,
        )

    log_weights = by_encoder(
        encode, lambda z: Normal(0.0, 1.0).log_prob(z).sum(-1), lambda z: z @ weight.mT, noise
    )
    x = torch.randn(4, 3)
    exact = MultivariateNormal(torch.zeros(3), weight @ weight.mT + noise**2 * torch.eye(3))
    torch.testing.assert_close(
        log_weights(x, 5), exact.log_prob(x).expand(5, 4), rtol=1e-4, atol=1e-4
    )


def test_known_and_fresh_models_have_names_of_their_own():
    known, fresh = evidence_calibration.KNOWN, evidence_calibration.FRESH
    assert len(known) == 30
    assert len(fresh) == 30
    assert len(evidence_calibration.MODELS) == 60


def prior_draws(name, num):
    """Return draws of the latents, drawn apart from the model."""
    if name == "two_laboratories":
        return {"constant": Cauchy(0.0, 5.0).sample((num,))}
    if name == "change_of_rate":
        return {"rates": Exponential(0.5).sample((num, 2))}
    if name == "wind_directions":
        concentration = Gamma(2.0, 0.5).sample((num,))
        direction = Uniform(-torch.pi, torch.pi).sample((num,))
        return {"direction": direction, "concentration": concentration}
    if name == "volatility":
        spread = LogNormal(-1.0, 0.6).sample((num,))
        path = [spread * torch.randn(num) / (1 - 0.9**2) ** 0.5]
        for _ in range(9):
            path.append(0.9 * path[-1] + spread * torch.randn(num))
        return {"spread": spread, "log_variance": torch.stack(path, -1)}
    if name == "overdispersed_counts":
        intercept, slope = 2 * torch.randn(num), torch.randn(num)
        return {"intercept": intercept, "slope": slope, "size": Gamma(2.0, 0.5).sample((num,))}
    common, scale = HalfCauchy(1.0).sample((num,)), HalfCauchy(1.0).sample((num, 5))
    mean = common.unsqueeze(-1) * scale * torch.randn(num, 5)
    return {"common": common, "scale": scale, "mean": mean}


@pytest.mark.parametrize(
    "name",
    [
        "two_laboratories",
        "change_of_rate",
        "wind_directions",
        "volatility",
        "overdispersed_counts",
        "sparse_means",
    ],
)
def test_exact_evidences_are_the_mean_likelihood_of_prior_draws(name):
    torch.manual_seed(0)
    problem = getattr(further_problems, name)()

    def log_likelihood(draw):
        trace = pyro.poutine.trace(pyro.condition(problem.model, draw)).get_trace()
        return trace.log_prob_sum(lambda name, site: site["is_observed"] and name not in draw)

    with pyro.validation_enabled(False):
        values = torch.vmap(log_likelihood)(prior_draws(name, 400_000)).double()
    ratio = (values - problem.exact).exp()
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error
