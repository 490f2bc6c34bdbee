"""A guide network: the approximate posterior of each datum's latents in one forward pass."""

from collections.abc import Mapping, Sequence
from inspect import signature
from itertools import pairwise
from typing import Any

import pyro
import torch
from pyro.distributions import TransformedDistribution
from pyro.distributions.transforms import AffineTransform, ExpTransform, SigmoidTransform
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Normal, Transform, constraints

from pyro_tkam._checks import function, instance, sizes, whole_number
from pyro_tkam.infer.model.sites import is_latent
from pyro_tkam.models._draws import undone_by_errors
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models.standardized import Standardize, StandardizedLikelihood
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._precision import at_least_single


class AmortizedGuide(PyroModule):
    """
    ``q(z|x) = T(N(μ(x), σ²(x)))``, where a network gives ``μ, log σ`` and ``T`` maps onto the
    interval of the prior.

    ``T`` is a scaled sigmoid for an interval, an exponential for a half-line, and the identity for
    the real line.

    It works with any objective that takes a guide (Kingma & Welling 2014, arXiv:1312.6114):
    ``pyro.infer.Trace_ELBO``, :class:`~pyro_tkam.infer.ImportanceWeightedELBO`,
    :class:`~pyro_tkam.infer.ImportanceMLE` (wake), :class:`~pyro_tkam.infer.WakeSleepMLE` and
    :class:`~pyro_tkam.infer.LangevinMLE` (refined). ``RenyiELBO`` and ``ReweightedWakeSleep`` work
    with ``pyro.infer.SVI``, but not with :class:`~pyro_tkam.train.ELBOTraining`.

    It takes the arguments of the model, but reads only ``x``: with a
    :class:`~pyro_tkam.models.LabeledTKAM`, it ignores the labels.

    :param model: a :class:`~pyro_tkam.models.TKAM`, :class:`~pyro_tkam.models.LabeledTKAM` or
        :class:`~pyro_tkam.models.MultimodalTKAM`, or another model with ``model(size=1)``, a plate
        ``"data"``, one latent site in it and one observed site ``"x"``.
    :param hidden: widths of the hidden layers of the network, a multilayer perceptron with SiLU.
    :param encoder: another network, from data ``(batch, *event)`` to ``(batch, 2 * latents)``.
        Integer data need one, such as ``nn.Sequential(nn.Embedding(num_classes, 16), nn.Flatten(),
        nn.Linear(16 * length, 2 * latents))``. Several modalities need one too: it is called with
        their dictionary, and with ``observed`` if some are missing.
    :raises ValueError: for a model with several latent sites or none, for latents that are neither
        real nor in an interval, and for a missing encoder if one is needed.

    >>> from pyro_tkam.models import TKAM
    >>> model = TKAM.mixture(6, latent_dim=4, num_components=3)
    >>> guide = AmortizedGuide(model)
    >>> guide(torch.rand(5, 6)).shape
    torch.Size([5, 4])
    >>> loss = pyro.infer.Trace_ELBO()(model, guide)(torch.rand(5, 6))
    """

    low: Tensor | None
    high: Tensor | None

    @undone_by_errors()
    def __init__(
        self, model: Any, hidden: Sequence[int] = (256,), *, encoder: nn.Module | None = None
    ) -> None:
        _check_draws(model)
        hidden = sizes("hidden", hidden)
        if encoder is not None:
            instance("encoder", encoder, nn.Module, "a module or None")
        super().__init__()
        with torch.no_grad(), pyro.get_param_store().scope():
            sites = pyro.poutine.trace(model).get_trace(size=1).nodes
        data = list(getattr(model, "likelihoods", ("x",)))
        latents = [name for name, site in sites.items() if is_latent(site) and name not in data]
        if len(latents) != 1:
            raise ValueError(f"model must have a single latent site, got {latents}")
        self.site = latents[0]
        value = sites[self.site]["value"]
        self.latent_shape = tuple(value.shape[1:])
        for name, end in zip(
            ("low", "high"), _ends(self.site, sites[self.site]["fn"].support), strict=True
        ):
            self.register_buffer(name, None if end is None else torch.as_tensor(end).to(value))
        self._arguments = tuple(signature(getattr(model, "forward", model)).parameters)
        outputs = 2 * value[0].numel()
        self._reads: Tensor | None = None
        if encoder is None:
            _check_floating({name: sites[name]["value"] for name in data}, outputs)
            self._reads = sites["x"]["value"][:0]
            encoder = _perceptron(sites["x"]["value"][0].numel(), hidden, outputs).to(value)
            likelihood = getattr(model, "likelihood", None)
            if isinstance(likelihood, StandardizedLikelihood):
                encoder = nn.Sequential(Standardize(likelihood), encoder)
        self.encoder = encoder

    def forward(self, x: Any, *others: Any, **named: Any) -> Tensor:
        """
        Draw the latents of a mini-batch.

        :param x: data, shape ``(batch, *event)``, or a dictionary of such.
        :param others: the model's other positional arguments.
        :param named: the model's keyword arguments. The guide uses ``size``, the length of the
            whole data set, and ``observed``.
        :return: shape ``(batch, *latent)``.
        """
        tell_of_other_parameters(self)
        given = {**dict(zip(self._arguments[1:], others, strict=False)), **named}
        rows = _num_rows(x)
        size = rows if given.get("size") is None else whole_number("size", given["size"], rows)
        with pyro.plate("data", size, subsample=torch.arange(rows) if rows < size else None):
            return pyro.sample(self.site, self.posterior(x, given.get("observed")))

    def posterior(self, x: Any, observed: Mapping[str, Tensor] | None = None) -> Any:
        """
        Return ``q(z|x)``, of batch shape ``(batch,)``.

        :param x: data, shape ``(batch, *event)``, or a dictionary of such.
        :param observed: which rows have a modality, by name; passed to the encoder if given.
        """
        if self._reads is not None:
            dense("x", x)
            if x.shape[1:] != self._reads.shape[1:] or x.dim() == 0:
                raise ValueError(
                    f"x must have rows of shape {tuple(self._reads.shape[1:])}, got "
                    f"{tuple(x.shape)}"
                )
            if x.dtype != self._reads.dtype:
                raise TypeError(f"x must have the dtype {self._reads.dtype}, got {x.dtype}")
        output = self.encoder(x) if observed is None else self.encoder(x, observed)
        location, log_scale = (
            at_least_single(output).unflatten(-1, (2, *self.latent_shape)).unbind(1)
        )
        base = Normal(location, log_scale.exp(), validate_args=False)
        return TransformedDistribution(base, _onto(self.low, self.high)).to_event(
            len(self.latent_shape)
        )


