"""
The guide network: it fits every coupling, its parameters train, and it finds a posterior known by
quadrature.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import AffineTransform
from torch import nn
from torch.distributions import constraints

from pyro_tkam.infer import ImportanceMLE, ImportanceWeightedELBO, LangevinMLE, WakeSleepMLE
from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    CategoricalLikelihood,
    GaussianLikelihood,
    TiltedPrior,
)
from tests.models.small import COUPLINGS, labeled, multimodal

OBJECTIVES = {
    "trace": pyro.infer.Trace_ELBO,
    "several traces": lambda: pyro.infer.Trace_ELBO(num_particles=3, vectorize_particles=True),
    "importance weighted": lambda: ImportanceWeightedELBO(4),
    "wake": lambda: ImportanceMLE(4),
    "wake-sleep": lambda: WakeSleepMLE(4),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", COUPLINGS)
def test_every_parameter_of_model_and_guide_trains(kind, objective):
    pyro.set_rng_seed(0)
    model = COUPLINGS[kind]()
    guide = AmortizedGuide(model, hidden=(8,))
    loss = OBJECTIVES[objective]()(model, guide)
    x = torch.rand(5, 6)
    loss(x, size=20)
    before = {name: value.detach().clone() for name, value in loss.named_parameters()}
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss(x, size=20).backward()
        optimizer.step()
    still = [name for name, value in loss.named_parameters() if torch.equal(value, before[name])]
    assert not still


@pytest.mark.parametrize("kind", COUPLINGS)
def test_pyros_own_objectives_take_it(kind):
    model = COUPLINGS[kind]()
    guide = AmortizedGuide(model, hidden=(8,))
    for loss in (
        pyro.infer.RenyiELBO(
            alpha=0, num_particles=2, vectorize_particles=True, max_plate_nesting=1
        ),
        pyro.infer.ReweightedWakeSleep(
            num_particles=2, vectorize_particles=True, max_plate_nesting=1
        ),
    ):
        value = pyro.infer.SVI(model, guide, pyro.optim.Adam({}), loss=loss).step(torch.rand(5, 6))
        assert torch.as_tensor(value).isfinite().all()


@pytest.mark.parametrize("kind", COUPLINGS)
def test_draws_lie_in_the_prior_support(kind):
    model = COUPLINGS[kind]()
    guide = AmortizedGuide(model)
    with torch.no_grad():
        guide.encoder[-1].weight.mul_(1000)
        z = guide(torch.rand(50, 6))
        prior = pyro.poutine.trace(model).get_trace(size=1).nodes[guide.site]["fn"]
        assert prior.support.check(z).all()
        assert guide.posterior(torch.rand(50, 6)).log_prob(z).isfinite().all()


@pytest.mark.slow
def test_the_bound_of_a_trained_guide_comes_close_to_the_exact_evidence():
    """One latent, so that quadrature over the prior gives the evidence of every datum."""
    pyro.set_rng_seed(0)
    prior = TiltedPrior((1,), "gaussian")
    torch.nn.init.normal_(prior.energies.coefficients)
    generator = nn.Linear(1, 3)
    model = TKAM(prior, generator, GaussianLikelihood(0.5)).requires_grad_(False).eval()
    with torch.no_grad():
        x = model(size=200).clone()
        likelihood = dist.Normal(generator(torch.linspace(-4, 4, 2001)[:, None]), 0.5)
        joint = prior().log_prob(torch.linspace(-4, 4, 2001)[:, None]) + likelihood.log_prob(
            x[:, None]
        ).sum(-1, True)[..., 0].unsqueeze(-1)
        evidence = float((joint.logsumexp(1) + torch.tensor(8 / 2000).log()).mean())
    guide = AmortizedGuide(model, hidden=(32,))
    loss = pyro.infer.Trace_ELBO()(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), 1.5e-2)
    assert -ImportanceWeightedELBO(5).loss(model, guide, x) / len(x) < evidence - 0.2
    for _ in range(200):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    for particles, gap in ((5, 0.1), (50, 0.05)):
        bound = -ImportanceWeightedELBO(particles).loss(model, guide, x) / len(x)
        assert evidence - gap < bound < evidence + 0.02


def symbols() -> TKAM:
    generator = nn.Sequential(nn.Linear(2, 20), nn.Unflatten(-1, (5, 4)))
    return TKAM(TiltedPrior((2,), grid_size=5), generator, CategoricalLikelihood())


class Both(nn.Module):
    """Reads an image and a label, with zeros and a class of its own where they are missing."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.label = nn.Linear(6, 4), nn.Embedding(4, 4)

    def forward(
        self, x: dict[str, torch.Tensor], observed: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        missing = ~(observed or {}).get("label", torch.ones(len(x["image"]), dtype=torch.bool))
        return self.image(x["image"]) + self.label(torch.where(missing, 3, x["label"]))


LABEL = torch.tensor([0, 2, -1, 1, -1])
DATA = {"image": torch.rand(5, 6), "label": LABEL.clamp_min(0)}
OTHERS = {
    "labeled": (lambda: labeled(6), None, (torch.rand(5, 6), LABEL)),
    "unlabeled": (lambda: labeled(6), None, (torch.rand(5, 6),)),
    "multimodal": (lambda: multimodal(6), Both, (DATA,)),
    "missing": (lambda: multimodal(6), Both, (DATA, {"label": LABEL >= 0})),
    "symbols": (
        symbols,
        lambda: nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(15, 4)),
        (torch.randint(4, (5, 5)),),
    ),
}


