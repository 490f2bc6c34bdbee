"""What the benchmarks compare with must itself be right."""

import json

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from benchmarks import __main__ as runner
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
