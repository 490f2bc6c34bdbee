from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from pyro_tkam.ops import automala
from pyro_tkam.ops.automala import (
    NUM_UNIFORMS,
    Start,
    automala_step,
    check_reverse,
    draw_dynamics,
    search,
)
from pyro_tkam.ops.langevin import Noise, Point, Tuning, leapfrog, log_ratio, mala_step, ula_step
from tests.laws.kernel import (
    EXAMPLES,
    Example,
    Rows,
    funnel,
    gaussian,
    leaves_invariant,
    smallest_p,
    two_modes,
)

STEPS = {"mala": (mala_step, 1), "automala": (automala_step, NUM_UNIFORMS)}
LIMITS = (1e-8, 1e8)


def move(
    name: str,
    step_size: float,
    point: Point,
    example: Example,
    scaled: bool = False,
    **options: bool,
) -> Point:
    step, num_uniforms = STEPS[name]
    scale = torch.linspace(0.5, 1.5, example.dim) if scaled else torch.ones(example.dim)
    tuning = Tuning(torch.tensor(step_size), scale)
    return step(point, example, tuning, Noise.draw(point, num_uniforms), **options)[0]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_kernels_leave_their_target_invariant(example: Example, name: str, scaled: bool) -> None:
    """
    24 calls: a right kernel fails one of them with probability 0.024 over seeds; the seed is fixed.
    """
    torch.manual_seed(1)
    assert leaves_invariant(partial(move, name, 0.3, scaled=scaled), example)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_law_accepts_the_identity(example: Example) -> None:
    torch.manual_seed(2)
    assert leaves_invariant(lambda point, _: point, example)


@pytest.mark.parametrize("name", STEPS)
def test_the_law_rejects_a_kernel_without_metropolis_test(name: str) -> None:
    torch.manual_seed(3)
    assert smallest_p(partial(move, name, 0.5, adjusted=False), gaussian(10)) < 1e-6


def test_the_law_rejects_automala_without_reversibility_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(4)

    def unchecked(
        start: Start, found: automala.Found, target: object, needed: Tensor
    ) -> automala.Verdict:
        return automala.Verdict(found.exponent, torch.ones_like(needed), found.cost)

    monkeypatch.setattr(automala, "check_reverse", unchecked)
    assert smallest_p(partial(move, "automala", 0.5), funnel(), steps=10) < 1e-6


def test_the_law_rejects_a_reverse_search_from_another_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(5)

    def from_the_found_step(
        start: Start, found: automala.Found, target: object, needed: Tensor
    ) -> automala.Verdict:
        dynamics = replace(
            start.dynamics, step_size=start.dynamics.step_size * found.exponent.exp2()
        )
        back = search(Start(found.end, -found.momentum, dynamics), target)
        return automala.Verdict(found.exponent, (back.exponent == 0) | ~needed, found.cost)

    monkeypatch.setattr(automala, "check_reverse", from_the_found_step)
    assert smallest_p(partial(move, "automala", 0.5), funnel(), steps=10) < 1e-6


@pytest.mark.parametrize("name", STEPS)
def test_the_law_rejects_adaptation_within_a_round(name: str) -> None:
    torch.manual_seed(6)
    step, num_uniforms = STEPS[name]

    def adapting(point: Point, example: Example) -> Point:
        tuning = Tuning(0.1 + point.position[:, 0].abs(), torch.ones(example.dim))
        return step(point, example, tuning, Noise.draw(point, num_uniforms))[0]

    assert smallest_p(adapting, two_modes(), steps=10) < 1e-6


