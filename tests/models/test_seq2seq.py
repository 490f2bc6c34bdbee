"""
Two sequences that share a latent: the density is the product that it claims to be, evidences agree
with quadrature and enumeration, guides and objective train, and the latent carries a choice that
the source leaves open.
"""

from __future__ import annotations

import math
from itertools import product

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyro_tkam.infer import (
    ULA,
    ImportanceMLE,
    ImportanceSampling,
    ImportanceWeightedELBO,
    LangevinMLE,
    WakeSleepMLE,
    log_evidence,
)
from pyro_tkam.models import TKAM, PairELBO, PairGuide
from pyro_tkam.nn import ended_log_prob

SOURCES = torch.tensor([[2, 3, 0], [3, 0, 0], [1, 2, 2]])
TARGETS = torch.tensor([[2, 0], [3, 2], [0, 0]])


def small(latent_dim: int = 2, dtype: torch.dtype = torch.float32):
    pyro.set_rng_seed(0)
    model = TKAM.seq2seq(
        4,
        4,
        max_source=3,
        max_target=2,
        latent_dim=latent_dim,
        width=8,
        num_heads=2,
        num_layers=1,
        context_widths=(8,),
    )
    guide = PairGuide(model)
    with torch.no_grad():
        for parameter in (*model.parameters(), *guide.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(dtype), guide.to(dtype)


def exact(model, source: Tensor, target: Tensor | None) -> Tensor:
    """Log evidence with one latent, summed over a fine grid."""
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64).view(-1, 1, 1)
    log_density = model.prior().log_prob(z) + ended_log_prob(model.source_decoder, z, source)
    if target is not None:
        encoded = model.encoder(source)
        log_density = log_density + ended_log_prob(model.target_decoder, z, target, encoded)
    return log_density.logsumexp(0) + math.log(18 / 2000)


def test_the_density_is_the_product_of_its_parts() -> None:
    model, guide = small()
    with poutine.trace() as tracer:
        z = guide(SOURCES, TARGETS)
    trace = poutine.trace(poutine.replay(model, tracer.trace)).get_trace(SOURCES, TARGETS)
    parts = (
        model.prior().log_prob(z)
        + ended_log_prob(model.source_decoder, z, SOURCES)
        + ended_log_prob(model.target_decoder, z, TARGETS, model.encoder(SOURCES))
    )
    torch.testing.assert_close(trace.log_prob_sum(), parts.sum())
    alone = poutine.trace(poutine.replay(model, tracer.trace)).get_trace(SOURCES)
    assert "target" not in alone.nodes


def test_evidences_agree_with_quadrature() -> None:
    """5,000 weighted draws, with and without a guide; five standard errors, false alarms < 1e-5."""
    model, guide = small(1, torch.float64)
    bound = ImportanceWeightedELBO(5)(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), 0.02)
    for _ in range(40):  # a guide far off has heavy weights, whose error is understated
        optimizer.zero_grad()
        bound(SOURCES).backward()
        bound(SOURCES, TARGETS).backward()
        optimizer.step()
    with torch.no_grad():
        for target in (TARGETS, None):
            arguments = (SOURCES,) if target is None else (SOURCES, target)
            wanted = exact(model, SOURCES, target)
            for proposal in (None, guide):
                found = log_evidence(
                    model, *arguments, method="importance", num_particles=5000, guide=proposal
                )
                error = found.per_datum_standard_error
                assert bool((error < 0.05).all())
                assert bool(((found.per_datum - wanted).abs() < 5 * error + 1e-6).all())


def test_targets_sum_out() -> None:
    model, _ = small(1, torch.float64)
    rows = [(*s, *[0] * (2 - n)) for n in range(3) for s in product(range(1, 4), repeat=n)]
    with torch.no_grad():
        pairs = torch.stack([exact(model, SOURCES, torch.tensor([row] * 3)) for row in rows])
        torch.testing.assert_close(pairs.logsumexp(0), exact(model, SOURCES, None))


