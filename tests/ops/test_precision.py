"""Under autocast tables and log densities are those without it, to the bit; networks are not."""

import pyro
import pytest
import torch

from pyro_tkam.distributions import IsotropicNormal, JointEnergy, PairwiseBernoulli
from pyro_tkam.infer import ImportanceMLE, LangevinMLE
from pyro_tkam.infer.model.draws import draw_particles
from pyro_tkam.infer.model.structure import plate_structure
from pyro_tkam.models import (
    TKAM,
    AmortizedGuide,
    DecodedSequence,
    MixturePrior,
    SequenceLikelihood,
    TiltedPrior,
)
from pyro_tkam.nn import KAN, SequenceGenerator
from pyro_tkam.ops import table
from pyro_tkam.ops._precision import in_full_precision

PRIORS = {
    "tilted": lambda: TiltedPrior((4, 3), noise_scale=5.0),
    "spline": lambda: TiltedPrior((4, 3), "gaussian", basis="bspline", noise_scale=5.0),
    "learnable": lambda: TiltedPrior((4, 3), "learnable_gaussian", basis="chebyshev"),
    "mixture": lambda: MixturePrior(TiltedPrior((4, 3, 2), noise_scale=5.0)),
}
QUANTITIES = {
    "normalizer": lambda p: getattr(p, "components", p).log_normalizer,
    "icdf": lambda p: p.icdf(torch.linspace(0.01, 0.99, 7)[:, None, None]),
    "upper icdf": lambda p: p.icdf(torch.linspace(0.01, 0.99, 7)[:, None, None], upper=True),
    "cdf": lambda p: p.cdf(torch.linspace(0.1, 0.9, 7)[:, None, None]),
    "log_prob": lambda p: p.log_prob(torch.linspace(0.1, 0.9, 7)[:, None, None]),
    "coarse log_prob": lambda p: p.log_prob(
        torch.linspace(0.125, 0.875, 7)[:, None, None].bfloat16().float()
    ),
    "mean": lambda p: p.mean,
    "variance": lambda p: p.variance,
    "entropy": lambda p: p.entropy(),
    "divergence": lambda p: torch.distributions.kl_divergence(p, p),
    "quadrature_error": lambda p: p.quadrature_error,
}


def half():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_the_same_to_the_bit(name, quantity):
    torch.manual_seed(0)
    prior = PRIORS[name]()
    exact = QUANTITIES[quantity](prior())
    with half():
        value = QUANTITIES[quantity](prior())
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)


def test_half_precision_values_are_taken():
    prior = TiltedPrior((4, 3))()
    z = torch.rand(5, 4, 3).bfloat16()
    with half():
        value = prior.log_prob(z)
    assert torch.equal(value, prior.log_prob(z.float()))


def test_an_unguarded_table_would_be_rounded():
    """What would go unnoticed if the law above were too weak."""
    unguarded = table.tabulate
    arguments = (
        lambda z: -z,
        torch.tensor(0.0),
        torch.tensor(1.0),
        torch.Size(),
        table.gauss_legendre(8),
    )
    exact = unguarded(*arguments)
    with half():
        rounded, guarded = unguarded(*arguments), in_full_precision(unguarded)(*arguments)
    assert not torch.allclose(rounded.log_normalizer.float(), exact.log_normalizer, atol=1e-6)
    assert torch.equal(guarded.log_normalizer, exact.log_normalizer)


@pytest.mark.parametrize(
    "score",
    [
        lambda x: IsotropicNormal(
            torch.linspace(0, 1, 90).reshape(6, 1, 15), torch.tensor(0.1)
        ).log_prob(x),
        lambda x: PairwiseBernoulli(torch.linspace(-2, 2, 90).reshape(6, 1, 15)).log_prob(
            x.round()
        ),
    ],
    ids=["gaussian", "bernoulli"],
)
def test_scores_of_all_pairs_are_the_same_to_the_bit(score):
    x = torch.rand(8, 15, generator=torch.Generator().manual_seed(0))
    with half():
        value = score(x)
    assert torch.equal(value, score(x))


def test_a_joint_energy_is_the_same_to_the_bit():
    torch.manual_seed(0)
    energy = torch.nn.Linear(3, 1)
    z = torch.randn(5, 3)

    def log_prob():
        return JointEnergy(
            lambda z: energy(z).squeeze(-1), torch.distributions.Normal(torch.zeros(3), 1.0)
        ).log_prob(z)

    with half():
        value = log_prob()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, log_prob(), rtol=0, atol=0)


def test_texts_are_scored_and_drawn_in_single_precision(monkeypatch):
    """
    What the half-precision decoder says is summed in single precision: the wrong version is off by
    rounding.
    """
    torch.manual_seed(0)
    decoder = SequenceGenerator(3, 7, 9, width=8, num_heads=2, num_layers=1)
    z, tokens, seen = torch.randn(5, 1, 3), torch.randint(7, (4, 9)), []
    fn = DecodedSequence(decoder, z)
    make = torch.distributions.Categorical
    monkeypatch.setattr(
        torch.distributions,
        "Categorical",
        lambda logits, **options: seen.append(logits.dtype) or make(logits=logits),
    )
    with half():
        value, logits = fn.log_prob(tokens), decoder(z, tokens)
        fn.sample()
    assert logits.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    exact = (
        logits.double()
        .log_softmax(-1)
        .gather(-1, tokens.expand(5, 4, 9).unsqueeze(-1))
        .sum((-1, -2))
    )
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("basis", ["rbf", "bspline", "chebyshev", "fourier"])
def test_networks_do_compute_in_half_precision(basis):
    torch.manual_seed(0)
    network, s = KAN([3, 20, 4], basis=basis), torch.randn(5, 3)
    with half():
        output = network(s)
    assert not torch.equal(output, network(s))
    torch.testing.assert_close(output.float(), network(s), rtol=0.1, atol=0.05)


def of_images(preset):
    return getattr(TKAM, preset)(16, latent_dim=3), torch.rand(5, 16)


def of_texts():
    decoder = SequenceGenerator(3, 7, 9, width=8, num_heads=2, num_layers=1)
    return TKAM(TiltedPrior(3, "gaussian"), torch.nn.Identity(), SequenceLikelihood(decoder))


@pytest.mark.parametrize("preset", ["kart", "mixture", "deep", "sequence"])
def test_weights_are_in_single_precision(preset):
    pyro.set_rng_seed(0)
    model, x = (of_texts(), torch.randint(7, (5, 9))) if preset == "sequence" else of_images(preset)
    with half():
        particles = draw_particles(model, None, 8, plate_structure(model, (x,), {}), x)
        assert particles.log_weights.dtype == particles.log_prior.dtype == torch.float32
        # its encoder reads numbers
        amortized = None if preset == "sequence" else AmortizedGuide(model)
        for objective, guide in ((ImportanceMLE(8), amortized), (LangevinMLE(step_size=0.1), None)):
            loss = objective(model, guide)(x)
            assert loss.dtype == torch.float32
            loss.backward()
