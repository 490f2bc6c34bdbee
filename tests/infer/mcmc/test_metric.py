from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import MCMC
from torch import Tensor

from pyro_tkam.infer import AutoMALA, VectorizedMCMC
from pyro_tkam.infer.mcmc.adaptation import FrameAdaptation, doubling_rounds
from pyro_tkam.infer.mcmc.metric import AffineFrame, FramedTarget, Moments
from pyro_tkam.infer.model.potential import PotentialDensity
from pyro_tkam.ops.automala import NUM_UNIFORMS, automala_step
from pyro_tkam.ops.langevin import Noise, Point, Tuning
from tests.laws.kernel import EXAMPLES, Example, funnel, gaussian, leaves_invariant, smallest_p
from tests.untrusted import untrusted


def skewed(dim: int) -> AffineFrame:
    """A frame far from the identity."""
    return AffineFrame(
        torch.linspace(-2, 3, dim),
        torch.randn(dim, dim).tril(-1) + torch.linspace(0.3, 2, dim).diag(),
    )


class Framed:
    """A target in a frame, as :class:`FramedTarget` gives it for a density."""

    def __init__(self, example: Example, frame: AffineFrame) -> None:
        self.example, self.frame = example, frame
        self.point = example.__call__
        self.log_density = example.log_density


def step_in(frame: AffineFrame, point: Point, example: Example) -> Point:
    target = FramedTarget(Framed(example, frame), frame)
    inner = target(frame.inner(point.position))
    noise = Noise.draw(inner, NUM_UNIFORMS)
    moved, _ = automala_step(
        inner, target, Tuning(torch.tensor(0.4), torch.ones(example.dim)), noise
    )
    return example(frame.outer(moved.position))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_a_frame_leaves_the_target_invariant(example: Example) -> None:
    """
    6 calls: a right kernel fails one of them with probability 0.006 over seeds; the seed is fixed.
    """
    torch.manual_seed(1)
    frame = skewed(example.dim)
    assert leaves_invariant(lambda point, target: step_in(frame, point, target), example)


def step_in_fresh_frames(halves: Tensor, point: Point, example: Example) -> Point:
    """Standardize each half of the rows by where it is now, and make a step in its new frame."""
    moved = point
    for half in (halves, ~halves):
        rows, moments = half.nonzero().squeeze(-1), Moments()
        moments.add(point.position[rows])
        frame, _ = moments.standardized(AffineFrame.identity(point.position[0]))
        moved = moved.put(rows, step_in(frame, point.take(rows), example))
    return moved


@pytest.mark.parametrize(
    "example", [gaussian(2), funnel(), gaussian(3)], ids=lambda example: example.name
)
def test_the_law_rejects_frames_that_change_within_a_round(example: Example) -> None:
    """
    Frames learned at each step from the rows that they move fail, if those rows are chosen by where
    they are.

    Halves chosen without looking pass: each frame then hardly depends on any one row.
    """
    torch.manual_seed(2)

    def inner_half(point: Point) -> Tensor:
        length = point.position.square().sum(-1)
        return length < length.median()

    def any_half(point: Point) -> Tensor:
        return torch.arange(len(point.position)) % 2 == 0

    by_place, blindly = (
        lambda point, target, choose=choose: step_in_fresh_frames(choose(point), point, target)
        for choose in (inner_half, any_half)
    )
    assert smallest_p(by_place, example, steps=10) < 1e-6
    assert leaves_invariant(blindly, example, steps=10)


def test_frames_map_there_and_back_with_the_chain_rule() -> None:
    torch.manual_seed(3)
    frame, inner = (
        AffineFrame(*(each.double() for each in vars(skewed(4)).values())),
        torch.randn(5, 4).double(),
    )
    torch.testing.assert_close(frame.inner(frame.outer(inner)), inner)
    density = PotentialDensity(
        lambda params: params["z"].pow(4).sum(), {"z": torch.zeros(4).double()}
    )
    target = FramedTarget(density, frame)
    position = inner.clone().requires_grad_()
    value = -frame.outer(position).pow(4).sum(-1)
    (gradient,) = torch.autograd.grad(value.sum(), position)
    point = target(inner)
    torch.testing.assert_close(point.gradient, gradient)
    torch.testing.assert_close(point.log_density, value.detach())
    torch.testing.assert_close(target.log_density(inner), value.detach())


def test_moments_are_those_of_all_batches() -> None:
    torch.manual_seed(4)
    draws, moments = torch.randn(30, 8, 3).double() * torch.tensor([1.0, 5.0, 0.1]) + 7, Moments()
    for batch in draws:
        moments.add(batch)
    torch.testing.assert_close(moments.mean, draws.mean((0, 1)))
    torch.testing.assert_close(moments.scatter / (moments.count - 1), draws.flatten(0, 1).T.cov())


