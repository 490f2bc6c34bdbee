"""Priors that start from what is known, and priors that move between models."""

from __future__ import annotations

import copy
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroSample

from benchmarks.knowledge import FORMULA, TARGET, compared, on_digits, planted
from pyro_tkam.distributions import ExponentiallyTilted
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, GaussianLikelihood, LabeledPrior, MixturePrior, TiltedPrior
from pyro_tkam.ops.quadrature import composite, gauss_legendre


def divergence(prior: TiltedPrior) -> torch.Tensor:
    z = torch.linspace(-4, 4, 4001)
    target = TARGET.log_prob(z)
    with torch.no_grad():
        return torch.trapezoid(target.exp() * (target - prior().log_prob(z)), z)


@pytest.mark.parametrize("reference", ["gaussian", "learnable_gaussian"])
@pytest.mark.parametrize("basis", ["rbf", "bspline", "rswaf", "fourier", "mexican_hat"])
def test_the_fit_is_near_the_target(basis, reference):
    torch.manual_seed(0)
    prior = TiltedPrior((), reference, basis=basis)
    before = divergence(prior)
    for target in ({"density": TARGET}, {"density": TARGET.log_prob}, {"formula": FORMULA}):
        prior.fit(**target)
        assert divergence(prior) < 1e-2
    prior.fit(TARGET.sample((2000,)).clamp(-4, 4))
    # twice the divergence from the truth is chi-squared with at most 41 degrees of freedom over N:
    # mean .0103
    assert divergence(prior) < 0.03
    assert before > 0.5


def test_the_fit_is_the_maximum_of_the_likelihood():
    torch.manual_seed(0)
    samples = TARGET.sample((500, 2)).clamp(-4, 4)
    prior = TiltedPrior(2, "gaussian", -4.0, 4.0, basis="bspline", grid_size=8).double()
    prior.fit(samples.double())
    loss = -prior().log_prob(samples.double()).mean(0).sum()
    (gradient,) = torch.autograd.grad(loss, prior.energies.coefficients)
    ridge = 1e-6 * prior.energies.coefficients
    assert torch.allclose(gradient, -ridge, atol=1e-6)
    assert gradient.abs().max() < 1e-3


def test_what_cannot_be_fitted():
    prior = TiltedPrior(())
    state = {name: value.clone() for name, value in prior.state_dict().items()}
    for target, message in (
        ({}, r"exactly one of samples, density and formula must.*, got none"),
        (
            {"samples": torch.rand(5), "formula": "z"},
            r"exactly one of samples, density and formula must.*, got \['samples', 'formula'\]",
        ),
        (
            {"samples": torch.tensor([0.5, 1.5])},
            r"samples must lie in \[0, 1\], got values outside",
        ),
        (
            {"samples": torch.tensor([torch.nan])},
            r"samples must lie in \[0, 1\], got values outside",
        ),
        (
            {"formula": "z - 0.5"},
            r"formula must be a density on the prior's interval, got z - 0\.5",
        ),
        (
            {"density": lambda z: z.log() - torch.inf},
            r"density must be finite with mass.*, got one that is not",
        ),
        (
            {"samples": torch.empty(0)},
            r"samples must have shape \(N,\) or \(N, \*\(\)\) with N >= 1, got \(0,\)",
        ),
        (
            {"formula": "sqrt(z - 0.5)"},
            r"formula must be a density on the prior's interval, got sqrt\(z - 0\.5\)",
        ),
        (
            {"formula": "exp(2000*z)"},
            r"formula must be a density on the prior's interval, got exp\(2000\*z\)",
        ),
        (
            {"formula": "exp(-2000*(z + 1))"},
            r"formula must be a density on the.*, got exp\(-2000\*\(z \+ 1\)\)",
        ),
        ({"formula": "z", "ridge": 0.0}, r"ridge must be positive and finite, got 0\.0"),
        ({"formula": "z", "ridge": math.inf}, "ridge must be positive and finite, got inf"),
    ):
        with pytest.raises(ValueError, match=message):
            prior.fit(**target)
    assert all(torch.equal(value, state[name]) for name, value in prior.state_dict().items())


