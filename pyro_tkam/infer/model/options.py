"""Checks of the options for how a model is run, which kernels and densities have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.distributions import Transform

from pyro_tkam._checks import flag, function, mapping, whole_number, words


def check_options(
    transforms: Any, init_strategy: Any, max_plate_nesting: Any, batch_plates: Any, trace_graph: Any
) -> None:
    """
    Refuse options whose types are not those of :class:`LangevinKernel`.

    :raises TypeError: names the option.
    :raises ValueError: for a number of plates below zero.
    """
    given_transforms(transforms)
    function("init_strategy", init_strategy, "a site")
    if isinstance(init_strategy, type):
        raise TypeError(f"init_strategy must be a function of a site, got {init_strategy!r}")
    if max_plate_nesting is not None:
        whole_number("max_plate_nesting", max_plate_nesting, 0)
    if batch_plates is not None and not isinstance(batch_plates, Mapping):
        words("batch_plates", batch_plates, "names of plates")
    flag("trace_graph", trace_graph)


def given_transforms(transforms: Any) -> dict[str, Transform] | None:
    """
    Return transforms by site, None if there are none.

    :raises TypeError: for anything else.
    """
    if transforms is None:
        return None
    mapping("transforms", transforms, "names of sites to transforms")
    for name, each in transforms.items():
        if not isinstance(each, Transform):
            raise TypeError(f"transforms[{name!r}] must be a Transform, got {each!r}")
    return dict(transforms)
