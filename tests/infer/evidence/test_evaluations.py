"""Evaluations that an evidence says it took, and what it tells while it takes them."""

import time

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam import _progress as bars
from pyro_tkam._progress import Progress
from pyro_tkam.infer import log_evidence
from pyro_tkam.infer.model import density
from pyro_tkam.infer.model.failures import by_rows


class Counted(dist.Normal):
    """Counts the rows at which it is scored; ``vmap`` and recorded graphs refuse it."""

    scored = 0

    def log_prob(self, value):
        assert float(self.loc.detach().sum()) < 1e9
        Counted.scored += self.loc.numel()
        return super().log_prob(value)


@pytest.mark.parametrize(
    ("method", "noise", "options"),
    [
        ("auto", 2.0, {"max_evaluations": 20_000, "target_se": 0.1}),  # prior importance
        ("auto", 0.01, {"max_evaluations": 20_000, "target_se": 0.1}),  # Laplace importance
        ("importance", 1.0, {"num_particles": 1000}),
    ],
)
def test_evaluations_are_those_of_the_likelihood(method: str, noise: float, options) -> None:
    def model() -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", Counted(z, noise), obs=torch.tensor(0.5))

    pyro.set_rng_seed(0)
    Counted.scored = 0
    evidence = log_evidence(model, method=method, **options)
    # Checks of the model and of its runners are not counted.
    assert evidence.evaluations <= Counted.scored <= 1.05 * evidence.evaluations + 100


@pytest.mark.parametrize(
    ("method", "options", "checked"),
    [
        ("ais", {"num_particles": 25, "steps_between": 2, "warmup_steps": 16}, 0),
        ("bridge", {"num_temperatures": 3, "num_samples": 40, "num_chains": 4}, 4),
        ("auto", {"target_se": 0.2, "max_evaluations": 30_000}, 0),
    ],
)
def test_all_rows_that_a_density_evaluates_are_counted(
    monkeypatch, method, options, checked
) -> None:
    """But for those, one of each chain, by which a state is known to be of this model."""
    rows = 0

    def counted(function, batch):
        nonlocal rows
        rows += len(batch)
        return by_rows(function, batch)

    monkeypatch.setattr(density, "by_rows", counted)

    def model() -> None:
        z = pyro.sample("z", dist.StudentT(1.0, torch.zeros(2), 1.0).to_event(1))
        bumps = dist.Normal(torch.tensor([[-1.0], [1.0]]), 0.1).log_prob(z.unsqueeze(-2)).sum(-1)
        pyro.factor("f", bumps.logsumexp(-1))

    pyro.set_rng_seed(0)
    evidence = log_evidence(model, method=method, **options)
    assert evidence.evaluations + checked == rows


def test_a_bar_tells_route_and_standard_error_so_far(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bars, "SILENT_SECONDS", 0.0)
    with Progress(False) as progress:
        progress.route("chains")
        progress.found(0.0312)
        time.sleep(0.15)  # a bar is written ten times a second
        progress.tell("draw 3 of 200")
    assert "chains: draw 3 of 200, standard error so far 0.031" in capsys.readouterr().err