@pytest.mark.parametrize("target", [{"density": TARGET}, {"formula": FORMULA}, {"samples": None}])
def test_a_mixture_is_fitted_and_its_components_part(target):
    """
    The mixture is the target, whatever its weights; wrong version: equal components, with equal
    gradients.
    """
    pyro.set_rng_seed(0)
    prior = MixturePrior(TiltedPrior((2, 3), "gaussian", basis="bspline"))
    with torch.no_grad():
        prior.logits.normal_()
    prior.fit(
        **({"samples": TARGET.sample((2000, 2)).clamp(-4, 4)} if "samples" in target else target)
    )
    assert list(pyro.get_param_store()) == []
    z = torch.linspace(-4, 4, 4001)
    log_p = TARGET.log_prob(z)
    found = prior().log_prob(z[:, None])
    divergences = torch.trapezoid(log_p.exp() * (log_p - found.detach().T), z)
    assert (divergences < (0.03 if "samples" in target else 1e-2)).all()
    found[::100].square().sum().backward()
    gradient = prior.components.energies.coefficients.grad / prior.logits.detach().softmax(
        -1
    ).unsqueeze(-1)
    assert (gradient[:, 0] - gradient[:, 1]).abs().max() > 1e-5 * gradient.abs().max()


def test_targets_of_a_mixture_and_of_labels_by_place():
    """
    Samples of each latent go to its mixture, and those of each label and latent to that density.
    """
    pyro.set_rng_seed(0)
    places = torch.tensor([-1.0, 0.0, 1.5])
    samples = (places + 0.3 * torch.randn(2000, 3)).clamp(-4, 4)
    mixture, labeled = MixturePrior(TiltedPrior((3, 2), "gaussian")), LabeledPrior(3, 2)
    mixture.fit(samples)
    labeled.fit(samples.unsqueeze(-1))
    assert torch.allclose(mixture().mean.detach(), places, atol=0.05)
    assert torch.allclose(
        labeled.components().mean.detach(), places[:, None].expand(3, 2), atol=0.05
    )
    state = {name: value.clone() for name, value in mixture.state_dict().items()}
    for options, message in (
        ({}, r"exactly one of samples, density and formula must.*, got none"),
        (
            {"samples": samples, "noise_scale": -1.0},
            r"noise_scale must be at least 0, got -1\.0",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            mixture.fit(**options)
    assert all(torch.equal(value, state[name]) for name, value in mixture.state_dict().items())


def test_the_formula_of_a_mixture():
    prior = MixturePrior(TiltedPrior((2, 3), basis="bspline"))
    prior.fit(formula="exp(-3*z)", ridge=1e-8)
    [best] = prior.symbolic((1,), library=["linear"])
    assert best.parameters[0] * best.parameters[1] == pytest.approx(-3, abs=0.05)
    with pytest.raises(ValueError, match=r"index must be valid for batch_shape \(2,\), got \(2,\)"):
        prior.symbolic((2,))


def test_the_formula_of_a_density():
    prior = TiltedPrior((), "uniform", basis="bspline")
    prior.fit(formula="exp(-3*z)", ridge=1e-8)
    [best, *_] = prior.symbolic()
    assert best.name == "linear"
    slope, error = best.parameters[0], best.standard_errors[0]
    assert slope == pytest.approx(-3, abs=0.05)
    assert abs(slope + 3) < 4 * error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("train", "gain"), [(planted, 0.3), (on_digits, 0.1)])
def test_an_informed_run_needs_at_most_half_the_updates(train, gain):
    found = compared(train, seed=0)
    assert found["final"] > found["uninformed"][0] + gain  # there is something to learn
    assert found["informed_updates"] <= found["updates"] / 2
    assert found["uninformed_updates"] > found["updates"] / 2  # a run without it does not


def test_a_learned_prior_moves_to_another_generator():
    """
    The state of a prior, grids included, is all that another model needs; frozen, it stays as it
    was.
    """
    pyro.set_rng_seed(0)
    first = TKAM.kart(6, latent_dim=2, grid_size=5)
    first.prior.fit(dist.Beta(2.0, 5.0).sample((300,)))
    first.update_grid(50)
    second = TKAM.kart((3, 4), latent_dim=2, grid_size=5, widths=[7])
    second.prior.load_state_dict(first.prior.state_dict())
    second.prior.requires_grad_(False)
    # the second's table would warn of an error of its CDF above its tolerance
    z = torch.rand(7, 5, 2)
    assert torch.equal(second.prior().log_prob(z), first.prior().log_prob(z))
    optimizer = torch.optim.Adam([p for p in second.parameters() if p.requires_grad], lr=0.01)
    before = second.generator.outer.layers[0].coefficients.detach().clone()
    ImportanceMLE(20)(second, None)(torch.rand(8, 3, 4)).backward()
    optimizer.step()
    assert torch.equal(second.prior().log_prob(z), first.prior().log_prob(z))
    assert not torch.equal(second.generator.outer.layers[0].coefficients, before)


def nothing(prior):
    return prior


def fitted(prior):
    prior.fit(formula="z*(1 - z)")
    return prior


def updated(prior):
    prior.update_grid(torch.rand(50, 3))
    return prior


def read(prior):
    prior.symbolic((1,))
    return prior


def pruned_mixture(prior):
    mixture = MixturePrior(TiltedPrior((3, 2)))
    mixture.update_grid(torch.rand(50, 3))
    mixture()
    return mixture.prune(0.1)


@pytest.mark.parametrize(
    "prepare", [nothing, fitted, updated, read, pruned_mixture], ids=lambda f: f.__name__
)
def test_a_prepared_prior_becomes_part_of_a_model(prepare):
    """
    Pyro attaches no module that has run; names outside of the model would take over another's
    parameters.
    """
    pyro.set_rng_seed(0)
    prior = prepare(TiltedPrior((3,)))
    pyro.clear_param_store()
    expected = {f"prior.{name}": value.clone() for name, value in prior.state_dict().items()}
    model = TKAM(prior, torch.nn.Linear(3, 4), GaussianLikelihood(0.1))
    ImportanceMLE(8)(model, None)(torch.rand(6, 4)).backward()
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_two_fitted_priors_are_strangers():
    first, second = TiltedPrior(()), TiltedPrior(())
    first.fit(formula="z")
    second.fit(formula="1 - z")
    assert list(pyro.get_param_store()) == []
    assert float(first().mean.detach()) == pytest.approx(2 / 3, abs=1e-3)


def test_a_pruned_mixture_is_smaller_and_equal():
    pyro.set_rng_seed(0)
    prior = MixturePrior(TiltedPrior((3, 4), grid_size=6))
    prior.update_grid(prior().sample((50,)))
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([[1.0, -40, 0, -40], [-40, 2, -40, -40], [-40, 0, 1, -40]]))
    pruned = prior.prune(1e-9)
    assert pruned.logits.shape == (3, 2)
    z = torch.rand(9, 3)
    torch.testing.assert_close(pruned().log_prob(z), prior().log_prob(z), atol=1e-5, rtol=0)
    loss = -pruned().log_prob(z).sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in pruned.parameters())
    assert prior.prune(1.0).logits.shape == (3, 1)


