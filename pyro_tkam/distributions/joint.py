"""
Joint energy priors over several latents: unnormalized, sampled by short-run Langevin dynamics.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.distributions import Distribution, Independent, biject_to, constraints

from pyro_tkam._checks import function, number, whole_number
from pyro_tkam.distributions.checked import CheckedDistribution
from pyro_tkam.distributions.references import copied, tensors_of
from pyro_tkam.ops._arguments import shape
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._points import expanded_shape
from pyro_tkam.ops._precision import in_full_precision
from pyro_tkam.ops.estimators import importance
from pyro_tkam.ops.estimators.estimate import Estimate
from pyro_tkam.ops.langevin import Noise, Point, Tuning, mala_step, ula_step

JointFunction = Callable[[Tensor], Tensor]
_PARAMETERS_LEARN = ContextVar("parameters learn", default=True)


@contextmanager
def in_latents_only() -> Iterator[None]:
    """
    Compute gradients in latents only, so no energy draws negatives for its parameters.

    >>> energy = torch.nn.Linear(3, 1)
    >>> with in_latents_only():
    ...     prior = JointEnergy(lambda z: energy(z).squeeze(-1),
    ...         torch.distributions.Normal(torch.zeros(3), 1.0))
    >>> prior.negatives is None
    True
    """
    token = _PARAMETERS_LEARN.set(False)
    try:
        yield
    finally:
        _PARAMETERS_LEARN.reset(token)


@dataclass(frozen=True)
class ShortRunULA:
    """
    Short-run unadjusted Langevin dynamics, ``z' = z + η ∇log p(z) + √(2η) ξ``.

    See Raj 2025, arXiv:2506.14167, Eq. 36.

    :param num_steps: steps from the reference; the paper's tables have 60.
    :param step_size: ``η``; the paper's tables have 0.16.
    :raises ValueError: for less than one step and a step size that is not positive.

    >>> ShortRunULA(num_steps=20, step_size=0.1).num_steps
    20
    """

    num_steps: int = 60
    step_size: float = 0.16

    def __post_init__(self) -> None:
        whole_number("num_steps", self.num_steps, 1)
        number("step_size", self.step_size, 0)

    def __call__(self, log_density: JointFunction, start: Tensor) -> Tensor:
        """
        Run chains of ``log_density`` in unconstrained space.

        :param log_density: from ``(*rows, Q)`` to ``(*rows,)``.
        :param start: where the chains start, ``(*rows, Q)``.
        :return: where they end, detached.
        """
        target = _Target(log_density)
        point = target(start)
        tuning = _tuning(self.step_size, start)
        for _ in range(self.num_steps):
            point, _ = ula_step(point, target, tuning, Noise.draw(point, 0))
        return point.position


@dataclass
class PersistentULA:
    """
    Langevin chains that continue where the last call of the same shape left them (persistent
    contrastive divergence).

    :param run: the dynamics of one call.

    >>> PersistentULA(ShortRunULA(num_steps=5)).run.num_steps
    5
    """

    run: ShortRunULA = field(default_factory=ShortRunULA)
    _chains: dict[torch.Size, Tensor] = field(default_factory=dict, repr=False)

    def __call__(self, log_density: JointFunction, start: Tensor) -> Tensor:
        """
        Continue the chains; ``start`` is used the first time.

        :param log_density: from ``(*rows, Q)`` to ``(*rows,)``.
        :param start: where new chains start, ``(*rows, Q)``.
        :return: where they end, detached.
        """
        end = self.run(log_density, self._chains.get(start.shape, start).to(start))
        self._chains[start.shape] = end
        return end

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the current positions of the chains."""
        return {"chains": list(self._chains.values())}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """
        Continue from a state.

        :param state: what :meth:`state_dict` returned.
        """
        self._chains = {chains.shape: chains for chains in state["chains"]}


