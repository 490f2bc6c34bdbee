"""Several kinds of data (modalities) generated from one latent; any of them may be missing."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Categorical

from pyro_tkam._checks import function, instance, mapping, one_of
from pyro_tkam._threads import PYRO, in_turn
from pyro_tkam.infer import ImportanceSampling
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models._reach import tell_of_values_out_of_reach
from pyro_tkam.models.likelihood import Likelihood
from pyro_tkam.models.tkam import COUPLINGS, check_rows, check_sizes, takes_integers
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._precision import at_least_single

Data = Mapping[str, Tensor]


class Heads(PyroModule):
    """
    One generator per modality, all with the same input features.

    :param heads: modules from features to each modality's output, by name.
    :param trunk: module from latents to features; None passes the latents through.

    >>> heads = Heads({"image": nn.Linear(8, 64), "label": nn.Linear(8, 10)}, trunk=nn.Linear(5, 8))
    >>> {name: tuple(output.shape) for name, output in heads(torch.randn(3, 5)).items()}
    {'image': (3, 64), 'label': (3, 10)}
    """

    def __init__(self, heads: Mapping[str, nn.Module], trunk: nn.Module | None = None) -> None:
        mapping("heads", heads, "names to modules")
        for name, head in heads.items():
            instance(f"heads[{name!r}]", head, nn.Module, "a module")
        if trunk is not None:
            instance("trunk", trunk, nn.Module, "a module or None")
        super().__init__()
        self.trunk = PyroModule[nn.Identity]() if trunk is None else trunk
        self.heads = PyroModule[nn.ModuleDict](dict(heads))

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        """
        Generate all modalities.

        :param z: latents, the trunk's input.
        """
        features = self.trunk(z)
        return {name: head(features) for name, head in self.heads.items()}


class MultimodalTKAM(PyroModule):
    """
    Data ``x = (x_1, …, x_M)`` of several kinds, independent given one latent: ``log p(x | z) = Σ_m
    log p(x_m | z)``.

    A missing modality drops out of this sum. The latent is inferred from the other modalities, and
    the missing one is generated from the latent (the multimodal data of Raj 2025, arXiv:2506.14167,
    Sec. 5.2). Sites: ``"z"`` (or ``"u"``) and one site per modality, with its name, in the plate
    ``"data"``.

    :param prior: module that returns the current prior when called without arguments.
    :param generator: module from latents to a dictionary of outputs, such as :class:`Heads`.
    :param likelihoods: map from each output to a distribution, by the modality's name.
    :param coupling: ``"independent"`` or ``"shared"``.
    :raises ValueError: for an unknown coupling and if there is no modality.

    >>> from pyro_tkam.models import CategoricalLikelihood, GaussianLikelihood
    >>> from pyro_tkam.models import MixturePrior, TiltedPrior
    >>> generator = Heads({"image": nn.Linear(5, 64), "label": nn.Linear(5, 10)})
    >>> likelihoods = {"image": GaussianLikelihood(0.5),
    ...     "label": CategoricalLikelihood(event_dim=0)}
    >>> model = MultimodalTKAM(MixturePrior(TiltedPrior((5, 3))), generator, likelihoods)
    >>> model.conditional({"image": torch.rand(7, 64)}, num_particles=100)["label"].shape
    torch.Size([7, 10])
    """

    def __init__(
        self,
        prior: Callable[[], Any],
        generator: Callable[[Tensor], dict[str, Tensor]],
        likelihoods: Mapping[str, Likelihood],
        coupling: str = "independent",
    ) -> None:
        super().__init__()
        one_of("coupling", coupling, COUPLINGS)
        mapping("likelihoods", likelihoods, "names to likelihoods")
        if not likelihoods:
            raise ValueError("likelihoods must hold one for each modality, got none")
        for name, likelihood in likelihoods.items():
            instance(f"likelihoods[{name!r}]", likelihood, Likelihood, "a Likelihood")
        function("prior", prior, "no arguments")
        function("generator", generator, "latents")
        self.prior = prior
        self.generator = generator
        self.coupling = coupling
        self.likelihoods = PyroModule[nn.ModuleDict](dict(likelihoods))

    def forward(
        self, x: Data | None = None, observed: Data | None = None, size: int | None = None
    ) -> dict[str, Tensor]:
        """
        Run the generative process.

        :param x: a mini-batch of each modality, ``(batch, *event)``, by name, or None to draw all.
            A modality that is left out is missing in every row.
        :param observed: by name, which rows have a modality, booleans of shape ``(batch,)``.
            Modalities left out are present in all rows. The values of ``x`` in other rows are
            ignored.
        :param size: with ``x``, the length of the whole data set; without, the number of rows to
            draw.
        :return: the modalities that are observed or drawn.
        :raises ValueError: for names that are not modalities, different or zero numbers of rows,
            masks without ``x`` or with the wrong shape, rows without any modality, observed values
            that are not finite or of the wrong shape, a missing or too small ``size``, and
            ``coupling="shared"`` with a prior without inner indices.
        :raises TypeError: for values whose dtype differs from the generator's output.
        """
        tell_of_other_parameters(self)
        for argument, given in (("x", x), ("observed", observed)):
            if given is not None:
                mapping(argument, given, "names to tensors")
                for name, each in given.items():
                    dense(f"{argument}[{name!r}]", each)
        if x is None and observed:
            raise ValueError(f"observed must be None without x, got {sorted(observed)}")
        masks = {} if x is None else self._masks(x, observed or {})
        rows, size = check_sizes(next(iter(masks.values()), None), size)
        names = self.likelihoods if x is None else x
        found = {}
        with pyro.plate("data", size, subsample=torch.arange(rows) if rows < size else None):
            outputs = self.generator(COUPLINGS[self.coupling](self.prior()))
            for name in names:
                likelihood = self.likelihoods[name]
                output = at_least_single(outputs[name])
                value = None
                fn = likelihood(output)
                if x is not None:
                    check_rows(
                        x[name],
                        fn.event_shape,
                        None if takes_integers(likelihood) else output.dtype,
                        name,
                    )
                    value = _filled(name, x[name], masks[name])
                    if isinstance(self.generator, Heads):
                        head = self.generator.heads[name]
                        tell_of_values_out_of_reach(head, likelihood, value, f"x[{name!r}]")
                with poutine.mask(mask=masks.get(name, True)):
                    found[name] = pyro.sample(name, fn, obs=value)
        return found

    def _masks(self, x: Data, observed: Data) -> dict[str, Tensor]:
        """Check names, rows and masks, and return a mask for every modality given."""
        for argument, given, known in (("x", x, self.likelihoods), ("observed", observed, x)):
            if unknown := sorted(set(given) - set(known)):
                raise ValueError(
                    f"{argument} must have names among {sorted(known)}, got {unknown[0]!r}"
                )
        sizes = {name: len(value) for name, value in x.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                "x must hold at least one modality, all with the same number of rows, at "
                f"least 1, got {sizes} rows"
            )
        rows = next(iter(sizes.values()))
        masks = {}
        for name, value in x.items():
            mask = observed.get(name, torch.ones(rows, dtype=torch.bool, device=value.device))
            if mask.dtype != torch.bool or mask.shape != (rows,):
                raise ValueError(
                    f"observed must hold booleans of shape ({rows},), got {mask.dtype} of shape "
                    f"{tuple(mask.shape)} for {name!r}"
                )
            masks[name] = mask
        observed_at_all = torch.stack(list(masks.values())).any(0).all()
        if is_concrete(observed_at_all) and not bool(observed_at_all):
            raise ValueError(
                "observed must name at least one modality in each row, got rows without any"
            )
        return masks

    @torch.no_grad()
    def generate(self, num: int) -> dict[str, Tensor]:
        """
        Draw new data of all modalities without the likelihoods' noise.

        :param num: number of rows.
        :raises ValueError: for fewer than one row.
        """
        check_sizes(None, num, "num")
        with PYRO, poutine.block(), pyro.plate("data", num):
            outputs = self.generator(COUPLINGS[self.coupling](self.prior()))
        return {name: self.likelihoods[name].noiseless(output) for name, output in outputs.items()}

    @in_turn
    @torch.no_grad()
    def conditional(
        self,
        x: Data,
        observed: Data | None = None,
        *,
        num_particles: int = 10_000,
        guide: Any = None,
    ) -> dict[str, Tensor]:
        """
        Return the posterior mean of each modality given the observed ones; for labels and symbols,
        their posterior probabilities.

        ``E[x_m | x] = Σ_s w_s E[x_m | z_s]``, with importance weights. Text has no mean: for a
        model with a :class:`~pyro_tkam.models.SequenceLikelihood`, use :meth:`complete` instead.

        :param x: observed modalities, see :meth:`forward`.
        :param observed: rows that have them, see :meth:`forward`.
        :param num_particles: number of draws.
        :param guide: a guide that takes the model's arguments; None draws from the prior, once for
            all data.
        :return: by name, shape ``(batch, *event)``, with a last dimension of classes for
            categorical modalities.
        :raises NotImplementedError: for a modality without a mean.
        """
        draws = ImportanceSampling(self, guide, num_particles).run(x, observed=observed)
        outputs = self._outputs(draws.values)
        return {
            name: average(draws.weights, self.likelihoods[name].expected(output))
            for name, output in outputs.items()
        }

    @in_turn
    @torch.no_grad()
    def complete(
        self,
        x: Data,
        observed: Data | None = None,
        *,
        num_particles: int = 10_000,
        guide: Any = None,
    ) -> dict[str, Tensor]:
        """
        Draw all modalities once from their posterior given the observed ones, without the
        likelihoods' noise.

        :param x: observed modalities, see :meth:`forward`.
        :param observed: rows that have them, see :meth:`forward`.
        :param num_particles: number of draws to choose from.
        :param guide: as in :meth:`conditional`.
        :return: by name, shape ``(batch, *event)``.
        """
        draws = ImportanceSampling(self, guide, num_particles).run(x, observed=observed)
        pick = Categorical(logits=draws.log_weights.mT).sample()
        outputs = self._outputs(
            {name: _picked(value, pick) for name, value in draws.values.items()}
        )
        return {name: self.likelihoods[name].noiseless(output) for name, output in outputs.items()}

    def _outputs(self, values: Data) -> dict[str, Tensor]:
        """Generate all modalities from values of the latent site."""
        with poutine.block(), poutine.condition(data=dict(values)):
            return self.generator(COUPLINGS[self.coupling](self.prior()))


def average(weights: Tensor, values: Tensor) -> Tensor:
    """
    Return weighted means over draws.

    :param weights: shape ``(draw, batch)``, summing to one over the draws.
    :param values: shape ``(draw, batch, *event)``, or ``(draw, 1, *event)`` if data share the
        draws.
    :return: shape ``(batch, *event)``.
    """
    if values.shape[1] == 1:
        return torch.tensordot(weights, values.squeeze(1), dims=([0], [0]))
    return torch.einsum("sb,sb...->b...", weights, values)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """
    Select one draw for each datum from ``(draw, batch, *event)``, or from ``(draw, 1, *event)`` if
    data share the draws.
    """
    rows = torch.arange(len(index), device=index.device)
    return values[index, rows if values.shape[1] > 1 else 0]


def _filled(name: str, value: Tensor, mask: Tensor) -> Tensor:
    """
    Fill missing rows with zeros, which every likelihood accepts, and check the observed values.
    """
    value = torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, torch.zeros_like(value))
    if is_concrete(value) and not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} must be finite in observed rows, got NaN or infinite elements")
    return value