def test_components_with_references_of_their_own_are_not_pruned():
    """Wrong version: energies are sorted by weight, and references are not."""

    def around(places):
        return MixturePrior(TiltedPrior((2, 3), dist.Normal(torch.tensor(places), 0.3), -4.0, 4.0))

    prior = around([-2.0, 0.0, 2.0])
    with pytest.raises(
        ValueError, match=r"reference must be the same for all components, got one for each, \(3,\)"
    ):
        prior.prune(0.0)
    prior = around([[-2.0], [2.0]])  # one for each mixture
    with torch.no_grad():
        prior.logits[:, 1] = -30.0
    torch.testing.assert_close(prior.prune(1e-9)().mean, prior().mean)


@pytest.mark.parametrize("name", ["coefficients", "scale", "base_weight"])
def test_random_weights_are_neither_fitted_nor_pruned(name):
    """Wrong version: what is a parameter changes, what is random stays."""
    prior = MixturePrior(TiltedPrior((2, 3), grid_size=4))
    energies = prior.components.energies
    shape = getattr(energies, name).shape
    setattr(energies, name, PyroSample(dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))))
    state = {name: value.clone() for name, value in prior.state_dict().items()}
    for call in (
        lambda: prior.fit(torch.rand(50)),
        lambda: prior.fit(formula="z"),
        lambda: prior.prune(0.0),
    ):
        with pytest.raises(
            TypeError, match=f"{name} must be a parameter for (a fit|pruning), got random values"
        ):
            call()
    assert all(torch.equal(value, state[name]) for name, value in prior.state_dict().items())