def test_frames_of_successive_rounds_standardize_what_is_narrow_and_correlated() -> None:
    """Condition number 1e4: a single shrunk estimate doesn't reach it, successive ones do."""
    torch.manual_seed(5)
    factor = torch.tensor([[1.0, 0.0], [0.99995, 0.01]]).double()
    frame = AffineFrame.identity(torch.zeros(2).double())
    for _ in range(8):
        moments = Moments()
        moments.add(frame.inner(5 + torch.randn(10_000, 2).double() @ factor.T))
        frame, _ = moments.standardized(frame)
    inner = frame.inner(5 + torch.randn(100_000, 2).double() @ factor.T)
    torch.testing.assert_close(inner.T.cov(), torch.eye(2).double(), atol=0.05, rtol=0)


@pytest.mark.parametrize(("rows", "dim"), [(1, 5), (2, 50), (3, 1)])
def test_few_draws_give_a_usable_frame(rows: int, dim: int) -> None:
    moments = Moments()
    moments.add(torch.randn(rows, dim) * 0)
    frame, scale = moments.standardized(AffineFrame.identity(torch.zeros(dim)))
    assert (scale > 0).all()
    assert torch.isfinite(frame.inner(torch.ones(2, dim))).all()


def test_draws_whose_covariance_overflows_leave_the_frame() -> None:
    moments, frame = Moments(), skewed(3)
    moments.add(1e30 * torch.randn(10, 3))
    same, scale = moments.standardized(frame)
    assert same is frame
    assert torch.equal(scale, torch.ones(3))


def correlated() -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("w", dist.Normal(100 * z, 0.5))


def run(**options: bool) -> VectorizedMCMC:
    pyro.set_rng_seed(6)
    mcmc = VectorizedMCMC(
        AutoMALA(correlated, **options), 200, 300, num_chains=64, disable_progbar=True
    )
    mcmc.run()
    return mcmc


def test_standardized_chains_mix_where_plain_ones_do_not() -> None:
    """
    64 chains of 200 draws; lag-1 autocorrelation of independent draws would be 0, of stuck ones 1.
    """

    def persistence(values: Tensor) -> float:
        values = (values - values.mean()) / values.std()
        return (values[:, 1:] * values[:, :-1]).mean().item()

    samples = run().get_samples(group_by_chain=True)
    assert persistence(samples["z"]) < 0.8
    assert samples["z"].std().item() == pytest.approx(1.0, rel=0.1)
    assert samples["w"].std().item() == pytest.approx(100.0, rel=0.1)
    with untrusted("chains disagree"):
        plain = run(standardize=False)
    assert persistence(plain.get_samples(group_by_chain=True)["z"]) > 0.95


def test_the_frame_changes_only_between_rounds() -> None:
    frames: list[object] = []
    mcmc = VectorizedMCMC(AutoMALA(correlated), 10, 64, num_chains=8, disable_progbar=True)
    mcmc.hook_fn = lambda *_: frames.append(mcmc._chains.adaptation.frame)
    with untrusted():
        mcmc.run()
    changes = [i + 1 for i in range(1, len(frames)) if frames[i] is not frames[i - 1]]
    assert changes == doubling_rounds(64)
    assert isinstance(mcmc._chains.adaptation, FrameAdaptation)


def test_few_draws_or_none_that_moved_leave_a_frame_as_it_is() -> None:
    """
    A frame that followed two draws, or a chain that stood still, would hold the chain where it is.
    """
    torch.manual_seed(0)
    for draws, least in [(torch.randn(2, 3), 0.8), (torch.zeros(150, 3), 0.2)]:
        moments = Moments()
        for draw in draws:
            moments.add(draw.unsqueeze(0))
        frame, scale = moments.standardized(AffineFrame.identity(torch.zeros(3)))
        assert scale.min() > least
        assert torch.linalg.svdvals(frame.matrix).min() > 0.8 * least
    moments.add(1e-3 * torch.randn(20_000, 3))  # many draws are believed
    _, scale = moments.standardized(AffineFrame.identity(torch.zeros(3)))
    assert scale.max() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 6, 8, 18])
def test_a_single_chain_finds_a_regression(seed: int) -> None:
    """
    With these seeds the frame once collapsed in a short round, and the chain stood still next to
    the posterior.

    Of 80 runs of four data sets none fails, so that one of these four does with probability below
    0.15; seeds are fixed.
    """
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(0, 2, 50)
    y = 1 + 2 * x + 0.5 * noise

    def line() -> None:
        a = pyro.sample("a", dist.Normal(0.0, 5.0))
        b = pyro.sample("b", dist.Normal(0.0, 5.0))
        scale = pyro.sample("scale", dist.HalfNormal(1.0))
        with pyro.plate("data", 50):
            pyro.sample("y", dist.Normal(a + b * x, scale), obs=y)

    pyro.set_rng_seed(seed)
    mcmc = MCMC(AutoMALA(line), num_samples=500, warmup_steps=300, disable_progbar=True)
    mcmc.run()
    slope = mcmc.get_samples()["b"]
    features = torch.stack([torch.ones(50), x], 1)
    fitted = torch.linalg.lstsq(features, y.unsqueeze(-1)).solution.squeeze(-1)
    left = (y - features @ fitted).square().sum() / 48
    exact = (left * torch.linalg.inv(features.T @ features)[1, 1]).sqrt()
    assert abs(slope.mean() - fitted[1]) < 2 * exact
    assert 0.6 * exact < slope.std() < 1.8 * exact