def test_ula_bias_shrinks_linearly_in_the_step() -> None:
    """
    ULA's stationary variance on a unit normal is 1 / (1 - η/2); 200,000 draws give it to 0.0032 (1
    sigma).
    """
    torch.manual_seed(7)
    unit = Example("unit", 1, lambda z: -0.5 * z.square().sum(-1), lambda n: torch.randn(n, 1))
    biases = []
    for step_size in (0.4, 0.2):
        point = unit(unit.draw(200_000))
        for _ in range(40):
            point, _ = ula_step(
                point, unit, Tuning(torch.tensor(step_size), torch.ones(1)), Noise.draw(point, 0)
            )
        biases.append(point.position.var().item() - 1)
        assert biases[-1] == pytest.approx(1 / (1 - step_size / 2) - 1, abs=5 * 0.0032)
    assert 1.9 < biases[0] / biases[1] < 2.6


def test_leapfrog_is_an_involution_after_a_flip() -> None:
    torch.manual_seed(8)
    example = funnel()
    start = example(example.draw(100).double())
    momentum, scale = torch.randn(100, 2).double(), torch.rand(100, 2).double() + 0.5
    step_size = torch.rand(100).double() * 0.3
    end, end_momentum = leapfrog(start, momentum, step_size, scale, example)
    back, back_momentum = leapfrog(end, -end_momentum, step_size, scale, example)
    torch.testing.assert_close(back.position, start.position)
    torch.testing.assert_close(-back_momentum, momentum)
    forward = log_ratio(start, momentum, end, end_momentum)
    torch.testing.assert_close(log_ratio(end, -end_momentum, back, back_momentum), -forward)


def plain_search(start: Start, target: Example) -> list[int]:
    """
    The published search of one row after another (Biron-Lattes et al. 2024), without any batching.
    """

    def ratio(row: int, exponent: int) -> float:
        one = start.take(torch.tensor([row]))
        return one.trial(one.dynamics.step_size * 2.0**exponent, target, torch.tensor([True]))[
            2
        ].item()

    found = []
    for row in range(len(start.momentum)):
        low, high = start.dynamics.log_low[row].item(), start.dynamics.log_high[row].item()
        exponent = 0
        if ratio(row, 0) <= low:
            while ratio(row, exponent) <= low:
                exponent -= 1
        elif ratio(row, 0) >= high:
            while ratio(row, exponent) >= high:
                exponent += 1
            exponent -= 1
        found.append(exponent)
    return found


@pytest.mark.parametrize("step_size", [0.02, 0.5, 8.0])
def test_batched_search_and_check_equal_the_published_ones(step_size: float) -> None:
    torch.manual_seed(9)
    example = funnel()
    point = example(example.draw(200).double())
    noise = Noise.draw(point, NUM_UNIFORMS)
    tuning = Tuning(torch.tensor(step_size).double(), torch.tensor([2.0, 1.0]).double())
    start = Start(point, noise.momentum, draw_dynamics(point, tuning, noise, LIMITS))
    found = search(start, example)
    assert found.exponent.long().tolist() == plain_search(start, example)
    assert len(set(found.exponent.tolist())) > 2
    needed = torch.isfinite(found.log_ratio)
    verdict = check_reverse(start, found, example, needed)
    reverse = plain_search(Start(found.end, -found.momentum, start.dynamics), example)
    agrees = torch.tensor(reverse) == found.exponent.long()
    assert verdict.agrees[needed].tolist() == agrees[needed].tolist()
    assert 0 < agrees.sum() < 200


class Counting:
    """
    Counts the rows evaluated; ``blind`` hides the density, so that every trial needs its gradient.
    """

    def __init__(self, example: Example, blind: bool) -> None:
        self.example, self.blind, self.evaluations, self.screenings = example, blind, 0, 0

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        self.evaluations += len(position)
        return self.example(position)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        self.screenings += len(position)
        return (
            torch.full_like(position[..., 0], 1e30)
            if self.blind
            else self.example.log_density(position)
        )