@pytest.mark.parametrize("objective", [*OBJECTIVES, "sleep", "refined"])
@pytest.mark.parametrize("kind", OTHERS)
def test_labels_modalities_and_symbols_have_guides_too(kind, objective):
    pyro.set_rng_seed(0)
    make, encoder, data = OTHERS[kind]
    model = make()
    guide = AmortizedGuide(model, hidden=(8,), encoder=encoder and encoder())
    elbo = {
        **OBJECTIVES,
        "sleep": lambda: WakeSleepMLE(4),
        "refined": lambda: LangevinMLE(num_steps=2),
    }[objective]()
    loss = elbo(model, guide)
    loss(*data, size=20)
    before = {name: value.detach().clone() for name, value in loss.named_parameters()}
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss(*data, size=20).backward()
        optimizer.step()
    still = [name for name, value in loss.named_parameters() if torch.equal(value, before[name])]
    assert not still


def test_the_whole_datas_size_is_read_wherever_it_stands():
    for make, encoder, data in OTHERS.values():
        guide = AmortizedGuide(make(), hidden=(8,), encoder=encoder and encoder())
        padding = [None] * (guide._arguments.index("size") - len(data))
        for others, named in (((*data[1:], *padding, 20), {}), (data[1:], {"size": 20})):
            trace = pyro.poutine.trace(guide).get_trace(data[0], *others, **named)
            assert trace.nodes["z"]["scale"] == 4


def test_where_an_encoder_is_needed_it_is_asked_for():
    with pytest.raises(
        ValueError,
        match=r"encoder must be a network from.*, got None for data of torch\.int64",
    ):
        AmortizedGuide(symbols())
    with pytest.raises(
        ValueError,
        match=r"encoder must be a network from a.*, got None",
    ):
        AmortizedGuide(multimodal(6))


class Below(dist.TransformedDistribution):
    """Numbers less than 2."""

    support = constraints.less_than(2.0)


def one_latent(fn):
    """A model whose latent has that distribution."""

    def model(x: torch.Tensor | None = None, size: int = 1) -> None:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", fn)
            location = z.reshape(*z.shape[: z.dim() - len(fn.event_shape)], -1)
            pyro.sample("x", dist.Normal(location.float(), 1.0).to_event(1), obs=x)

    return model


@pytest.mark.parametrize(
    "fn",
    [
        dist.LogNormal(0.0, 1.0),
        dist.Gamma(torch.full((3,), 2.0), 1.0).to_event(1),
        dist.Pareto(2.0, 1.0),
        Below(dist.LogNormal(0.0, 1.0), [AffineTransform(2.0, -1.0)]),
        dist.MultivariateNormal(torch.zeros(2), torch.eye(2)),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_latents_may_have_one_end_or_none(fn):
    """Wrong version: every second draw of a log-normal latent is negative."""
    pyro.set_rng_seed(0)
    model = one_latent(fn)
    x = torch.randn(200, fn.event_shape.numel())
    guide = AmortizedGuide(model)
    z = guide(x)
    assert fn.support.check(z).all()
    assert guide.posterior(x).log_prob(z).isfinite().all()
    assert pyro.infer.Trace_ELBO()(model, guide)(x).isfinite()


@pytest.mark.parametrize(
    "fn", [dist.Dirichlet(torch.ones(3)), dist.Poisson(2.0)], ids=lambda fn: type(fn).__name__
)
def test_latents_that_are_not_in_an_interval_are_refused(fn):
    with pytest.raises(
        ValueError, match="model must have real-valued latents, bounded or not, got 'z' in "
    ):
        AmortizedGuide(one_latent(fn))


def test_a_model_with_two_latent_sites_is_refused():
    def two(x: torch.Tensor | None = None, size: int = 1) -> None:
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0)) + pyro.sample("w", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"model must have a single latent site, got \['z', 'w'\]"):
        AmortizedGuide(two)
