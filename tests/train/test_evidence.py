"""Evidence of each datum by the cheapest method that its diagnosis trusts."""

import math
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.infer import AutoMALA, ParallelTempering, log_evidence
from pyro_tkam.models import TKAM
from pyro_tkam.train.evidence import METHODS, per_datum_evidence
from pyro_tkam.train.per_datum import EvidenceReport, PerDatum
from tests.untrusted import untrusted


class Gaussian(torch.nn.Module):
    """``z ~ N(0, I)``, ``x|z ~ N(z, s²)``: ``x ~ N(0, 1 + s²)``."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, self.noise).to_event(1), obs=x)

    def exact(self, x):
        return dist.Normal(0.0, math.hypot(1.0, self.noise)).log_prob(x).sum(-1)


def test_prior_draws_are_enough_where_data_say_little():
    pyro.set_rng_seed(0)
    model, data = Gaussian(1.0), torch.tensor([[0.0, 0.5], [1.0, -1.0], [0.3, 0.2]])
    report = per_datum_evidence(model, data, checked=0)
    assert (report.data.method == METHODS.index("prior")).all()
    assert report.data.trusted.all()
    assert ((report.data.value - model.exact(data)).abs() < 4.5 * report.data.standard_error).all()


@pytest.mark.slow
def test_fitted_mixtures_take_over_and_tempering_agrees():
    """4.5 standard errors for each of 5 data: false alarms below 1e-4."""
    pyro.set_rng_seed(0)
    model, data = Gaussian(0.05), torch.randn(5, 6)
    report = per_datum_evidence(model, data, checked=2)
    assert (report.data.method == METHODS.index("fitted")).all()
    assert report.data.trusted.all()
    assert (
        (report.data.value - model.exact(data)).abs() < 4.5 * report.data.standard_error + 0.002
    ).all()
    assert report.agrees.all(), str(report)
    assert "cross-check by tempering: 2 of 2 agree" in str(report)


@pytest.mark.slow
def test_all_methods_agree_on_a_tkam():
    """
    AIS, steppingstone, BAR, bridge and fitted mixtures, four data: 5 joint standard errors and 0.05
    nats.
    """
    pyro.set_rng_seed(0)
    model = TKAM.kart(
        3, latent_dim=1, coupling="shared", grid_size=5, noise_scale=0.1
    ).requires_grad_(False)
    data = model(size=4)
    tempering = ParallelTempering(
        AutoMALA(model),
        num_temperatures=6,
        num_samples=80,
        warmup_steps=48,
        num_chains=4,
        disable_progbar=True,
    )
    with model.holding_prior():
        exact = log_evidence(model, data, method="importance", num_particles=20_000)
        fitted = per_datum_evidence(model, data, checked=0).data
        with untrusted():
            draws = tempering.run(data)
        found = {
            method: draws.log_evidence(method) for method in ("steppingstone", "bar", "bridge")
        }
        found["ais"] = log_evidence(model, data, method="ais", num_particles=100)
    assert fitted.trusted.all()
    estimates = {
        name: (each.per_datum, each.per_datum_standard_error) for name, each in found.items()
    }
    for name, (value, error) in {
        **estimates,
        "fitted": (fitted.value, fitted.standard_error),
    }.items():
        joint = (error.square() + exact.per_datum_standard_error.square()).sqrt()
        assert ((value - exact.per_datum).abs() < 5 * joint + 0.05).all(), name


def report_with(num_disagreeing: int) -> EvidenceReport:
    """Twenty of 30 data checked, of which some differ by 7 standard errors."""
    num, rows = 30, torch.arange(20)
    known = PerDatum(
        torch.zeros(num),
        torch.full((num,), 0.1),
        torch.zeros(num),
        torch.zeros(num, dtype=torch.int64),
        torch.ones(num, dtype=torch.bool),
    )
    tempered = known.take(rows)
    tempered.value[:num_disagreeing] = 1.0
    return EvidenceReport.of(known, rows, tempered)


@pytest.mark.parametrize(
    ("num_disagreeing", "confirmed"), [(0, True), (1, True), (2, False), (20, False)]
)
def test_what_the_cross_check_disagrees_on_is_not_trusted(num_disagreeing, confirmed):
    report = report_with(num_disagreeing)
    assert report.summary()["confirmed"] is confirmed
    assert report.data.trusted.tolist() == [False] * num_disagreeing + [True] * (
        30 - num_disagreeing
    )
    assert ("NOT to be trusted" in str(report)) == (num_disagreeing > 0)
    assert ("the cross-check disagrees by more than chance" in str(report)) == (not confirmed)


def test_without_checks_nothing_is_confirmed():
    none = torch.arange(0)
    data = report_with(0).data
    assert EvidenceReport.of(data, none, data.take(none)).summary()["confirmed"] is None


class Learned(Gaussian):
    """The same with a parameter that is trained, and one that is not."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.trained = torch.nn.Parameter(torch.zeros(1))
        self.fixed = torch.nn.Parameter(torch.zeros(1), requires_grad=False)


@pytest.mark.parametrize("datum", [0.3, math.nan])
def test_the_model_is_left_as_it_was(datum):
    model = Learned()
    with pytest.raises(ValueError, match="NaN") if math.isnan(datum) else nullcontext():
        per_datum_evidence(model, torch.tensor([[datum]]), checked=0)
    assert [each.requires_grad for each in model.parameters()] == [True, False]


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (torch.zeros(0, 2), {}, r"data must have shape .*, got \(0, 2\)"),
        (torch.zeros(2, 2), {"checked": -1}, "checked must be .*, got -1"),
        (torch.zeros(2, 2), {"most_tempered": -1}, "most_tempered must be .*, got -1"),
    ],
)
def test_bad_arguments(data, options, message):
    with pytest.raises(ValueError, match=message):
        per_datum_evidence(Gaussian(1.0), data, **options)


@pytest.mark.parametrize(("num_disagreeing", "code"), [(1, 0), (20, 1)])
def test_the_command_fails_where_the_check_does(num_disagreeing, code, monkeypatch, capsys):
    monkeypatch.setattr(
        "pyro_tkam.train.evidence.evidence_of_run", lambda *_, **__: report_with(num_disagreeing)
    )
    assert main(["evidence", "a run"]) == code
    output = capsys.readouterr()
    assert "estimated for 30 held-out data" in output.out
    assert ("disagrees by more than chance" in output.err) == (code == 1)