def test_padding_changes_nothing_anywhere() -> None:
    model, guide = small()
    objective = PairELBO()
    found = []
    for extra in (0, 4):
        wide = torch.zeros(3, extra, dtype=torch.int64)
        source, target = torch.cat([SOURCES, wide], -1), torch.cat([TARGETS, wide], -1)
        pyro.set_rng_seed(1)
        terms = objective.terms(model, guide, source, target)
        draws = model.respond(source, guide, num=2, num_beams=2)
        found.append((*vars(terms).values(), draws, *model(source, target)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_objective_is_the_sum_of_two_bounds() -> None:
    model, guide = small(1, torch.float64)
    objective = PairELBO()
    loss = objective.loss(model, guide, SOURCES, TARGETS, size=30)
    terms = objective.statistics
    both = terms.source + terms.target - terms.information
    conditional = terms.target - terms.beyond
    assert loss == pytest.approx(-10 * float((both + conditional).sum()))
    with torch.no_grad():
        pyro.set_rng_seed(0)
        draws = [objective.terms(model, guide, SOURCES, TARGETS) for _ in range(64)]
        bounds = torch.stack([each.source + each.target - each.information for each in draws])
        error = bounds.std(0) / 8
        assert bool((bounds.mean(0) < exact(model, SOURCES, TARGETS) + 5 * error).all())
    assert objective.statistics.metrics.keys() == {"source", "target", "information", "beyond"}
    free = PairELBO(free_nats=1000.0).loss(model, guide, SOURCES, TARGETS)
    assert free > 2000 * 3 - 100  # the floor is part of the value


def test_within_the_free_nats_only_the_priors_learn_the_divergences() -> None:
    model, guide = small(1, torch.float64)
    loss = PairELBO(free_nats=1e6)(model, guide)
    pyro.set_rng_seed(1)
    loss(SOURCES, TARGETS).backward()
    found = [parameter.grad for parameter in loss.parameters()]
    loss.zero_grad()
    pyro.set_rng_seed(1)
    encoded = model.encoder(SOURCES)
    z = guide.posterior(encoded, TARGETS).rsample()
    told = ended_log_prob(model.source_decoder, z, SOURCES)
    told = told + 2 * ended_log_prob(model.target_decoder, z, TARGETS, encoded)
    priors = (model.prior(), guide.posterior(encoded))
    (-told - sum(prior.log_prob(z.detach()) for prior in priors)).sum().backward()
    for parameter, gradient in zip(loss.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize(
    "objective", [PairELBO(0.0, 0.2), pyro.infer.Trace_ELBO(), ImportanceWeightedELBO(3)]
)
def test_every_parameter_trains(objective) -> None:
    model, guide = small()
    loss = objective(model, guide)
    optimizer = torch.optim.Adam(loss.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss(SOURCES, TARGETS, size=30).backward()
        optimizer.step()
    still = [
        name
        for name, parameter in loss.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    assert not still


@pytest.mark.parametrize(
    "objective",
    [ImportanceMLE(4), WakeSleepMLE(4), LangevinMLE(ULA, num_steps=2, step_size=0.01)],
    ids=lambda each: type(each).__name__,
)
def test_the_packages_objectives_take_it(objective) -> None:
    model, guide = small()
    loss = objective(model, guide)(SOURCES, TARGETS)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert bool((model.target_decoder.to_logits.weight.grad != 0).any())


def test_guides_of_long_targets_start_near_the_prior() -> None:
    """Counts of 100 surplus symbols may not throw the latent far away."""
    pyro.set_rng_seed(0)
    model = TKAM.seq2seq(
        5, 5, max_source=2, max_target=300, latent_dim=4, width=8, num_heads=2, num_layers=1
    )
    target = torch.full((1, 299), 3)
    terms = PairELBO().terms(model, PairGuide(model), torch.tensor([[2, 3]]), target)
    assert 0 < float(terms.beyond.detach()) < 200


def test_the_source_alone_trains_its_guide() -> None:
    model, guide = small()
    loss = ImportanceWeightedELBO(3)(model, guide)
    loss(SOURCES).backward()
    assert all(parameter.grad is not None for parameter in guide.alone.parameters())
    assert ImportanceSampling(model, guide, 50).run(SOURCES).values["z"].shape == (50, 3, 2)


@pytest.mark.slow
def test_the_latent_carries_a_choice_and_one_pass_makes_it() -> None:
    """
    Targets are ``aa`` or ``bb`` at random: once the latent must say 0.6 nats, it says which, both
    are drawn, and neither ``ab`` nor ``ba``. The control, where nothing is free, leaves it to the
    decoder.
    """
    pyro.set_rng_seed(0)
    source = torch.tensor([[2, 3]]).expand(64, 2)
    told = {}
    for free in (0.0, 1.0):
        model = TKAM.seq2seq(
            4, 4, max_source=2, max_target=2, latent_dim=2, width=16, num_heads=2, num_layers=1
        )
        guide = PairGuide(model)
        loss = PairELBO(free)(model, guide)
        optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
        for _ in range(80):
            target = (2 + torch.randint(2, (64, 1))).expand(64, 2)
            optimizer.zero_grad()
            (loss(source, target) / 64).backward()
            optimizer.step()
        with torch.no_grad():
            encoded = model.encoder(source)
            z = guide.posterior(encoded, target).sample()
            own, other = (
                ended_log_prob(model.target_decoder, latent, target, encoded)
                for latent in (z, z.roll(1, 0))
            )
        told[free] = float((own - other).mean())
    assert abs(told[0.0]) < 0.3
    assert told[1.0] > 0.6
    drawn = {tuple(row) for row in model.respond(source, guide, num_beams=1)[0].tolist()}
    assert drawn == {(2, 2), (3, 3)}
    best = model.search(source[:1], guide, num_beams=4, num_draws=64)
    assert {tuple(row) for row in best.tokens[0, :2].tolist()} == {(2, 2), (3, 3)}
    assert float(best.log_prob[0, :2].logsumexp(0).exp()) > 0.9


def test_targets_of_latents_that_lie_apart_are_drawn_alike_one_by_one() -> None:
    """
    Each target has the law of an independent one: counts of all targets within five standard
    errors. Two at a time they differ more often than independent ones.
    """
    model, guide = small()
    with torch.no_grad():
        guide.alone[-1].bias.zero_()  # a standard normal posterior
        model.target_decoder.add.weight.mul_(20)  # the latent decides
    source = SOURCES[:1].expand(8000, -1)
    pyro.set_rng_seed(0)
    alone, apart = (
        model.respond(source, guide, num=2, num_beams=1, spread=spread) for spread in (False, True)
    )
    codes, counts = torch.cat([alone, apart]).flatten(0, 1).unique(dim=0, return_counts=True)
    assert len(codes) > 1
    for draw in (*alone, *apart):
        found = (draw.unsqueeze(1) == codes).all(-1).double().mean(0)
        wanted = counts / counts.sum()
        assert bool(((found - wanted).abs() < 5 * (wanted / len(draw)).sqrt()).all())
    differ = [float((pair[0] != pair[1]).any(-1).double().mean()) for pair in (alone, apart)]
    assert differ[1] > differ[0] + 0.02


@pytest.mark.parametrize(
    "posterior",
    [
        torch.distributions.Uniform(torch.zeros(3, 2), 1.0),
        torch.distributions.LogNormal(torch.zeros(3, 2), 1.0),  # its base is Gaussian
    ],
)
def test_latents_lie_apart_only_under_a_gaussian(posterior) -> None:
    model, _ = small()

    class Guide:
        def posterior(self, encoded):
            return posterior

    with pytest.raises(TypeError, match="posterior must be Gaussian with spread=True, got"):
        model.respond(SOURCES, Guide(), num=2, spread=True)


def test_whether_latents_lie_apart_is_true_or_false() -> None:
    model, guide = small()
    with pytest.raises(TypeError, match="spread must be"):
        model.respond(SOURCES, guide, num=2, spread=1)
    assert model.respond(SOURCES, guide, spread=True).shape == (1, 3, 2)


def test_draws_and_searches_have_their_shapes() -> None:
    model, guide = small()
    source, target = model.generate(5)
    assert source.shape == (5, 3)
    assert target.shape == (5, 2)
    assert model.respond(SOURCES, guide, num=4).shape == (4, 3, 2)
    found = model.search(SOURCES, guide, num_beams=3, num_draws=2)
    assert found.tokens.shape == (3, 3, 2)
    assert bool((found.log_prob.diff(dim=-1) <= 0).all())


def test_refuses_what_it_cannot_score() -> None:
    model, guide = small()
    with pytest.raises(ValueError, match="target must be None without a source"):
        model(None, TARGETS, size=3)
    with pytest.raises(ValueError, match="target must have one row for each of 3 sources, got 2"):
        model(SOURCES, TARGETS[:2])
    with pytest.raises(ValueError, match="source must have at most 3 symbols, got 4"):
        model(torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="source must hold classes from 0 to 3, got 4"):
        model(torch.full((2, 3), 4))
    with pytest.raises(TypeError, match="source must hold integers"):
        model(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"source must have shape \(batch, length\)"):
        model(torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="num must be an integer of at least 1"):
        model.respond(SOURCES, guide, num=0)
    with pytest.raises(ValueError, match="free_nats must be at least 0"):
        PairELBO(-1.0)
    with pytest.raises(ValueError, match="unknown_share must be a number from 0 to 1"):
        PairELBO(unknown_share=2.0)


def test_hidden_symbols_are_read_as_unknown_and_ends_stay() -> None:
    assert torch.equal(
        PairELBO(unknown_share=1.0).read(SOURCES), torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    )
    assert PairELBO().read(SOURCES) is SOURCES