def _check_draws(model: Any) -> None:
    """Refuse a model that can't be called with ``size=1``."""
    function("model", model, "size=1")
    try:
        signature(getattr(model, "forward", model)).bind(size=1)
    except TypeError as error:
        raise TypeError(
            f"model must be a callable that takes size=1, got {model!r}: {error}"
        ) from error


def _num_rows(x: Any) -> int:
    """Return the number of rows of data, or of a dictionary of data."""
    if not isinstance(x, Mapping):
        dense("x", x)
        if x.dim() == 0 or len(x) == 0:
            raise ValueError(
                f"x must have shape (batch, *event) with at least one row, got {tuple(x.shape)}"
            )
        return len(x)
    if not x:
        raise ValueError("x must hold at least one modality, got none")
    for name, value in x.items():
        dense(f"x[{name!r}]", value)
    return len(next(iter(x.values())))


def _ends(site: str, support: constraints.Constraint) -> tuple[Any, Any]:
    """
    Return the ends of the interval that contains the elements of a latent; None for an infinite
    end.
    """
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    low, high = (getattr(support, bound, None) for bound in ("lower_bound", "upper_bound"))
    real = isinstance(support, type(constraints.real))
    if support.is_discrete or (low is None and high is None and not real):
        raise ValueError(
            f"model must have real-valued latents, bounded or not, got {site!r} in {support}"
        )
    return low, high


def _onto(low: Tensor | None, high: Tensor | None) -> list[Transform]:
    """Return transforms from the real numbers onto an interval, a half-line or the real line."""
    if low is not None and high is not None:
        return [SigmoidTransform(cache_size=1), AffineTransform(low, high - low, cache_size=1)]
    if low is not None:
        return [ExpTransform(cache_size=1), AffineTransform(low, 1.0, cache_size=1)]
    if high is not None:
        return [ExpTransform(cache_size=1), AffineTransform(high, -1.0, cache_size=1)]
    return []


def _check_floating(data: dict[str, Tensor], outputs: int) -> None:
    """Refuse data that a perceptron can't read."""
    if len(data) > 1 or "x" not in data:
        raise ValueError(
            f"encoder must be a network from a dictionary of the modalities {sorted(data)} to "
            f"(batch, {outputs}), got None"
        )
    if not data["x"].is_floating_point():
        raise ValueError(
            "encoder must be a network from integers (batch, "
            f"{', '.join(map(str, data['x'].shape[1:]))}) to (batch, {outputs}), such as an "
            f"nn.Embedding, an nn.Flatten and an nn.Linear, got None for data of {data['x'].dtype}"
        )


def _perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Module:
    """Make a network whose output is near 0, so that training starts from a broad posterior."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    last = nn.Linear(widths[-1], outputs)
    with torch.no_grad():
        last.weight.mul_(0.1)
    return nn.Sequential(*layers, last)
