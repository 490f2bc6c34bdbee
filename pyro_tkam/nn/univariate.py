"""Banks of univariate functions: the energies of priors and the edges of networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from pyro.nn import PyroModule, pyro_method
from torch import Tensor, nn

from pyro_tkam._checks import LARGEST_FLOAT
from pyro_tkam.nn import _checks, regularizers
from pyro_tkam.nn._unseen import unseen, unseen_copy
from pyro_tkam.nn.basis import Basis
from pyro_tkam.nn.constraints import constraint_of
from pyro_tkam.nn.forms import LibraryLike
from pyro_tkam.nn.functions import BoundFunctions
from pyro_tkam.nn.grids import GridUpdate, check_learned, update_grid
from pyro_tkam.nn.optimizers import reshaped
from pyro_tkam.nn.symbolic import NUM_ARGUMENTS, Candidate, fit_formulas
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops.bases import BasisFunctions
from pyro_tkam.ops.bases.regrid import refined_knots

#: base functions by the user's name
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
    "identity": torch.clone,
}


class UnivariateFunctions(PyroModule):
    r"""
    A bank of univariate functions, one for each element of ``batch_shape``.

    .. math:: φ(s) = w_b\,\mathrm{act}(s) + w_s \sum_i c_i B_i(s)

    (Raj 2025, arXiv:2506.14167, Sec. 3.1, after Liu et al. 2024). Polynomial bases have only the
    sum. Initial values: :math:`w_b = (μ + σ_b U(-1, 1))/\sqrt{n}`, :math:`w_s = σ_s/\sqrt{n}`, and
    coefficients fitted to noise :math:`U(-½, ½)·` ``noise_scale`` :math:`/F`, where :math:`F` is
    the number of functions.

    Functions with a ``constraint`` have only the sum, too. They satisfy the constraint exactly for
    any parameters, and their grid is fixed.

    :ivar coefficients: parameter, ``(*batch_shape, num_functions)``. This parameter and the next
        two can be replaced by a ``PyroSample`` of the same shape.
    :ivar scale: parameter :math:`w_s`, ``batch_shape``; None for polynomials and constraints.
    :ivar base_weight: parameter :math:`w_b`, ``batch_shape``; None for polynomials and constraints.
    :ivar mask: buffer of bools, ``batch_shape``: masked functions are zero and are not trained.

    :param batch_shape: an int or a tuple: the shape of the bank.
    :param basis: name of the basis, see :class:`~pyro_tkam.nn.Basis`.
    :param low: lower end of the grid.
    :param high: upper end of the grid.
    :param grid_size: size of the grid, see :class:`~pyro_tkam.nn.Basis`.
    :param degree: degree of splines and polynomials.
    :param width: relative width of the basis functions.
    :param trainable_width: train the width, which the whole bank shares.
    :param activation: the base function: ``"silu"``, ``"tanh"`` or ``"identity"``.
    :param fan_in: number :math:`n` of functions that are summed into one output.
    :param noise_scale: size of the noise in the initial coefficients.
    :param base_mean: :math:`μ`.
    :param base_spread: :math:`σ_b`.
    :param spline_scale: :math:`σ_s`.
    :param extrapolation: what B-splines do outside the grid: with ``"zero"``, they fall to zero
        within a few steps; with ``"linear"``, they continue as straight lines. Other bases continue
        with their formula.
    :param constraint: ``"none"``; ``"increasing"`` or ``"decreasing"`` (B-splines; inside the grid,
        and outside with ``extrapolation="linear"``); ``"even"`` around the middle of the interval;
        or ``"periodic"`` (Fourier series).
    :param periods: number of periods of periodic functions in the interval.
    :raises ValueError: for an unknown name (the error lists the known ones), an empty interval, or
        a size that is too small.

    >>> bank = UnivariateFunctions((81, 40), basis="rbf", low=0.0, high=1.0, grid_size=20)
    >>> energy = bank.bound()
    >>> energy(torch.linspace(0, 1, 7).reshape(7, 1, 1)).shape
    torch.Size([7, 81, 40])
    """

    mask: Tensor

    def __init__(
        self,
        batch_shape: int | tuple[int, ...],
        basis: str | type[BasisFunctions] = "rbf",
        low: float = 0.0,
        high: float = 1.0,
        grid_size: int = 20,
        degree: int = 3,
        *,
        width: float | None = None,
        trainable_width: bool = False,
        activation: str = "silu",
        fan_in: int = 1,
        noise_scale: float = 0.1,
        base_mean: float = 0.0,
        base_spread: float = 1.0,
        spline_scale: float = 1.0,
        extrapolation: str = "zero",
        constraint: str = "none",
        periods: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(batch_shape, int | tuple | list):
            raise TypeError(f"batch_shape must be an int or a tuple of ints, got {batch_shape!r}")
        shape = (batch_shape,) if isinstance(batch_shape, int) else tuple(batch_shape)
        self.batch_shape = torch.Size([_checks.integer("batch_shape", size, 1) for size in shape])
        self._activation = _checks.known("activation", activation, ACTIVATIONS)
        unit = 1 / math.sqrt(_checks.integer("fan_in", fan_in, 1))
        noise_scale = _checks.number("noise_scale", noise_scale, at_most=LARGEST_FLOAT)
        base_mean = _checks.number("base_mean", base_mean, at_most=LARGEST_FLOAT)
        base_spread = _checks.number("base_spread", base_spread, at_most=LARGEST_FLOAT)
        spline_scale = _checks.number("spline_scale", spline_scale, at_most=LARGEST_FLOAT)
        self.basis = Basis(
            basis,
            low,
            high,
            grid_size=grid_size,
            degree=degree,
            width=width,
            trainable_width=trainable_width,
            extrapolation=extrapolation,
        )
        self.constraint = constraint
        self._constrained = constraint_of(constraint, self.basis, periods)
        self._has_base = self.basis.has_base and self._constrained is None
        self.register_buffer("mask", torch.ones(self.batch_shape, dtype=torch.bool))
        self.coefficients = nn.Parameter(
            self.basis.starting_coefficients(self.batch_shape, noise_scale)
        )
        self.scale: Tensor | None = None
        self.base_weight: Tensor | None = None
        if self._has_base:
            base = base_mean + base_spread * (2 * torch.rand(self.batch_shape) - 1)
            self.base_weight = nn.Parameter(unit * base)
            self.scale = nn.Parameter(torch.full(self._scale_shape(), unit * spline_scale))

    def _scale_shape(self) -> tuple[int, ...]:
        return self.batch_shape

    def _in_bank_order(self, coefficients: Tensor) -> Tensor:
        """View the parameter as ``(*batch_shape, num_functions)``."""
        return coefficients

    def _from_bank_order(self, coefficients: Tensor) -> Tensor:
        """Undo :meth:`_in_bank_order`; the result is contiguous."""
        return coefficients.contiguous()

    def functions_shape(self, coefficients: Tensor) -> tuple[int, ...]:
        """
        Return the batch shape of coefficients in the parameter's order, for any grid.

        :param coefficients: coefficients on this or another grid. If their number of dimensions
            doesn't fit this bank, their own shape is returned.
        """
        if coefficients.dim() != len(self.batch_shape) + 1:
            return tuple(coefficients.shape)
        return tuple(self._in_bank_order(coefficients).shape[:-1])

    def replace_coefficients(self, coefficients: Tensor) -> None:
        """
        Put new coefficients into the parameter, which stays the same object for optimizers and
        Pyro.

        :param coefficients: shape ``(*batch_shape, num_functions)``.
        """
        replacement = self._from_bank_order(coefficients.detach().to(self.coefficients))
        if replacement.shape != self.coefficients.shape:
            self.coefficients.grad = None
            reshaped(self)
            # While a loss is alive, autograd remembers the old shape. A change of dtype makes it
            # forget the shape.
            other = torch.half if replacement.dtype != torch.half else torch.float
            self.coefficients.data = replacement.new_empty(0, dtype=other)
        self.coefficients.data = replacement

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved: Any = state_dict.get(f"{prefix}coefficients")
        # A refined grid has more functions; any other change of shape is an error.
        may_differ = "coefficients" in self._parameters and f"{prefix}basis.grid" in state_dict
        if saved is not None and may_differ and self.functions_shape(saved) == self.batch_shape:
            self.replace_coefficients(torch.empty_like(self._in_bank_order(saved)))
        if saved is not None:  # older states have no masks
            state_dict.setdefault(f"{prefix}mask", torch.ones_like(self.mask))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def knots(self) -> Tensor | None:
        """
        Cell edges, ascending, ``(*grid_batch, count)``; None if the functions are polynomials.
        """
        return self.basis.bound().knots

    def update_grid(
        self,
        samples: Tensor | None = None,
        *,
        grid_size: int | None = None,
        uniform_share: float = 0.05,
        widen: bool = False,
        shrink: bool = False,
        max_change: float = math.inf,
    ) -> GridUpdate:
        r"""
        Move the knots to where the arguments are, and refit the coefficients.

        New knots are :math:`ρ · \text{uniform} + (1 - ρ) · \text{quantiles}` of the samples. New
        coefficients are the least-squares optimum over the samples and the whole interval. If the
        new space contains the old functions (splines on knots that contain the old ones,
        polynomials), they stay the same; otherwise ``error`` reports the change. Polynomials and
        Fourier series have no inner knots, so only the ends of the interval matter; the functions
        change only if a series is widened. An update that moves no knot changes nothing; in
        particular, functions that share a grid go on sharing it. The parameter stays the same
        object, but where ``moved`` says so, an optimizer's moments refer to the old coordinates.
        Then drop ``optimizer.state[bank.coefficients]``, as the trainer's callback does.

        :param samples: arguments, shape ``(N, *grid_batch)``, where ``grid_batch`` broadcasts to
            ``batch_shape``: dimensions of size one, or missing ones, share a grid. None keeps the
            knots, so that ``grid_size`` refines them.
        :param grid_size: size of the new grid, see :class:`~pyro_tkam.nn.Basis`; None keeps it.
            Without samples, a multiple of the old size refines a spline exactly.
        :param uniform_share: :math:`ρ`, from 0 to 1.
        :param widen: let the interval grow to contain all samples; otherwise, samples outside are
            treated as lying at its ends.
        :param shrink: let the interval shrink to the range of the samples.
        :param max_change: refuse an update that changes the functions by more than this: root mean
            square change over the points of the fit, relative to that of the functions.
        :return: the result of the update; a refused update changes nothing.
        :raises ValueError: for samples that are not finite, of the wrong shape, or all equal, for
            ``uniform_share`` outside [0, 1], for functions with a constraint, and if knots would
            coincide.
        :raises TypeError: for samples of the wrong dtype, and for random coefficients.

        >>> bank = UnivariateFunctions(3, "bspline", grid_size=5)
        >>> update = bank.update_grid(torch.rand(100, 3) ** 2)
        >>> update.accepted, bank.knots.shape
        (True, torch.Size([3, 6]))
        >>> bool(bank.update_grid(grid_size=10).change < 1e-5)
        True
        """
        with unseen(self):
            return update_grid(self, samples, grid_size, uniform_share, widen, shrink, max_change)

    def regularization(
        self,
        samples: Tensor | None = None,
        *,
        l1: float = 1.0,
        entropy: float = 1.0,
        smoothness: float = 0.0,
    ) -> Tensor:
        r"""
        Return a penalty on the functions, to be added to a loss.

        With :math:`|φ|` the mean absolute value of a function over the samples and
        :math:`p = |φ| / \sum |φ|`,

        .. math:: λ_1 \sum |φ| - λ_2 \sum p \log p + λ_3 \sum \int φ''(s)^2 ds

        (the first two after Liu et al. 2024, arXiv:2404.19756; the third smooths any basis, by
        quadrature).

        :param samples: arguments as for :meth:`update_grid`; None takes equally spaced arguments on
            the grid's interval.
        :param l1: :math:`λ_1`.
        :param entropy: :math:`λ_2`.
        :param smoothness: :math:`λ_3`.
        :return: a scalar.
        :raises ValueError: for ``smoothness`` of splines of degree 1, which have no second
            derivative, for empty samples or samples that are not finite, and for weights that are
            not finite.
        :raises TypeError: for weights that are not numbers.

        >>> UnivariateFunctions(3).regularization(smoothness=0.1).shape
        torch.Size([])
        """
        l1 = _checks.number("l1", l1)
        entropy = _checks.number("entropy", entropy)
        smoothness = _checks.number("smoothness", smoothness)
        functions = self.bound()
        total = regularizers.sparsity(functions, samples, l1, entropy)
        return total + smoothness * regularizers.curvature(functions).sum() if smoothness else total

    def symbolic(
        self,
        index: tuple[int, ...],
        samples: Tensor | None = None,
        *,
        library: LibraryLike | None = None,
        num_candidates: int = 5,
        tolerance: float = 1e-4,
    ) -> list[Candidate]:
        """
        Find formulas for one function, best first.

        :param index: which function, an index into ``batch_shape``.
        :param samples: its arguments, shape ``(N,)``; None takes equally spaced arguments on its
            grid's interval.
        :param library: forms, see :func:`pyro_tkam.nn.forms.as_library`; None takes all of
            :data:`pyro_tkam.nn.LIBRARY`.
        :param num_candidates: number of formulas.
        :param tolerance: share of the variance that a simpler form may lose.
        :raises ValueError: for an index outside the bank and for unknown names.

        >>> bank = UnivariateFunctions((2, 3), activation="tanh", noise_scale=0.0)
        >>> [best, *_] = bank.symbolic((1, 2), tolerance=1e-9)
        >>> best.name
        'tanh'
        """
        _checks.sequence("index", index, "integers")
        index = tuple(index)
        shape = self.batch_shape
        if len(index) != len(shape) or not all(
            isinstance(i, int) and -size <= i < size for i, size in zip(index, shape, strict=True)
        ):
            raise ValueError(f"index must be valid for batch_shape {tuple(shape)}, got {index}")
        with unseen(self):
            functions = self.bound()
        if samples is None:
            ends = functions.basis.placed[..., [0, -1]]
            samples = refined_knots(ends.expand(*shape, 2)[index], NUM_ARGUMENTS)
        regularizers.check_samples(samples, functions.coefficients)
        if samples.dim() != 1 or len(samples) < 5:
            raise ValueError(
                f"samples must have shape (N,) with N >= 5, got {tuple(samples.shape)}"
            )
        with torch.no_grad():
            values = functions(samples.reshape(-1, *[1] * len(shape)))[:, *index]
        return fit_formulas(samples, values, library, num_candidates, tolerance=tolerance)

    def prune(self, threshold: float, samples: Tensor | None = None) -> Self:
        """
        Return a copy in which functions with a mean absolute value below a threshold are masked.

        :param threshold: smallest mean absolute value to keep.
        :param samples: arguments as for :meth:`regularization`.
        :raises ValueError: for a negative threshold, one that keeps no function, and invalid
            samples as in :meth:`regularization`.
        :raises TypeError: for random weights.

        >>> bank = UnivariateFunctions(3)
        >>> torch.nn.init.zeros_(bank.base_weight[:2]).shape
        torch.Size([2])
        >>> bank.prune(0.01).mask
        tensor([False, False,  True])
        """
        check_learned(self, self.weight_names, "pruning")
        threshold = _checks.number("threshold", threshold, at_least=0)
        with torch.no_grad(), unseen(self):
            sizes = regularizers.mean_sizes(self.bound(), samples)
        kept = sizes >= threshold
        if not bool(kept.any()):
            raise ValueError(
                f"threshold must be at most {float(sizes.max())}, the largest size of a "
                f"function in bank, got {threshold:g}, which would empty it"
            )
        pruned = unseen_copy(self)
        pruned.mask &= kept
        return pruned

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the parameters learned for each function."""
        return ("coefficients", "scale", "base_weight") if self._has_base else ("coefficients",)

    @torch.no_grad()
    def select(self, *index: Tensor) -> None:
        """
        Keep some functions, in place, with new parameters.

        :param index: one tensor of indices for each dimension of ``batch_shape``, as in advanced
            indexing.
        """
        old = self.batch_shape
        grid = self.basis.grid
        chosen = self._in_bank_order(self.coefficients)[index]
        self.batch_shape = chosen.shape[:-1]
        self.coefficients = nn.Parameter(self._from_bank_order(chosen))
        self.mask = self.mask[index]
        if self.scale is not None and self.base_weight is not None:
            scale = self.scale.expand(old)[index]
            self.scale = nn.Parameter(
                scale[tuple(slice(size) for size in self._scale_shape())].contiguous()
            )
            self.base_weight = nn.Parameter(self.base_weight[index].contiguous())
        if grid.dim() > 1:
            own = _shared_again(grid.expand(*old, -1)[index], grid.shape)
            self.basis.place(self.basis.placed.on_grid(own.contiguous()))

    @pyro_method
    def bound(self) -> BoundFunctions:
        """
        Read the parameters once and return the functions with them: a pure, picklable callable.

        In a Pyro model, this registers parameters and draws ``PyroSample`` sites, so call it once
        per execution.
        """
        return BoundFunctions(**self._bound_tensors(self.mask))

    def _bound_tensors(self, mask: Tensor) -> dict[str, Any]:
        """Return the arguments of :class:`BoundFunctions`; masked functions are zero."""
        coefficients = self._in_bank_order(self.coefficients)
        if self._constrained is not None:
            coefficients = self._constrained(coefficients)
        base_weight = self.base_weight
        if not _is_full(mask):
            coefficients = coefficients * mask.unsqueeze(-1)
            base_weight = None if base_weight is None else base_weight * mask
        return {
            "basis": self.basis.bound(),
            "coefficients": coefficients,
            "scale": self.scale,
            "base_weight": base_weight,
            "activation": self._activation,
        }

    def forward(self, z: Tensor) -> Tensor:
        """
        Evaluate every function, ``bound()(z)``.

        :param z: any shape that broadcasts against ``batch_shape``.
        :returns: shape ``broadcast_shapes(z.shape, batch_shape)``.
        :raises ValueError: if the shapes do not broadcast.
        :raises TypeError: if the dtype differs from that of the coefficients.
        """
        return self.bound()(z)


