"""The thermodynamic Kolmogorov-Arnold model as a PyroModule that is a Pyro model."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_tkam import _checks
from pyro_tkam._threads import PYRO, in_turn
from pyro_tkam.distributions import PersistentULA, ShortRunULA
from pyro_tkam.infer import ImportanceSampling
from pyro_tkam.models._draws import undone_by_errors
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models._reach import tell_of_values_out_of_reach
from pyro_tkam.models.apart import dims_apart
from pyro_tkam.models.kart import KARTGenerator, LatentGenerator
from pyro_tkam.models.likelihood import Likelihood
from pyro_tkam.models.network import NetworkOptions, reference_moments
from pyro_tkam.models.prior import (
    JointPrior,
    MixturePrior,
    TiltedPrior,
    check_reweighing,
    update_grids,
)
from pyro_tkam.nn import (
    KAN,
    AutoregressivePrior,
    GridUpdate,
    SequenceEncoder,
    SequenceGenerator,
)
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.encoder import sinusoids
from pyro_tkam.nn.univariate import all_or_none
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._precision import at_least_single

if TYPE_CHECKING:
    from pyro_tkam.models.seq2seq import Seq2SeqTKAM


def _independent(prior: Any) -> Tensor:
    """
    Draw each latent from its own density. The prior then learns through its log density.
    """
    return pyro.sample("z", prior.to_event(len(prior.batch_shape)))


def _shared(prior: Any) -> Tensor:
    """
    Push one uniform per inner index through all its inverse CDFs. The prior then learns through
    gradients of the draws (pathwise).
    """
    if len(prior.batch_shape) < 2:  # plates may add dimensions, so more than two are allowed
        raise ValueError(
            "coupling must be 'independent' for a prior whose batch shape is not (Q, P), got "
            f"'shared' for {tuple(prior.batch_shape)}"
        )
    uniform = dist.Uniform(prior.low.new_zeros(()), prior.low.new_ones(()))
    u = pyro.sample("u", uniform.expand(prior.batch_shape[-1:]).to_event(1))
    return prior.icdf(u.unsqueeze(-2))


COUPLINGS: dict[str, Callable[[Any], Tensor]] = {"independent": _independent, "shared": _shared}


class TKAM(PyroModule):
    """
    A latent variable model: a learned, exactly samplable prior, a generator, and a likelihood
    around its output.

    ``z ~ Π_{q,p} p_{q,p}`` (``coupling="independent"``; Raj 2025, arXiv:2506.14167, Eq. 9), or
    ``u ~ U(0, 1)^P`` and ``z_{q,p} = F_{q,p}^{-1}(u_p)`` (``coupling="shared"``, strictly the
    Kolmogorov-Arnold representation, Eq. 1-3); then ``x ~ likelihood(generator(z))``. Sites:
    ``"z"`` (or ``"u"``) and ``"x"``, in the plate ``"data"``.

    :param prior: module that returns the current prior when called without arguments, such as
        ``TiltedPrior``, or any callable that does so.
    :param generator: module from latents ``(*batch, *latent)`` to ``(*batch, *event)``.
    :param likelihood: module from the generator's output to a distribution of data.
    :param coupling: ``"independent"`` or ``"shared"``.
    :raises ValueError: for an unknown coupling.
    :raises TypeError: for parts that cannot be called.

    >>> model = TKAM.kart(784, latent_dim=4, coupling="shared")
    >>> model.generate(3).shape
    torch.Size([3, 784])
    """

    _held: Any = None  # the prior, while several runs of the model share it

    def __init__(
        self,
        prior: Callable[[], Any],
        generator: Callable[[Tensor], Tensor],
        likelihood: Callable[[Tensor], Any],
        coupling: str = "independent",
    ) -> None:
        super().__init__()
        _checks.one_of("coupling", coupling, COUPLINGS)
        for name, part in (("prior", prior), ("generator", generator), ("likelihood", likelihood)):
            if not callable(part):
                raise TypeError(f"{name} must be a callable, got {type(part).__name__}")
        self.coupling = coupling
        self.prior = prior
        self.generator = generator
        self.likelihood = likelihood

    @classmethod
    @undone_by_errors()
    def kart(
        cls,
        data_shape: int | Sequence[int],
        latent_dim: int = 40,
        *,
        coupling: str = "independent",
        reference: str = "uniform",
        basis: str = "rbf",
        grid_size: int = 20,
        widths: Sequence[int] | None = None,
        noise_scale: float = 1.0,
        output: str = "sigmoid",
        layer_norm: bool = True,
        **options: Any,
    ) -> "TKAM":
        """
        Make the model of the representation theorem: ``Q = 2P + 1`` sums of ``P`` latents and a KAN
        generator.

        :param data_shape: shape of one datum, an int or a tuple.
        :param latent_dim: number ``P`` of inner indices.
        :param coupling: ``"independent"`` or ``"shared"``.
        :param reference: name of the reference density.
        :param basis: basis of energies and generator.
        :param grid_size: grid size of both.
        :param widths: hidden widths of the generator; None takes one layer of ``2 Q``.
        :param noise_scale: standard deviation of the Gaussian likelihood.
        :param output: ``"sigmoid"`` for data in [0, 1], or ``"none"``.
        :param layer_norm: normalize hidden features; without it, :meth:`prune` can remove hidden
            nodes.
        :param options: see :class:`~pyro_tkam.models.NetworkOptions`.
        :raises ValueError: for sizes below one and unknown names.

        >>> TKAM.kart((8, 8), latent_dim=3)(size=2).shape
        torch.Size([2, 8, 8])
        """
        shape = _data_shape(data_shape, latent_dim)
        outer = 2 * latent_dim + 1
        more = NetworkOptions.checked("TKAM.kart", cls.kart, options)
        functions: dict[str, Any] = {"basis": basis, "grid_size": grid_size}
        prior = TiltedPrior((outer, latent_dim), reference, **functions, **more.energies())
        network = more.network(
            outer, shape, widths=widths, output=output, layer_norm=layer_norm, **functions
        )
        mean, variance = reference_moments(reference)
        spread = math.sqrt(variance * latent_dim)
        generator = KARTGenerator(network, shape, mean=mean * latent_dim, spread=spread)
        return cls(prior, generator, more.likelihood(noise_scale, shape), coupling)

    @classmethod
    @undone_by_errors()
    def mixture(
        cls,
        data_shape: int | Sequence[int],
        latent_dim: int = 81,
        num_components: int = 40,
        *,
        reference: str = "uniform",
        basis: str = "rbf",
        grid_size: int = 20,
        widths: Sequence[int] | None = None,
        noise_scale: float = 1.0,
        output: str = "sigmoid",
        layer_norm: bool = True,
        **options: Any,
    ) -> "TKAM":
        """
        Make the model whose prior is a mixture: the sum over inner indices moves from the generator
        into the prior (Eq. 12).

        :param data_shape: shape of one datum, an int or a tuple.
        :param latent_dim: number ``Q`` of latents.
        :param num_components: number ``P`` of components of each latent's mixture.
        :param reference: name of the reference density.
        :param basis: basis of energies and generator.
        :param grid_size: grid size of both.
        :param widths: hidden widths of the generator; None takes one layer of ``2 Q``.
        :param noise_scale: standard deviation of the Gaussian likelihood.
        :param output: ``"sigmoid"`` for data in [0, 1], or ``"none"``.
        :param layer_norm: normalize hidden features; without it, :meth:`prune` can remove hidden
            nodes.
        :param options: see :class:`~pyro_tkam.models.NetworkOptions`.
        :raises ValueError: for sizes below one and unknown names.

        >>> TKAM.mixture((8, 8), latent_dim=5, num_components=3)(size=2).shape
        torch.Size([2, 8, 8])
        """
        shape = _data_shape(data_shape, latent_dim)
        num_components = _checks.whole_number("num_components", num_components, 1)
        more = NetworkOptions.checked("TKAM.mixture", cls.mixture, options)
        functions: dict[str, Any] = {"basis": basis, "grid_size": grid_size}
        prior = MixturePrior(
            TiltedPrior((latent_dim, num_components), reference, **functions, **more.energies())
        )
        network = more.network(
            latent_dim, shape, widths=widths, output=output, layer_norm=layer_norm, **functions
        )
        mean, variance = reference_moments(reference)
        generator = LatentGenerator(network, shape, mean=mean, spread=math.sqrt(variance))
        return cls(prior, generator, more.likelihood(noise_scale, shape))

    @classmethod
    @undone_by_errors()
    def autoregressive(
        cls,
        data_shape: int | Sequence[int],
        latent_dim: int = 81,
        blocks: int | Sequence[int] | None = None,
        *,
        context: str = "perceptron",
        context_widths: Sequence[int] = (300, 300),
        basis: str = "rbf",
        grid_size: int = 8,
        widths: Sequence[int] | None = None,
        noise_scale: float = 0.4,
        output: str = "sigmoid",
        layer_norm: bool = True,
        **options: Any,
    ) -> "TKAM":
        """
        Make the model with ordered latents, each a tilted Gaussian given the earlier ones.

        The prior is :class:`~pyro_tkam.nn.AutoregressivePrior` on 16 radial functions. Like the
        other priors, it is exactly normalized and exactly sampled, and it can represent all of
        them. Train it with a guide: with many latents, importance sampling from any prior is poor.

        :param data_shape: shape of one datum, an int or a tuple.
        :param latent_dim: number ``Q`` of latents.
        :param blocks: number of blocks, or their sizes; 1 gives the independent prior, a few give a
            hierarchy of layers, None is fully autoregressive.
        :param context: network of the context, ``"perceptron"`` or ``"kan"``.
        :param context_widths: hidden widths of that network.
        :param basis: basis of the generator.
        :param grid_size: grid of the generator.
        :param widths: hidden widths of the generator; None takes one layer of ``2 Q``.
        :param noise_scale: standard deviation of the Gaussian likelihood.
        :param output: ``"sigmoid"`` for data in [0, 1], or ``"none"``.
        :param layer_norm: normalize hidden features of the generator.
        :param options: see :class:`~pyro_tkam.models.NetworkOptions`.
        :raises ValueError: for sizes below one, blocks that do not sum to ``latent_dim`` and
            unknown names.

        >>> TKAM.autoregressive((8, 8), latent_dim=5, context_widths=(8,))(size=2).shape
        torch.Size([2, 8, 8])
        """
        shape = _data_shape(data_shape, latent_dim)
        context_widths = _checks.sizes("context_widths", context_widths)
        prior = AutoregressivePrior(latent_dim, blocks, context=context, hidden=context_widths)
        more = NetworkOptions.checked("TKAM.autoregressive", cls.autoregressive, options)
        if more.energy_constraint != "none":
            raise ValueError(
                "energy_constraint must be 'none' for an autoregressive prior, whose energies "
                f"depend on a context, got {more.energy_constraint!r}"
            )
        network = more.network(
            latent_dim,
            shape,
            widths=widths,
            output=output,
            layer_norm=layer_norm,
            basis=basis,
            grid_size=grid_size,
        )
        generator = LatentGenerator(network, shape, mean=0.0, spread=1.0)
        return cls(prior, generator, more.likelihood(noise_scale, shape))

    @classmethod
    @undone_by_errors()
    def deep(
        cls,
        data_shape: int | Sequence[int],
        latent_dim: int = 100,
        *,
        sampler: ShortRunULA | PersistentULA | None = None,
        basis: str = "rbf",
        grid_size: int = 20,
        energy_widths: Sequence[int] | None = None,
        widths: Sequence[int] | None = None,
        noise_scale: float = 1.0,
        output: str = "sigmoid",
        layer_norm: bool = True,
        **options: Any,
    ) -> "TKAM":
        """
        Make the model with one multilayer energy over all latents, sampled by Langevin dynamics
        (Eq. 14).

        :param data_shape: shape of one datum, an int or a tuple.
        :param latent_dim: number ``Q`` of latents; their reference is standard normal.
        :param sampler: see :class:`~pyro_tkam.distributions.JointEnergy`; None takes its default.
        :param basis: basis of energy and generator.
        :param grid_size: grid size of both.
        :param energy_widths: hidden widths of the energy; None takes one layer of ``2 Q``.
        :param widths: hidden widths of the generator; None takes one layer of ``2 Q``.
        :param noise_scale: standard deviation of the Gaussian likelihood.
        :param output: ``"sigmoid"`` for data in [0, 1], or ``"none"``.
        :param layer_norm: normalize hidden features; without it, :meth:`prune` can remove hidden
            nodes.
        :param options: see :class:`~pyro_tkam.models.NetworkOptions`.
        :raises ValueError: for sizes below one and unknown names.

        >>> TKAM.deep((8, 8), latent_dim=5)(size=2).shape
        torch.Size([2, 8, 8])
        """
        shape = _data_shape(data_shape, latent_dim)
        more = NetworkOptions.checked("TKAM.deep", cls.deep, options)
        functions: dict[str, Any] = {
            "basis": basis,
            "grid_size": grid_size,
            "layer_norm": layer_norm,
        }
        energy_hidden = (
            (2 * latent_dim,)
            if energy_widths is None
            else _checks.sizes("energy_widths", energy_widths)
        )
        energy = KAN(
            [latent_dim, *energy_hidden, 1],
            bias=False,
            **functions,
            **more.energies(),
        )
        network = more.network(latent_dim, shape, widths=widths, output=output, **functions)
        generator = LatentGenerator(network, shape, mean=0.0, spread=1.0)
        prior = JointPrior(energy, latent_dim, sampler=sampler)
        return cls(prior, generator, more.likelihood(noise_scale, shape))

    @staticmethod
    @undone_by_errors()
    def seq2seq(
        num_source: int,
        num_target: int,
        *,
        max_source: int,
        max_target: int,
        latent_dim: int = 16,
        blocks: int | Sequence[int] | None = None,
        width: int = 128,
        num_heads: int = 4,
        num_layers: int = 2,
        source_layers: int = 1,
        context_widths: Sequence[int] = (64, 64),
    ) -> "Seq2SeqTKAM":
        """
        Make the model of two sequences that share one latent; see
        :class:`~pyro_tkam.models.Seq2SeqTKAM`.

        The prior is :class:`~pyro_tkam.nn.AutoregressivePrior`. Symbol 0 ends a sequence and pads
        it, and symbol 1 stands for unknown symbols. Train it with
        :class:`~pyro_tkam.models.PairGuide` and :class:`~pyro_tkam.models.PairELBO`.

        :param num_source: number of symbols of the source, including 0 and 1.
        :param num_target: number of symbols of the target, including 0 and 1.
        :param max_source: largest number of symbols in a source.
        :param max_target: largest number of symbols in a target.
        :param latent_dim: number ``Q`` of latents.
        :param blocks: number of blocks of latents, or their sizes; None is fully autoregressive.
        :param width: features per position.
        :param num_heads: heads of each attention.
        :param num_layers: layers of the source's encoder and of the target's decoder.
        :param source_layers: layers of the source's decoder.
        :param context_widths: hidden widths of the prior's network.
        :raises ValueError: for sizes below one, a width that the heads do not divide, and blocks
            that do not sum to ``latent_dim``.

        >>> model = TKAM.seq2seq(7, 9, max_source=5, max_target=6, latent_dim=3, width=8,
        ...     num_heads=2, context_widths=(8,))
        >>> [sequences.shape for sequences in model.generate(4)]
        [torch.Size([4, 5]), torch.Size([4, 6])]
        """
        from pyro_tkam.models.seq2seq import Seq2SeqTKAM  # it needs this module

        for name, number in (("num_source", num_source), ("num_target", num_target)):
            _checks.whole_number(name, number, 2)
        for name, number in (("max_source", max_source), ("max_target", max_target)):
            _checks.whole_number(name, number, 1)
        _checks.whole_number("source_layers", source_layers, 1)
        context_widths = _checks.sizes("context_widths", context_widths)
        sizes: dict[str, Any] = {"width": width, "num_heads": num_heads}
        target = SequenceGenerator(
            latent_dim, num_target, max_target, num_layers=num_layers, adds_latent=True, **sizes
        )
        with torch.no_grad():  # same positions as the encoder, to attend to nearby symbols
            target.position.copy_(sinusoids(max_target, width))
        return Seq2SeqTKAM(
            AutoregressivePrior(latent_dim, blocks, hidden=context_widths),
            SequenceGenerator(
                latent_dim, num_source, max_source, num_layers=source_layers, **sizes
            ),
            SequenceEncoder(num_source, max_source, num_layers=num_layers, **sizes),
            target,
        )

    def forward(self, x: Tensor | None = None, size: int | None = None) -> Tensor:
        """
        Run the generative process.

        :param x: a mini-batch of data, shape ``(batch, *event)``, or None to draw data.
        :param size: with ``x``, the length of the whole data set, which sets the scale of the
            plate; without, the number of rows to draw.
        :return: ``x``, or the rows drawn.
        :raises ValueError: for an empty batch, data that are not finite or of the wrong shape, a
            missing or too small ``size``, and ``coupling="shared"`` with a prior without inner
            indices.
        :raises TypeError: for data whose dtype differs from the generator's output.
        """
        tell_of_other_parameters(self)
        rows, size = check_sizes(x, size)
        prior = self.prior() if self._held is None else self._held
        with pyro.plate("data", size, subsample=torch.arange(rows) if rows < size else None):
            location = at_least_single(self.generator(COUPLINGS[self.coupling](prior)))
            likelihood = self.likelihood(location)
            if x is not None:
                check_rows(
                    x,
                    likelihood.event_shape,
                    None if takes_integers(self.likelihood) else location.dtype,
                )
                tell_of_values_out_of_reach(self.generator, self.likelihood, x)
            return pyro.sample("x", likelihood, obs=x)

    @property
    def dims_apart(self) -> int | None:
        """
        Number of dimensions of one datum's latent site for which no shape can couple data; None if
        that is not known.
        """
        dims = dims_apart(self.prior, self.generator, self.likelihood)
        if self.coupling == "shared":  # a prior over (Q, P) draws P uniforms
            return 1 if dims == 2 else None
        return dims

    @contextmanager
    def holding_prior(self) -> Iterator[None]:
        """
        Compute the prior once, without gradients of its parameters, for all runs of the model
        inside.

        Do not change the prior's parameters inside. If they are random (``PyroSample``), each run
        computes its own prior, as it does outside.
        """
        with torch.no_grad(), pyro.poutine.block(), pyro.poutine.trace() as tracer:
            prior = self.prior()
        sites = tracer.trace.nodes.values()
        self._held = None if any(site["type"] == "sample" for site in sites) else prior
        try:
            yield
        finally:
            self._held = None

    def generate(self, num: int, *, differentiable: bool = False) -> Tensor:
        """
        Draw new data without the likelihood's noise: the likelihood's mean at prior draws, which is
        the generator's output for a Gaussian likelihood. Texts are sampled, because they have no
        mean. Threads that call this at the same time wait for each other.

        :param num: number of rows.
        :param differentiable: keep the graph, for a penalty on generated data: gradients reach the
            generator and, through exact draws, the prior.
        :return: shape ``(num, *event)``.
        :raises ValueError: for fewer than one row.
        """
        check_sizes(None, num, "num")
        _checks.flag("differentiable", differentiable)
        with PYRO, torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            with pyro.poutine.block(), pyro.plate("data", num):
                output = self.generator(COUPLINGS[self.coupling](self.prior()))
            return (
                self.likelihood.noiseless(output)
                if isinstance(self.likelihood, Likelihood)
                else output
            )

    @in_turn
    @torch.no_grad()
    def update_grid(self, num_samples: int = 100, **options: Any) -> tuple[GridUpdate, ...]:
        """
        Update the grids of prior and generator from prior draws. If an update raises an error, no
        grid changes.

        :param num_samples: number of draws.
        :param options: as in :meth:`pyro_tkam.nn.UnivariateFunctions.update_grid`, except for
            ``widen``.
        :return: one update for each bank of functions; parts without grids have none.
        :raises ValueError: for fewer than one draw, and as in that method.
        """
        check_sizes(None, num_samples, "num_samples")
        with (
            undone_by_errors(),
            all_or_none(self),
            pyro.poutine.block(),
            pyro.plate("data", num_samples),
        ):
            z = COUPLINGS[self.coupling](self.prior())
            return update_grids(self.prior, z, **options) + update_grids(
                self.generator, z, **options
            )

    @in_turn
    def reweigh(
        self, x: Tensor, *, penalty: float = 0.0, size: int | None = None, num_particles: int = 200
    ) -> Tensor:
        """
        Set the weights of a mixture prior from posterior draws, so that only a few components
        remain.

        See :meth:`MixturePrior.reweigh`. The posterior draws are weighted prior draws, without a
        guide.

        :param x: data, shape ``(batch, *event)``.
        :param penalty: components that explain fewer data than this get weight 0.
        :param size: length of the whole data set; None takes that of the batch.
        :param num_particles: number of draws.
        :return: the number of data that each component explains.
        :raises TypeError: for a prior that is not a mixture.
        """
        if not isinstance(self.prior, MixturePrior):
            raise TypeError(f"prior must be a MixturePrior, got {type(self.prior).__name__}")
        check_reweighing(penalty, size)
        draws = ImportanceSampling(self, None, num_particles).run(x)
        return self.prior.reweigh(draws.values["z"], draws.weights, penalty=penalty, size=size)

    @in_turn
    def prune(self, threshold: float, num_samples: int = 1000) -> "TKAM":
        """
        Return a smaller model: a generator without the edges and nodes that contribute little to
        its outputs, and a mixture without the components of small weight.

        See :meth:`pyro_tkam.nn.KAN.prune`, applied at prior draws, and :meth:`MixturePrior.prune`.
        Parts without such a method are copied. If the removed parts contributed nothing, the model
        stays the same up to rounding.

        :param threshold: smallest attribution of an edge and of a hidden node, and smallest weight
            of a component, to keep.
        :param num_samples: number of draws.
        :raises ValueError: for a threshold that is negative, empties a layer or, with a mixture, is
            above 1, and for fewer than one draw.

        >>> model = TKAM.mixture(4, latent_dim=3, num_components=5, layer_norm=False)
        >>> with torch.no_grad():
        ...     model.prior.logits[:, 2:] = -20.0
        >>> model.prune(1e-6).prior.logits.shape
        torch.Size([3, 2])
        """
        check_sizes(None, num_samples, "num_samples")
        _checks.number("threshold", threshold, at_least=0.0)
        pruned = unseen_copy(self)
        if isinstance(pruned.prior, MixturePrior):
            pruned.prior = pruned.prior.prune(threshold)
        if isinstance(pruned.generator, LatentGenerator):
            draws = unseen_copy(self)
            runs = pyro.plate("data", num_samples)
            with torch.no_grad(), unseen(draws), pyro.poutine.block(), runs:
                z = COUPLINGS[self.coupling](draws.prior())
            pruned.generator = pruned.generator.prune(z, threshold)
        return pruned


def _data_shape(data_shape: int | Sequence[int], latent_dim: int) -> tuple[int, ...]:
    whole = data_shape if isinstance(data_shape, Sequence) else (data_shape,)
    shape = _checks.sizes("data_shape", whole)
    if not shape:
        raise ValueError("data_shape must have at least one dimension, got ()")
    _checks.whole_number("latent_dim", latent_dim, 1)
    return shape


def takes_integers(likelihood: Any) -> bool:
    return isinstance(likelihood, Likelihood) and likelihood.takes_integers


def check_rows(
    x: Tensor, event_shape: torch.Size, dtype: torch.dtype | None, name: str = "x"
) -> None:
    """
    Check data against the likelihood. Without a dtype, the data are integers, which the likelihood
    checks itself.
    """
    if x.shape[1:] != event_shape:
        raise ValueError(
            f"{name} must have rows of shape {tuple(event_shape)}, got {tuple(x.shape[1:])}"
        )
    if dtype is not None and x.dtype != dtype:
        raise TypeError(
            f"{name} must have the dtype of the generator's output, {dtype}, got {x.dtype}"
        )


def check_sizes(
    x: Tensor | None, size: int | None, name: str = "size", data_name: str = "x"
) -> tuple[int, int]:
    """
    Check a mini-batch; return its number of rows and that of the whole data set. ``name`` is the
    name of the ``size`` argument, ``data_name`` that of ``x``.
    """
    if size is not None:
        size = _checks.whole_number(name, size, 1)
    if x is None:
        if size is None:
            raise ValueError(f"{name} must be the number of rows to draw, at least 1, got None")
        return size, size
    dense(data_name, x)
    if x.dim() < 1 or len(x) == 0:
        raise ValueError(
            f"{data_name} must have shape (batch, *event) with at least one row, got "
            f"{tuple(x.shape)}"
        )
    if is_concrete(x) and not bool(torch.isfinite(x).all()):
        raise ValueError(f"{data_name} must be finite, got NaN or infinite elements")
    if size is not None and size < len(x):
        raise ValueError(f"size must be at least the {len(x)} rows of the mini-batch, got {size}")
    return len(x), len(x) if size is None else size
