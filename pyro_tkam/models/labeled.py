"""Data with class labels: a label coupled to the latents, known in some, all or no rows."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_tkam._checks import function, length
from pyro_tkam._threads import PYRO, in_turn
from pyro_tkam.distributions import LabeledAutoregressive, LabeledTilted
from pyro_tkam.infer import ImportanceSampling
from pyro_tkam.models._names import tell_of_other_parameters
from pyro_tkam.models._reach import tell_of_values_out_of_reach
from pyro_tkam.models.likelihood import Likelihood
from pyro_tkam.models.multimodal import average
from pyro_tkam.models.prior import LabeledPrior
from pyro_tkam.models.tkam import check_rows, check_sizes, takes_integers
from pyro_tkam.nn import LabeledAutoregressivePrior
from pyro_tkam.ops._arguments import dense
from pyro_tkam.ops._concrete import is_concrete
from pyro_tkam.ops._precision import at_least_single
from pyro_tkam.ops.symbols import check_symbols


class LabeledTKAM(PyroModule):
    """
    A model whose prior couples the latents to a label: ``p(x, y, z) = p(z) p(y | z) p(x | z)``.

    The prior ``p(z) = Σ_y w_y p(z | y)`` and ``p(y | z)`` come from the same label energies (the
    symbol-vector coupling of Pang and Wu 2021, arXiv:2108.11556; Raj 2025, arXiv:2506.14167, Sec.
    5.2). Therefore, data without a label also train the prior and the generator, draws given a
    label are exact, and ``p(y | x) = E[p(y | z) | x]``. Sites: ``"z"``, ``"label"`` and ``"x"``, in
    the plate ``"data"``.

    :param prior: the coupled prior.
    :param generator: module from latents ``(*batch, Q)`` to the likelihood's argument.
    :param likelihood: from the generator's output to a distribution of data.
    :param label_weight: factor of ``log p(y | z)``. With a guide, set it above 1 if only a small
        share of the data has a label. Without a guide, leave it at 1, because it would sharpen the
        importance weights too.
    :raises ValueError: for a weight that is not positive.

    >>> from pyro_tkam.models import GaussianLikelihood
    >>> model = LabeledTKAM(LabeledPrior(3, 5), nn.Linear(5, 8), GaussianLikelihood(0.5))
    >>> model.generate(torch.tensor([0, 0, 2])).shape
    torch.Size([3, 8])
    >>> model.classify(torch.randn(4, 8), num_particles=100).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        prior: LabeledPrior | LabeledAutoregressivePrior,
        generator: nn.Module,
        likelihood: Likelihood,
        *,
        label_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, part in (("prior", prior), ("generator", generator), ("likelihood", likelihood)):
            function(name, part, "the arguments that the model passes")
        length("label_weight", label_weight)
        self.prior = prior
        self.generator = generator
        self.likelihood = likelihood
        self.label_weight = label_weight

    def forward(
        self, x: Tensor | None = None, label: Tensor | None = None, size: int | None = None
    ) -> Tensor:
        """
        Score data, or draw data.

        :param x: a mini-batch, shape ``(batch, *event)``; None draws ``size`` rows.
        :param label: their classes, integers of shape ``(batch,)``, with -1 for a missing label;
            None for no labels.
        :param size: with ``x``, the length of the whole data set, which sets the scale of the
            plate; without, the number of rows to draw.
        :return: ``x``, or the rows drawn.
        :raises ValueError: for labels outside the classes, data that are empty, not finite or of
            the wrong shape, and a ``size`` below the number of rows.
        :raises TypeError: for labels that are not integers, and data whose dtype differs from the
            generator's output.
        """
        tell_of_other_parameters(self)
        rows, size = check_sizes(x, size)
        prior: LabeledTilted | LabeledAutoregressive = self.prior()
        label = self._checked(label, rows, prior.num_labels)
        apart = label if self._scores_apart(prior, label) else None
        with pyro.plate("data", size, subsample=torch.arange(rows) if rows < size else None):
            z = pyro.sample("z", prior if apart is None else prior.given(apart))
            if apart is not None:  # p(y) p(z | y)
                pyro.sample("label", dist.Categorical(logits=prior.log_weights), obs=apart)
            elif label is not None:  # p(z) p(y | z), which may be weighed
                with poutine.mask(mask=label >= 0), poutine.scale(scale=self.label_weight):
                    pyro.sample(
                        "label",
                        dist.Categorical(logits=prior.label_logits(z)),
                        obs=label.clamp_min(0),
                    )
            location = at_least_single(self.generator(z))
            likelihood = self.likelihood(location)
            if x is not None:
                dtype = None if takes_integers(self.likelihood) else location.dtype
                check_rows(x, likelihood.event_shape, dtype)
                tell_of_values_out_of_reach(self.generator, self.likelihood, x)
            return pyro.sample("x", likelihood, obs=x)

    def _scores_apart(
        self, prior: LabeledTilted | LabeledAutoregressive, label: Tensor | None
    ) -> bool:
        """
        Tell whether to evaluate only the density of each row's own label. This is cheaper for
        autoregressive priors, and possible if all labels are known.
        """
        if label is None or self.label_weight != 1 or not isinstance(prior, LabeledAutoregressive):
            return False
        return is_concrete(label) and bool((label >= 0).all())

    @staticmethod
    def _checked(label: Tensor | None, rows: int, num_labels: int) -> Tensor | None:
        if label is None:
            return None
        dense("label", label)
        if label.shape != (rows,):
            raise ValueError(
                f"label must have shape ({rows},), one for each row of x, got {tuple(label.shape)}"
            )
        check_symbols("label", torch.where(label == -1, 0, label), num_labels)
        return label

    @torch.no_grad()
    def generate(self, label: Tensor) -> Tensor:
        """
        Draw data of given classes without the likelihood's noise: exact draws of ``p(z | y)``,
        passed through the generator.

        :param label: integers of shape ``(num,)``.
        :return: shape ``(num, *event)``.
        :raises ValueError: for a label outside the classes.
        """
        dense("label", label)
        with PYRO, poutine.block():
            return self.likelihood.noiseless(self.generator(self.prior().given(label).sample()))

    @in_turn
    @torch.no_grad()
    def classify(self, x: Tensor, *, num_particles: int = 10_000, guide: Any = None) -> Tensor:
        """
        Return ``p(y | x)``, the posterior mean of ``p(y | z)`` by importance sampling.

        :param x: shape ``(batch, *event)``.
        :param num_particles: number of draws.
        :param guide: a guide that takes ``x``; None draws from the prior, once for all data.
        :return: shape ``(batch, num_labels)``; rows sum to one.
        """
        draws = ImportanceSampling(self, guide, num_particles).run(x)
        with poutine.block():
            return average(draws.weights, self.prior().label_logits(draws.values["z"]).exp())