def _is_full(mask: Tensor) -> bool:
    """Return True only if no function is masked and this is cheap to check."""
    return mask.device.type == "cpu" and is_concrete(mask) and bool(mask.all())


@contextmanager
def all_or_none(module: nn.Module) -> Iterator[None]:
    """
    Restore the grids and coefficients of all banks of a module if an update inside raises an error.

    An update gives a bank new tensors, so the old ones need no copy.
    """
    banks = [part for part in module.modules() if isinstance(part, UnivariateFunctions)]
    learned = [
        bank for bank in banks if isinstance(bank._parameters.get("coefficients"), nn.Parameter)
    ]
    before = [(bank, bank.basis.placed, bank.coefficients.data) for bank in learned]
    try:
        yield
    except BaseException:
        for bank, functions, coefficients in before:
            bank.basis.place(functions)
            bank.coefficients.data = coefficients
        raise


def _shared_again(grids: Tensor, shape: torch.Size) -> Tensor:
    """
    Store selected grids once along the dimensions in which functions shared them, unless they have
    come to differ there.

    :param grids: one for each selected function, shape ``(*batch, M)``.
    :param shape: of the grids before the selection.
    """
    stored = (1,) * (grids.dim() - len(shape)) + tuple(shape)
    for dim in (dim for dim, size in enumerate(stored[:-1]) if size == 1):
        first = grids[(slice(None),) * dim + (slice(1),)]
        if torch.equal(first.expand_as(grids), grids):
            grids = first
    while grids.dim() > len(shape) and len(grids) == 1:
        grids = grids[0]
    return grids
