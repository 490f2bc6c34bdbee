"""Functions keep to their constraint, and a planted one is found better with it."""

import math

import pytest
import torch

from pyro_tkam.models import TKAM, TiltedPrior
from pyro_tkam.nn import KAN, KANLayer, UnivariateFunctions
from pyro_tkam.train.grid_updates import GridUpdates

BASES = {
    "increasing": ["bspline"],
    "decreasing": ["bspline"],
    "even": ["bspline", "rbf", "rswaf", "fourier", "chebyshev", "mexican_hat"],
    "periodic": ["fourier"],
}
CASES = [(name, basis) for name, bases in BASES.items() for basis in bases]


def rough(bank):
    """Give functions coefficients of size 3, as no training would."""
    with torch.no_grad():
        bank.coefficients.copy_(3 * torch.randn(bank.coefficients.shape))
    return bank.double()


@pytest.mark.parametrize(("constraint", "basis"), CASES)
def test_functions_keep_to_their_constraint_whatever_the_parameters(constraint, basis):
    torch.manual_seed(0)
    options = {"periods": 3} if constraint == "periodic" else {}
    bank = rough(UnivariateFunctions((20,), basis, -2.0, 2.0, 9, constraint=constraint, **options))
    assert bank.weight_names == ("coefficients",)
    z = torch.linspace(-2, 2, 401, dtype=torch.float64).unsqueeze(-1)
    with torch.no_grad():
        values = bank(z)
        other = {
            "increasing": lambda: values.cummax(0).values,
            "decreasing": lambda: values.cummin(0).values,
            "even": lambda: bank(-z),
            "periodic": lambda: bank(z + 4 / 3),
        }[constraint]()
    torch.testing.assert_close(values, other, rtol=0, atol=1e-12 * float(values.abs().max()))
    assert (values.std(0) > 0.01).all()
    free = rough(UnivariateFunctions((20,), basis, -2.0, 2.0, 9))
    assert not torch.allclose(free(z), free(-z))


def test_monotone_edges_go_on_outside_of_their_grid():
    torch.manual_seed(0)
    network = KAN([3, 5, 2], constraint="increasing", grid_size=6)
    for layer in network.layers:
        rough(layer)
    x = torch.rand(500, 3, dtype=torch.float64) * 12 - 6
    more = x + torch.rand(500, 3, dtype=torch.float64)
    with torch.no_grad():
        assert (network.double()(more) >= network(x)).all()


PLANTED = {
    "increasing": (lambda z: 3 * z, {"basis": "bspline"}),
    "even": (lambda z: 2 * torch.cos(4 * math.pi * z), {"basis": "rbf"}),
    "periodic": (lambda z: 1.5 * torch.sin(8 * math.pi * z), {"basis": "fourier"}),
    "smooth": (lambda z: 1.5 * torch.sin(2 * math.pi * z), {"basis": "fourier"}),
}
SEEDS = 5


def misfit(energies, samples, options, smoothness):
    """Fit densities to the samples of each seed; return their divergences from the planted one."""
    torch.manual_seed(0)
    prior = TiltedPrior((SEEDS,), grid_size=8, **options)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        penalty = prior.energies.regularization(l1=0.0, entropy=0.0, smoothness=smoothness)
        (penalty - prior().log_prob(samples).mean(0).sum()).backward()
        optimizer.step()
    z = ((torch.arange(400) + 0.5) / 400).unsqueeze(-1)
    log_density = energies(z).log_softmax(0) + math.log(400)
    with torch.no_grad():
        return (log_density.exp() * (log_density - prior().log_prob(z))).mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("constraint", PLANTED)