@pytest.mark.parametrize("step_size", [0.02, 0.5, 8.0])
def test_leaving_out_gradients_changes_nothing_but_the_cost(step_size: float) -> None:
    torch.manual_seed(14)
    example = gaussian(10)
    point = example(example.draw(500))
    noise, tuning = Noise.draw(point, NUM_UNIFORMS), Tuning(torch.tensor(step_size), torch.ones(10))
    targets = Counting(example, blind=False), Counting(example, blind=True)
    (end, info), (plain_end, plain_info) = (
        automala_step(point, target, tuning, noise) for target in targets
    )
    assert torch.equal(end.position, plain_end.position)
    assert torch.equal(info.reversible, plain_info.reversible)
    assert torch.equal(info.screenings, plain_info.screenings)
    for target, each in zip(targets, (info, plain_info), strict=True):
        assert target.evaluations + target.screenings == each.total_evaluations
    saved = plain_info.evaluations - info.evaluations
    assert (saved >= 0).all()
    assert (saved <= info.screenings).all()
    if step_size == 0.5:
        assert saved.sum() > 0.2 * plain_info.evaluations.sum()


def test_evaluations_are_counted() -> None:
    """A batch of one row is evaluated exactly when the row needs it."""
    torch.manual_seed(15)
    target = Counting(gaussian(3), blind=False)
    point = target(target.example.draw(1))
    for _ in range(50):
        target.evaluations = target.screenings = 0
        point, info = automala_step(
            point, target, Tuning(torch.tensor(0.3), torch.ones(3)), Noise.draw(point, NUM_UNIFORMS)
        )
        assert (target.evaluations, target.screenings) == (
            int(info.evaluations),
            int(info.screenings),
        )
        assert target.evaluations + target.screenings == info.total_evaluations


def test_a_row_is_charged_while_any_of_its_data_is_evaluated() -> None:
    """
    More than the largest count of a datum: one may need a long search and another a long check.
    """
    torch.manual_seed(16)
    target, more = Counting(gaussian(3), blind=False), 0
    point = target(target.example.draw(4)[None])
    tuning = Tuning(torch.tensor([0.03, 0.1, 0.5, 3.0]), torch.ones(3))
    for _ in range(100):
        target.evaluations = target.screenings = 0
        point, info = automala_step(point, target, tuning, Noise.draw(point, NUM_UNIFORMS))
        assert target.evaluations + target.screenings == info.total_evaluations
        more += int(info.total_evaluations > (info.evaluations + info.screenings).amax(1))
    assert more > 0


@pytest.mark.parametrize("step", [ula_step, mala_step, automala_step])
def test_data_of_a_batch_move_as_they_would_alone(step) -> None:
    torch.manual_seed(10)
    widths = torch.tensor([0.1, 1.0, 5.0]).double()

    def target_of(width: Tensor) -> Example:
        return Example(
            "", 2, lambda z: -0.5 * (z / width.unsqueeze(-1)).square().sum(-1), torch.empty
        )

    together, position = target_of(widths), torch.randn(20, 3, 2).double()
    noise = Noise.draw(together(position), NUM_UNIFORMS)
    tuning = Tuning(torch.tensor([0.01, 0.5, 2.0]).double(), torch.ones(3, 2).double())
    end, info = step(together(position), together, tuning, noise)
    for datum, width in enumerate(widths):
        alone, position_alone = target_of(width), position[:, datum]
        tuning_alone = Tuning(tuning.step_size[datum], tuning.scale[datum])
        noise_alone = Noise(noise.momentum[:, datum], noise.uniforms[:, datum])
        end_alone, info_alone = step(alone(position_alone), alone, tuning_alone, noise_alone)
        torch.testing.assert_close(end.position[:, datum], end_alone.position)
        assert torch.equal(info.accepted[:, datum], info_alone.accepted)
        assert torch.equal(info.evaluations[:, datum], info_alone.evaluations)