class JointEnergy(CheckedDistribution):
    """
    An unnormalized energy prior over ``Q`` latents, ``p(z) ∝ exp(f(z)) Π_q π0(z_q)``.

    (Raj 2025, arXiv:2506.14167, Eq. 14; Pang et al. 2020.) ``log_prob`` is known up to a constant.
    Its gradient in the parameters of ``f`` includes the negative phase ``-E_p[∇f]`` (Eq. 18),
    estimated from Langevin draws. These draws are made once, with the distribution, and only if the
    parameters need gradients; samplers of latents don't need them.

    ``f`` must not have latent parameters, because their posterior would need the normalizer.
    Parameters that ``f`` draws are always refused. Parameters drawn earlier in a model
    (``PyroSample`` read by ``bound()``, a coefficient in a closure) are refused as soon as
    inference takes gradients in them: NUTS, HMC, Langevin kernels, and SVI with reparameterized
    guides.

    :param energy: ``f``, from ``(*, Q)`` to ``(*,)``; a network or any callable.
    :param reference: ``π0``, a distribution of event shape ``(Q,)``, or univariate of batch shape
        ``(*batch, Q)``. Chains of a bounded one run in unconstrained coordinates.
    :param sampler: how draws are made from those of the reference.
    :param num_negatives: draws for the negative phase.
    :param validate_args: whether to check values given to ``log_prob``.
    :raises ValueError: for a reference without latents, an energy of the wrong shape, values that
        are not finite, and an energy with latent parameters.
    :raises TypeError: for arguments of another kind.

    >>> prior = JointEnergy(lambda z: -z.square().sum(-1),
    ...     torch.distributions.Normal(torch.zeros(3), 1.0))
    >>> prior.event_shape, prior.sample((5,)).shape
    (torch.Size([3]), torch.Size([5, 3]))
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    @in_full_precision
    def __init__(
        self,
        energy: JointFunction,
        reference: Distribution,
        *,
        sampler: ShortRunULA | PersistentULA | None = None,
        num_negatives: int = 100,
        validate_args: bool | None = None,
    ) -> None:
        function("energy", energy, "z")
        if sampler is not None and not callable(sampler):
            raise TypeError(f"sampler must be a sampler or None, got {type(sampler).__name__}")
        whole_number("num_negatives", num_negatives, 1)
        self.energy = energy
        self.sampler = ShortRunULA() if sampler is None else sampler
        self.reference = _joint_reference(reference)
        super().__init__(
            self.reference.batch_shape, self.reference.event_shape, validate_args=validate_args
        )
        probe = self._check_energy()
        self.negatives = None
        if torch.is_grad_enabled() and probe.requires_grad and _PARAMETERS_LEARN.get():
            self.negatives = self._draw_negatives(num_negatives, probe)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint | None:
        """The reference's."""
        return self.reference.support

    def _check_energy(self) -> Tensor:
        transform = biject_to(self.reference.support)
        like = next(filter(torch.is_floating_point, tensors_of(self.reference)), torch.empty(()))
        shape = transform.inverse_shape(self.batch_shape + self.event_shape)
        middle = transform(like.new_zeros(shape))
        with pyro.poutine.block(), pyro.poutine.trace() as tracing:
            value = self.energy(middle)
        _refuse_latent(
            [name for name, site in tracing.trace.nodes.items() if site["type"] == "sample"]
        )
        if not isinstance(value, Tensor) or value.shape != middle.shape[:-1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"energy must return shape {tuple(middle.shape[:-1])} for z of shape "
                f"{tuple(middle.shape)}, got {got}"
            )
        if is_concrete(value) and not bool(value.isfinite().all()):
            raise ValueError(
                "energy must be finite at the middle of the support, got NaN or infinite values"
            )
        _refuse_latent(_sites_behind(value))
        return value

    def _draw_negatives(self, count: int, probe: Tensor) -> Tensor:
        if _functorch.is_functorch_wrapped_tensor(probe):
            return self.sample((count,))
        # vmap would refuse the noise, which all of its elements share
        with temporarily_clear_interpreter_stack():
            return self.sample((count,))

    @in_full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        """
        Return ``f(z) + log π0(z)`` ``-(m - stop_grad(m))``, where ``m`` is the mean of ``f`` over
        the negatives.

        :param value: shape ``(*sample, *batch_shape, Q)``.
        :return: that shape without its last dimension.
        :raises ValueError: with ``validate_args``, for values outside the support.
        """
        self._check_value(value)
        if not value.numel():  # which torch's Independent does not score
            raise ValueError(f"value must not be empty, got shape {tuple(value.shape)}")
        log_prob = self.energy(value) + self.reference.log_prob(value)
        if self.negatives is None or not torch.is_grad_enabled():
            return log_prob
        mean = self.energy(self.negatives).mean(0)
        return log_prob - (mean - mean.detach())

    @in_full_precision
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """
        Draw by running the sampler from the reference. The draws are approximate, because the run
        is short and unadjusted.

        :param sample_shape: shape of independent chains.
        :return: shape ``(*sample_shape, *batch_shape, Q)``, detached.
        """
        transform = biject_to(self.reference.support)
        start = transform.inv(self.reference.sample(shape("sample_shape", sample_shape)))
        return transform(self.sampler(partial(self._unconstrained, weight=1.0), start)).detach()

    @in_full_precision
    def estimate_log_normalizer(
        self, num_particles: int = 1000, num_temperatures: int = 100, step_size: float = 0.1
    ) -> Estimate:
        """
        Estimate ``log ∫ exp(f) π0`` by annealed importance sampling from the reference (Neal 2001),
        with MALA moves.

        :param num_particles: independent paths.
        :param num_temperatures: temperatures, equally spaced from 0 to 1, with one move at each but
            the first and last.
        :param step_size: ``η`` of the moves, in unconstrained coordinates.
        :return: value and standard error, in nats, shape ``batch_shape``.
        :raises ValueError: for less than two paths or temperatures and a step size that is not
            positive and finite.

        >>> prior = JointEnergy(lambda z: 0 * z.sum(-1), torch.distributions.Normal(torch.zeros(2),
        ...     1.0))
        >>> print(f"{prior.estimate_log_normalizer(10, 3).value:.3f}")
        0.000
        """
        for name, value in (
            ("num_particles", num_particles),
            ("num_temperatures", num_temperatures),
        ):
            whole_number(name, value, 2)
        number("step_size", step_size, 0)
        transform = biject_to(self.reference.support)
        position = transform.inv(self.reference.sample(torch.Size((num_particles,))))
        tuning = _tuning(step_size, position)
        step = 1 / (num_temperatures - 1)
        log_weights = torch.zeros_like(position[..., 0])
        for index in range(num_temperatures - 1):
            if index > 0:
                target = _Target(partial(self._unconstrained, weight=index * step))
                point = target(position)
                position = mala_step(point, target, tuning, Noise.draw(point, 1))[0].position
            with torch.no_grad():
                log_weights = log_weights + step * self.energy(transform(position))
        return importance(log_weights.movedim(0, -1))

    def _unconstrained(self, x: Tensor, weight: float) -> Tensor:
        """Return ``weight f(z) + log π0(z)`` plus the log Jacobian, at unconstrained ``x``."""
        transform = biject_to(self.reference.support)
        z = transform(x)
        jacobian = transform.log_abs_det_jacobian(x, z)
        extra = jacobian.dim() - (x.dim() - 1)
        jacobian = jacobian.flatten(-extra).sum(-1) if extra > 0 else jacobian
        return weight * self.energy(z) + self.reference.log_prob(z) + jacobian

    def expand(self, batch_shape: Any, _instance: Any = None) -> "JointEnergy":
        """
        Return the distribution with a larger batch shape; negatives are shared.

        :param batch_shape: shape to which ``batch_shape`` broadcasts.
        :raises ValueError: for a shape to which it does not.
        """
        batch_shape = expanded_shape(self.batch_shape, batch_shape)
        new: JointEnergy = self._get_checked_instance(JointEnergy, _instance)
        new.energy = self.energy
        new.sampler = self.sampler
        new.negatives = self.negatives
        new.reference = self.reference.expand(batch_shape)
        super(JointEnergy, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @classmethod
    def infer_shapes(cls, **shapes: torch.Size) -> tuple[torch.Size, torch.Size]:
        """
        Return the batch and event shape from the shapes of the arguments.

        :param shapes: full shape of a draw from ``reference``; ``energy`` has none.
        """
        shape = torch.broadcast_shapes(*shapes.values())
        return shape[:-1], shape[-1:]


def _joint_reference(reference: Distribution) -> Distribution:
    if not isinstance(reference, Distribution):
        raise TypeError(f"reference must be a distribution, got {type(reference).__name__}")
    if not reference.event_shape and reference.batch_shape:
        reference = Independent(reference, 1)
    if (
        len(reference.event_shape) != 1
        or reference.support is None
        or reference.support.is_discrete
    ):
        raise ValueError(
            f"reference must be a continuous distribution of event shape (Q,), got {reference}"
        )
    return copied(reference)


def _refuse_latent(names: list[str]) -> None:
    if names:
        raise ValueError(f"energy must have no sampled parameters, got latent ones {names}")


def _sites_behind(value: Tensor) -> list[str]:
    """
    Return the sample sites of the model being traced on which a tensor depends, as far as gradients
    tell.
    """
    value = _without_vmap(value)
    sites: dict[str, Tensor] = {}
    for handler in _PYRO_STACK:
        if isinstance(handler, TraceMessenger):
            drawn = {
                name: site["value"]
                for name, site in handler.trace.nodes.items()
                if site["type"] == "sample"
            }
            sites |= {
                name: _without_vmap(each)
                for name, each in drawn.items()
                if isinstance(each, Tensor)
            }
    sites = {name: each for name, each in sites.items() if each.requires_grad}
    if not sites or not value.requires_grad:
        return []
    wrapped = _functorch.is_functorch_wrapped_tensor(value)
    with nullcontext() if wrapped else temporarily_clear_interpreter_stack():
        slopes = torch.autograd.grad(
            value.sum(), tuple(sites.values()), retain_graph=True, allow_unused=True
        )
    return [name for name, slope in zip(sites, slopes, strict=True) if slope is not None]


def _without_vmap(tensor: Tensor) -> Tensor:
    """Return what vmap maps over, since its slices don't tell whether that requires gradients."""
    while _functorch.is_batchedtensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


@dataclass(frozen=True)
class _Target:
    """A log density with its gradient, as the Langevin steps want it."""

    function: JointFunction

    def __call__(self, position: Tensor, rows: Tensor | None = None) -> Point:
        position = position.detach().requires_grad_()
        with torch.enable_grad():
            value = self.function(position)
            (gradient,) = torch.autograd.grad(value.sum(), position)
        return Point(position.detach(), value.detach(), gradient)

    def log_density(self, position: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            return self.function(position)


def _tuning(step_size: float, like: Tensor) -> Tuning:
    size = torch.tensor(step_size, dtype=like.dtype, device=like.device)
    return Tuning(size, torch.ones(like.shape[-1], dtype=like.dtype, device=like.device))