def test_a_planted_energy_is_found_better_with_its_constraint(constraint):
    energies, options = PLANTED[constraint]
    torch.manual_seed(0)
    z = ((torch.arange(400) + 0.5) / 400).unsqueeze(-1)
    rows = torch.multinomial(energies(z.squeeze(-1)).softmax(0), 40 * SEEDS, replacement=True)
    samples = z[rows].reshape(40, SEEDS)
    with_it = {"smooth": {}, "periodic": {"constraint": "periodic", "periods": 4}}.get(
        constraint, {"constraint": constraint}
    )
    free = misfit(energies, samples, options, 0.0)
    own = misfit(energies, samples, {**options, **with_it}, 1e-4 if constraint == "smooth" else 0.0)
    difference = free - own
    error = difference.std() / math.sqrt(SEEDS)
    assert difference.mean() > 2 * error
    assert difference.mean() > 0.1 * free.mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("constraint", "basis", "planted"),
    [
        ("increasing", "bspline", lambda x: torch.tanh(2 * x)),
        ("even", "bspline", lambda x: torch.cos(2 * x)),
        ("periodic", "fourier", lambda x: torch.sin(math.pi * x)),
    ],
)
def test_a_planted_edge_is_found_better_with_its_constraint(constraint, basis, planted):
    """By the ratio of their errors, since those of free edges have no bound."""
    torch.manual_seed(0)
    x = 4 * torch.rand(48, SEEDS) - 2
    y = planted(x) + 0.5 * torch.randn(48, SEEDS)
    grid = torch.linspace(-2, 2, 200).unsqueeze(-1)

    def error(**options):
        torch.manual_seed(1)
        layers = [KANLayer(1, 1, basis, grid_size=10, **options) for _ in range(SEEDS)]
        parameters = [each for layer in layers for each in layer.parameters()]
        optimizer = torch.optim.LBFGS(parameters, max_iter=30, line_search_fn="strong_wolfe")

        def outputs(x):
            return torch.cat([layer(x[:, i : i + 1]) for i, layer in enumerate(layers)], 1)

        def loss():
            optimizer.zero_grad()
            value = (outputs(x) - y).square().mean(0).sum()
            value.backward()
            return value

        optimizer.step(loss)
        with torch.no_grad():
            return (outputs(grid.expand(-1, SEEDS)) - planted(grid)).square().mean(0)

    options = {"constraint": constraint, **({"periods": 2} if constraint == "periodic" else {})}
    difference = (error() / error(**options)).log()
    assert difference.mean() > 2 * difference.std() / math.sqrt(SEEDS)


@pytest.mark.parametrize(
    ("basis", "options", "message"),
    [
        ("rbf", {"constraint": "increasing"}, "basis must be 'bspline' for monotone.*, got 'rbf'"),
        ("rbf", {"constraint": "periodic"}, "basis must be 'fourier' for periodic.*, got 'rbf'"),
        (
            "fourier",
            {"constraint": "periodic", "periods": 9},
            "periods must be from 1 to grid_size, 8, got 9",
        ),
        ("chebyshev", {"constraint": "even"}, r"low must be -high for even.*, got 0\.0 and 1\.0"),
        (
            "fourier",
            {"constraint": "even", "trainable_width": True},
            "width must be 1 and fixed for a constrained Fourier series",
        ),
        ("rbf", {"periods": 2}, "periods must be 1 for functions that are not periodic, got 2"),
        ("rbf", {"constraint": "odd"}, "constraint must be one of .*, got 'odd'"),
    ],
)
def test_what_a_basis_cannot_keep_to_is_refused(basis, options, message):
    with pytest.raises(ValueError, match=message):
        UnivariateFunctions(2, basis, grid_size=8, **options)


def test_constrained_functions_keep_their_coefficients_and_their_grid():
    prior = TiltedPrior((2,), basis="bspline", constraint="increasing")
    with pytest.raises(ValueError, match="constraint must be 'none' for a grid update, got 'incr"):
        prior.update_grid(torch.rand(50, 2))
    with pytest.raises(ValueError, match="constraint must be 'none' for a fit, got 'increasing'"):
        prior.fit(density=torch.distributions.Normal(0.5, 0.2))
    model = TKAM.mixture(3, 2, 2, basis="bspline", energy_constraint="increasing")
    assert model.prior.components.energies.constraint == "increasing"
    assert {layer.constraint for layer in model.generator.outer.layers} == {"none"}
    model = TKAM.mixture(3, 2, 2, basis="bspline", edge_constraint="increasing")
    assert {layer.constraint for layer in model.generator.outer.layers} == {"increasing"}
    module = type("Module", (), {"objective": type("Objective", (), {"model": model})})
    with pytest.raises(ValueError, match="constraint must be 'none' for grid updates"):
        GridUpdates().on_train_start(None, module)