@pytest.mark.parametrize("step", [ula_step, mala_step, automala_step])
def test_rows_keep_their_own_target(step) -> None:
    """
    A target that depends on the row gives the same as one call a row, so rows are told right when
    compacted.
    """
    torch.manual_seed(11)
    centers = 100.0 * torch.arange(512).double().unsqueeze(-1)

    @Rows
    def target(position: Tensor, rows: Tensor | None) -> Point:
        gap = position - (centers if rows is None else centers[rows])
        return Point(position, -0.5 * gap.square().sum(-1), -gap)

    point = target(centers + torch.randn(512, 2).double())
    for _ in range(20):
        point, _ = step(
            point,
            target,
            Tuning(torch.tensor(0.05).double(), torch.ones(2).double()),
            Noise.draw(point, NUM_UNIFORMS),
        )
        assert (point.position - centers).abs().max() < 8


@pytest.mark.parametrize("step", [ula_step, mala_step, automala_step])
@pytest.mark.parametrize("adjusted", [True, False])
def test_nan_is_rejected_and_counted_as_divergence(step, adjusted: bool) -> None:
    torch.manual_seed(12)

    @Rows
    def target(position: Tensor, rows: Tensor | None) -> Point:
        bad = position[..., 0] > 0.5
        log_density = torch.where(bad, torch.nan, -0.5 * position.square().sum(-1))
        return Point(position, log_density, torch.where(bad.unsqueeze(-1), torch.nan, -position))

    point, divergences = target(torch.zeros(500, 2)), 0
    for _ in range(5):
        tuning = Tuning(torch.tensor(1.0), torch.ones(2))
        point, info = step(point, target, tuning, Noise.draw(point, NUM_UNIFORMS), adjusted)
        divergences += int(info.diverging.sum())
        assert torch.isfinite(point.position).all()
        assert (point.position[:, 0] <= 0.5).all()
        assert not (info.accepted & info.diverging).any()
    # autoMALA shrinks its step instead of proposing a point without a density.
    assert divergences > 0 or step is automala_step


def test_a_divergence_is_a_metropolis_hastings_ratio_below_minus_1000() -> None:
    """
    ``log π(y) q(x | y) / π(x) q(y | x)``, with ``q(y | x) = N(y; x + η π'(x) / π(x), 2η)``, at
    exact draws of the logarithm of an exponential variable, whose density falls as
    ``exp(-exp(x))``.
    """
    torch.manual_seed(13)
    size = torch.tensor(2.0).double()

    def log_density(position: Tensor) -> Tensor:
        return (position - position.exp()).sum(-1)

    def log_proposal(there: Tensor, here: Tensor) -> Tensor:
        mean = here + size * (1 - here.exp())
        return -((there - mean).square() / (4 * size)).sum(-1)

    @Rows
    def target(position: Tensor, rows: Tensor | None) -> Point:
        return Point(position, log_density(position), 1 - position.exp())

    start = torch.empty(10_000, 1).double().exponential_().log()
    noise = Noise.draw(target(start), 1)
    _, info = mala_step(target(start), target, Tuning(size, torch.ones(1).double()), noise)
    end = start + size * (1 - start.exp()) + (2 * size).sqrt() * noise.momentum
    ratio = (
        log_density(end) + log_proposal(start, end) - log_density(start) - log_proposal(end, start)
    )
    assert torch.equal(info.diverging, ratio < -1000)
    assert 0.001 < info.diverging.double().mean() < 0.5


def test_a_search_that_leaves_its_limits_rejects() -> None:
    torch.manual_seed(13)
    flat = Example("flat", 1, lambda z: 0 * z.sum(-1), lambda n: torch.zeros(n, 1))
    point = flat(torch.zeros(50, 1))
    noise = Noise.draw(point, NUM_UNIFORMS)
    end, info = automala_step(
        point, flat, Tuning(torch.tensor(1.0), torch.ones(1)), noise, limits=(0.1, 10.0)
    )
    assert not info.accepted.any()
    assert torch.equal(end.position, point.position)
    assert info.step_size.max() <= 10
