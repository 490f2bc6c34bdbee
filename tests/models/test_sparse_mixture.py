"""Mixtures that lose the components which few data need."""

from __future__ import annotations

import pyro
import pytest
import torch

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, GaussianLikelihood, MixturePrior, TiltedPrior


def two_clusters() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(500, 1, generator=generator) * 0.3 + shift for shift in (-2, 2)])


def mixture(components: int = 6) -> TKAM:
    bank = TiltedPrior((1, components), "gaussian", basis="rbf", grid_size=8)
    return TKAM(MixturePrior(bank), torch.nn.Identity(), GaussianLikelihood(0.3))


def test_counts_are_those_of_bayes_and_a_light_component_goes():
    torch.manual_seed(0)
    prior = MixturePrior(TiltedPrior((1, 3), "gaussian", grid_size=8))
    with torch.no_grad():
        prior.components.energies.coefficients.normal_()
        prior.logits.copy_(torch.tensor([[1.0, 0.0, -4.0]]))
    fn = prior()
    z = fn.sample((20, 50))
    counts = prior.reweigh(z, torch.full((20, 50), 0.05), penalty=5.0, size=100)
    by_hand = 100 * fn.responsibilities(z).mean((0, 1))
    torch.testing.assert_close(counts, by_hand)
    assert by_hand[0, 2] < 5
    kept = by_hand[0, :2] - 5
    weights = prior().weights[0]
    torch.testing.assert_close(weights, torch.cat([kept / kept.sum(), torch.zeros(1)]))
    small = prior.prune(1e-12)
    assert small.logits.shape == (1, 2)
    u = torch.linspace(0.01, 0.99, 99)[:, None]
    torch.testing.assert_close(small().icdf(u), prior().icdf(u), atol=1e-4, rtol=0)


@pytest.mark.parametrize("penalty", [1e9, 0.0])
def test_the_largest_component_always_stays(penalty):
    prior = mixture().prior
    prior.reweigh(prior().sample((4, 5)), torch.full((4, 5), 0.25), penalty=penalty)
    assert prior().weights.isfinite().all()


@pytest.mark.slow
def test_fewer_components_are_kept_along_a_path_of_penalties():
    """One of six seeds, which kept 6, 5 or 6, and 2."""
    x, model = two_clusters(), mixture()
    pyro.set_rng_seed(0)
    objective = ImportanceMLE(100)(model, None)
    model.reweigh(x)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 5e-2)
    kept = []
    for penalty, updates in ((0.0, 120), (20.0, 80), (80.0, 150)):
        for update in range(updates):
            optimizer.zero_grad()
            (objective(x[torch.randint(1000, (100,))]) / 100).backward()
            optimizer.step()
            if update % 10 == 9:
                model.reweigh(x, penalty=penalty)
        kept.append(int((model.prior().weights > 0).sum()))
    assert kept[0] >= kept[1] >= kept[2] == 2
    assert abs(model.prior().variance.sqrt().item() - 2.0) < 0.1


def test_refuses_negative_penalties_and_priors_that_are_no_mixture():
    with pytest.raises(ValueError, match="penalty must be"):
        mixture().reweigh(two_clusters(), penalty=-1.0)
    with pytest.raises(TypeError, match="prior must be a MixturePrior"):
        TKAM.kart(1, 1).reweigh(two_clusters())


def test_components_keep_their_own_grids_whatever_their_order_in_a_mixture():
    torch.manual_seed(0)
    prior = MixturePrior(TiltedPrior((2, 3)))
    with torch.no_grad():
        prior.components.energies.coefficients.mul_(30.0)
        prior.logits.copy_(torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]))
    # a grid for each component, shared by the two mixtures, which order them differently
    prior.components.energies.update_grid(
        torch.rand(200, 3) ** torch.tensor([1.0, 3.0, 6.0]), max_change=1.0
    )
    grid = prior.components.energies.basis.grid
    assert grid.shape[:-1] == (3,)
    assert not torch.equal(grid[0], grid[2])
    z = torch.linspace(0.05, 0.95, 7)[:, None]
    torch.testing.assert_close(prior.prune(0.0)().log_prob(z), prior().log_prob(z))
