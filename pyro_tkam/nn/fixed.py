r"""Edges that are closed forms: :math:`φ(s) = c\,f(a s + b) + d` instead of a learned curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam.nn._saved import as_tensor, from_tensor
from pyro_tkam.nn.forms import Form, as_form
from pyro_tkam.ops.bases import Picklable


@dataclass(frozen=True, eq=False)
class BoundForms(Picklable):
    r"""
    Closed forms with their tensors, on ``K`` edges.

    :param forms: :math:`f` of each edge.
    :param edges: output and input of each edge, shape ``(K, 2)``.
    :param affine: :math:`a, b, c, d` of each edge, shape ``(K, 4)``; zeros for masked edges.
    """

    forms: tuple[Form, ...]
    edges: Tensor
    affine: Tensor

    def __call__(self, s: Tensor) -> Tensor:
        """Evaluate each edge at its own argument; arguments and values have shape ``(*, K)``."""
        a, b, c, d = self.affine.unbind(-1)
        inner = a * s + b
        values = [form(u) for form, u in zip(self.forms, inner.unbind(-1), strict=True)]
        return c * torch.stack(values, -1) + d

    def of_inputs(self, s: Tensor) -> Tensor:
        """Evaluate each edge at its input, ``(*, in)`` to ``(*, K)``."""
        return self(s[..., self.edges[:, 1]])

    def on_grid_of_edges(self, values: Tensor, shape: torch.Size) -> Tensor:
        """Scatter the values of edges, ``(*, K)``, into zeros of shape ``(*, out, in)``."""
        place = self.edges[:, 0] * shape[1] + self.edges[:, 1]
        zeros = values.new_zeros(*values.shape[:-1], shape.numel())
        return zeros.index_copy(-1, place, values).unflatten(-1, shape)


class FixedEdges(PyroModule):
    r"""
    Closed forms on some edges of a layer.

    :ivar edges: buffer, output and input of each edge, shape ``(K, 2)``.
    :ivar affine: parameter, :math:`a, b, c, d` of each edge, shape ``(K, 4)``.

    :param forms: form and affine parameters of each edge ``(out, in)``.
    :param like: a tensor with the dtype and device to use.

    >>> from pyro_tkam.nn.forms import LIBRARY
    >>> fixed = FixedEdges({(0, 1): (LIBRARY["sin"], (2.0, 0.0, 3.0, 1.0))}, torch.zeros(()))
    >>> fixed.bound(torch.ones(1, 2, dtype=torch.bool)).of_inputs(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """

    edges: Tensor

    def __init__(
        self, forms: Mapping[tuple[int, int], tuple[Form, Sequence[float]]], like: Tensor
    ) -> None:
        super().__init__()
        self.forms = tuple(form for form, _ in forms.values())
        places = torch.tensor(list(forms), dtype=torch.long, device=like.device)
        self.register_buffer("edges", places.reshape(-1, 2))
        values = [list(affine) for _, affine in forms.values()]
        self.affine = nn.Parameter(
            torch.tensor(values, dtype=like.dtype, device=like.device).reshape(-1, 4)
        )

    @classmethod
    def of_state(
        cls, state: Mapping[str, Tensor], prefix: str, known: Mapping[str, Form]
    ) -> FixedEdges:
        """
        Make the module that a state dict describes; its tensors are loaded later.

        :param known: forms by name, which take precedence over those of the library.
        :raises ValueError: for a custom form that is not known.
        """
        edges: list[list[int]] = state[f"{prefix}edges"].tolist()
        names: list[str] = from_tensor(state[f"{prefix}names"])
        forms = [known[name] if name in known else as_form(name) for name in names]
        start = (1.0, 0.0, 1.0, 0.0)
        return cls(
            {(o, i): (form, start) for (o, i), form in zip(edges, forms, strict=True)},
            state[f"{prefix}affine"],
        )

    def entries(self) -> dict[tuple[int, int], tuple[Form, tuple[float, ...]]]:
        """Return form and affine parameters of each edge ``(out, in)``."""
        rows = zip(self.edges.tolist(), self.forms, self.affine.tolist(), strict=True)
        return {(o, i): (form, tuple(affine)) for (o, i), form, affine in rows}

    def where(self, shape: torch.Size) -> Tensor:
        """Return which edges are closed forms, bools of shape ``(out, in)``."""
        chosen = torch.zeros(shape, dtype=torch.bool, device=self.edges.device)
        chosen[self.edges[:, 0], self.edges[:, 1]] = True
        return chosen

    def bound(self, mask: Tensor) -> BoundForms:
        """
        Read the parameters once.

        :param mask: edges in use, bools of shape ``(out, in)``; the others become zero.
        """
        counts = mask[self.edges[:, 0], self.edges[:, 1]]
        affine = self.affine
        inner = affine[:, :2]
        outer = torch.where(counts.unsqueeze(-1), affine[:, 2:], 0.0)
        return BoundForms(self.forms, self.edges, torch.cat((inner, outer), -1))

    def _save_to_state_dict(
        self, destination: dict[str, Tensor], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}names"] = as_tensor([form.name for form in self.forms])

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        state_dict.pop(f"{prefix}names", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
