"""Pyro messengers that run only a part of a model, or that draw in another way."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, NoReturn

from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger

from pyro_tkam.distributions.lkj import draw


def trace_latents(
    model: Any, names: Collection[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> poutine.Trace:
    """
    Run a model until these sites have values.

    :param model: a Pyro model.
    :param names: of latent sites.
    :param args: the model's arguments.
    :param kwargs: its keyword arguments.
    :return: the trace up to the last of them; the trace of the whole run if one is missing.
    """
    with poutine.trace() as tracer, suppress(_EarlyExitError), _StopAfter(names):
        model(*args, **kwargs)
    return tracer.trace


class _EarlyExitError(Exception):
    """The last site was set."""


class _StopAfter(Messenger):
    """
    Stops a model once some sites have values, after all handlers have processed the last of them.
    """

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.missing = set(names)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.missing and not msg["is_observed"]:
            self.missing.remove(msg["name"])
            if not self.missing:
                msg["continuation"] = _leave


def _leave(msg: Any) -> NoReturn:
    raise _EarlyExitError


class DrawDetached(Messenger):
    """Draws by ``sample``, as ``vmap`` can't take the random numbers of ``rsample``."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or msg["value"] is not None:
            return
        if isinstance(msg["fn"], TorchDistributionMixin):
            msg["value"] = draw(msg["fn"])
            msg["done"] = True
