"""Sums over discrete sites with Pyro's message passing, in functions that work under ``vmap``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

Named = Any
"""A tensor whose dimensions have names, a letter each in ``_pyro_dims``."""


def marginal(
    trace: poutine.Trace, terms: dict[str, Tensor], names: Iterable[str], dims: tuple[int, ...]
) -> Tensor:
    """Sum enumerated sites out of some terms; plates other than those at ``dims`` are summed, too.

    :param trace: an enumerated run of a model.
    :param terms: log density of each site of it.
    :param names: the sites whose product is summed.
    :param dims: dimensions of the plates that stay.
    """
    trace.symbolize_dims()
    plates = trace.plate_to_symbol
    packed_terms = {}
    for name in names:
        named = trace.nodes[name]["infer"]["_dim_to_symbol"]
        packed_terms[name] = packed.pack(_in_plates(terms[name], named).clone(), named)
    # Packing drops plates of size one, such as that of a single chain.
    present = {symbol for term in packed_terms.values() for symbol in term._pyro_dims}
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    for name, term in packed_terms.items():
        stack = trace.nodes[name]["cond_indep_stack"]
        ordinal = frozenset(plates[frame.name] for frame in stack if frame.vectorized) & present
        factors.setdefault(ordinal, []).append(term)
    enumerated = set(trace.symbol_to_dim) - set(plates.values())
    kept = (
        frozenset(symbol for symbol in plates.values() if trace.symbol_to_dim[symbol] in dims)
        & present
    )
    result = contract_to_tensor(factors, enumerated, target_ordinal=kept, ring=Elimination())
    return packed.unpack(result, trace.symbol_to_dim)


def _in_plates(term: Tensor, named: Mapping[int, str]) -> Tensor:
    """Sum a term over the dimensions that are no plate's, as those of data without a plate."""
    others = [dim for dim in range(-term.dim(), 0) if term.shape[dim] > 1 and dim not in named]
    return term.sum(others, keepdim=True) if others else term


class Elimination(LogRing):
    """Pyro's ring of sums of products in log space, by variable elimination without ``einsum``.

    Dimensions are summed out one at a time, from the terms that have them; the one that leaves the
    smallest term comes first. A chain of ``n`` states of ``K`` values takes ``n K²`` operations.
    Sums stay in log space; Pyro's own ring leaves it and has a derivative that ``vmap`` refuses.
    """

    def sumproduct(self, terms: Sequence[Named], dims: Iterable[str]) -> Named:
        """Return the log of the sum over ``dims`` of the product of terms with named dimensions."""
        left = list(terms)
        pending = sorted(dims)
        while pending:
            dim = min(pending, key=lambda each: _size_without(left, each))
            pending.remove(dim)
            having = [term for term in left if dim in term._pyro_dims]
            left = [term for term in left if dim not in term._pyro_dims]
            if having:
                left.append(_summed(_product(having), dim))
        return _product(left)


def _size_without(terms: Sequence[Named], dim: str) -> int:
    """Return the number of values of the term that remains after a dimension is summed out."""
    sizes = {
        name: size
        for term in terms
        if dim in term._pyro_dims
        for name, size in zip(term._pyro_dims, term.shape, strict=True)
    }
    number = 1
    for size in sizes.values():
        number *= size
    return number // sizes.get(dim, 1)


def _product(terms: Sequence[Named]) -> Named:
    """Add log terms with named dimensions."""
    names = "".join(sorted({name for term in terms for name in term._pyro_dims}))
    first, *others = (_aligned(term, names) for term in terms)
    return _named(sum(others, first), names)


def _aligned(term: Named, names: str) -> Tensor:
    """Return a term with one dimension per name; missing dimensions get length one."""
    own = term._pyro_dims
    order = [own.index(name) for name in names if name in own]
    shape = [term.shape[own.index(name)] if name in own else 1 for name in names]
    return term.permute(order).reshape(shape)


def _summed(term: Named, dim: str) -> Named:
    axis = term._pyro_dims.index(dim)
    return _named(log_sum(term, axis), term._pyro_dims.replace(dim, ""))


def log_sum(term: Tensor, axis: int) -> Tensor:
    """Sum a dimension out in log space; a sum of zeros is zero, with derivatives of zero."""
    if has_torch_function_unary(term):
        return handle_torch_function(log_sum, (term,), term, axis)
    largest = term.detach().amax(axis, keepdim=True)
    shift = largest.where(largest.isfinite(), 0.0)
    total = (term - shift).exp().sum(axis)
    some = total != 0
    log = total.where(some, 1.0).log() + shift.squeeze(axis)
    return log.where(some, -torch.inf)


def _named(term: Named, names: str) -> Named:
    term._pyro_dims = names
    return term