def test_random_logits_are_not_pruned():
    """Wrong version: one draw of them becomes a parameter."""
    prior = MixturePrior(TiltedPrior((2, 3), grid_size=4))
    prior.logits = PyroSample(dist.Normal(0.0, 1.0).expand((2, 3)).to_event(2))
    with pytest.raises(TypeError, match="logits must be a parameter for pruning"):
        prior.prune(0.0)


@pytest.mark.parametrize("basis", ["rbf", "bspline"])
def test_tables_stay_accurate_after_a_grid_update(basis):
    """
    Every function has a grid of its own, whose knots are the edges of its cells; warnings would be
    errors here.
    """
    for seed in range(6):
        pyro.set_rng_seed(seed)
        model = TKAM.kart(6, latent_dim=2, grid_size=5, basis=basis)
        model.prior.fit(dist.Beta(2.0, 5.0).sample((300,)))
        model.update_grid(50)
        single, double = model.prior(), copy.deepcopy(model.prior).double()()
        z = torch.linspace(0, 1, 401).reshape(-1, 1, 1)
        # terms of up to 300 cancel in the energy, so that float32 rounds it by 1e-5 or so
        error = (single.cdf(z).double() - double.cdf(z.double())).abs().amax(0)
        assert (error <= single.quadrature_error).all()
        assert (error < 5e-6).all()
    energy = copy.deepcopy(model.prior.energies).double().bound()
    fine = ExponentiallyTilted(energy, low=0.0, high=1.0, quadrature=composite(8, 12))
    torch.testing.assert_close(double.cdf(z.double()), fine.cdf(z.double()), atol=1e-9, rtol=0)
    # no cell ends at a knot
    coarse = ExponentiallyTilted(energy, low=0.0, high=1.0, quadrature=gauss_legendre(20))
    assert (coarse.cdf(z.double()) - fine.cdf(z.double())).abs().max() > 1e-7


def test_smoothness_smooths_a_fourier_prior():
    """
    Few samples make the most likely series rough, as the paper found; the penalty leaves a
    hundredth of it.
    """
    torch.manual_seed(0)
    truth = dist.Beta(2.0, 5.0)
    samples, held_out = truth.sample((300,)), truth.sample((4000,))
    prior = TiltedPrior((), "uniform", basis="fourier", grid_size=20)
    prior.fit(samples, ridge=1e-2)

    def roughness():
        return prior.energies.regularization(l1=0.0, entropy=0.0, smoothness=1.0)

    def fit():
        return float(prior().log_prob(held_out).mean().detach())

    rough, rough_fit = float(roughness().detach()), fit()
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (1e-6 * roughness() - prior().log_prob(samples).mean()).backward()
        optimizer.step()
    assert float(roughness().detach()) < 1e-2 * rough
    assert fit() > rough_fit
    assert fit() > float(truth.log_prob(held_out).mean()) - 0.05


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (np.zeros(5), TypeError, "samples must be a tensor, got ndarray"),
        (
            torch.zeros(5, 4),
            ValueError,
            r"samples must have shape \(N,\) or.*, got \(5, 4\)",
        ),
        (torch.zeros(5, 2, 3), ValueError, r"samples must have shape \(N,\) or.*, got \(5, 2, 3\)"),
    ],
)
def test_samples_to_fit_are_checked(samples, error, message):
    with pytest.raises(error, match=message):
        TiltedPrior(3, "gaussian").fit(samples)


def test_priors_of_one_function_are_told_apart_by_the_names_they_are_given():
    """Without names they would share parameters, as modules of one kind do in Pyro."""
    first, second = TiltedPrior((), "gaussian"), TiltedPrior((), "gaussian")

    def model(named):
        for name, prior in (("first", first), ("second", second)):
            if named:
                pyro.module(name, prior)
            pyro.sample(name, prior())

    for named in (True, False):
        with pyro.get_param_store().scope():
            pyro.clear_param_store()
            model(named)
            stored = {parameter for _, parameter in pyro.get_param_store().named_parameters()}
            assert all(
                (prior.energies.coefficients in stored) is named or prior is first
                for prior in (first, second)
            )
