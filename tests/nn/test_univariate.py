"""Banks of functions: shapes, parameters, starts, and life inside of a Pyro model."""

from __future__ import annotations

import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroSample
from torch.nn.functional import silu

from pyro_tkam.nn import Basis, UnivariateFunctions
from pyro_tkam.ops.bases import BASES

NAMES = list(BASES)
POLYNOMIALS = ["chebyshev", "gegenbauer"]


@pytest.fixture(autouse=True)
def _seed():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


@pytest.mark.parametrize("name", NAMES)
def test_formula_and_shapes(name):
    bank = UnivariateFunctions((4, 3), name, grid_size=5).double()
    energy = bank.bound()
    assert energy.batch_shape == (4, 3)
    for shape in [(), (3,), (4, 1), (7, 1, 1), (7, 4, 3), (2, 7, 4, 3)]:
        z = torch.rand(shape, dtype=torch.double)
        expected = (energy.basis(z) * bank.coefficients).sum(-1)
        if name not in POLYNOMIALS:
            expected = bank.scale * expected + bank.base_weight * silu(z)
        assert energy(z).shape == torch.broadcast_shapes(shape, (4, 3))
        assert torch.allclose(energy(z), expected)
        assert torch.equal(bank(z), energy(z))


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials_stand_alone(name):
    bank = UnivariateFunctions(3, name)
    assert bank.scale is None
    assert bank.base_weight is None
    assert bank.knots is None
    assert [key for key, _ in bank.named_parameters()] == ["coefficients"]


def test_knots_are_shared_and_inside():
    assert torch.equal(
        UnivariateFunctions(3, "bspline", -1.0, 2.0, 6).knots, torch.linspace(-1, 2, 7)
    )
    assert torch.equal(
        UnivariateFunctions(3, "rbf", -1.0, 2.0, 6).bound().knots, torch.linspace(-1, 2, 6)
    )


def test_shared_points_evaluate_the_basis_once(monkeypatch):
    bank = UnivariateFunctions((81, 40))
    seen = []
    kind = type(bank.basis.bound())
    evaluate = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, z: seen.append(z.numel()) or evaluate(self, z)
    )
    assert bank(torch.rand(50, 1, 1)).shape == (50, 81, 40)
    assert seen == [50]


def test_start_of_base_weights_and_scales():
    """
    Uniform on mean ± spread, over √n; KS below 1.95/√N fails for a right one once in a thousand
    (seed fixed).
    """
    bank = UnivariateFunctions(
        (100, 100), fan_in=16, base_mean=0.5, base_spread=2.0, spline_scale=3.0
    )
    assert torch.allclose(bank.scale, torch.full((100, 100), 3.0 / 4))
    uniform = ((bank.base_weight.detach() * 4 - 0.5) / 2 + 1) / 2  # to [0, 1]
    ordered = uniform.flatten().sort().values
    ranks = (torch.arange(10_000) + 0.5) / 10_000
    assert ordered.min() >= 0
    assert ordered.max() <= 1
    assert (ordered - ranks).abs().max() < 1.95 / math.sqrt(10_000)


def test_start_of_coefficients():
    """At the centers the functions start as noise on ±(noise_scale / 2F)."""
    bank = UnivariateFunctions(2000, "rbf", grid_size=10, noise_scale=0.3)
    values = bank.basis.bound()(bank.knots) @ bank.coefficients.detach().mT
    bound = 0.5 * 0.3 / 10
    # a small part of the noise is out of reach of smooth functions
    assert values.abs().max() < 1.1 * bound
    assert abs(values.std() / (bound / math.sqrt(3)) - 1) < 0.1
    assert (UnivariateFunctions(5, noise_scale=0.0).coefficients == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles(name):
    bank = UnivariateFunctions((2, 3), name, trainable_width=name != "bspline")
    z = torch.rand(5, 2, 3)
    expected = bank(z)
    energy = bank.bound()
    for other in (
        copy.deepcopy(bank),
        pickle.loads(pickle.dumps(bank)),
        copy.deepcopy(energy),
        pickle.loads(pickle.dumps(energy)),
    ):
        assert torch.equal(other(z), expected)
    fresh = UnivariateFunctions((2, 3), name, trainable_width=name != "bspline")
    fresh.load_state_dict(bank.state_dict())
    assert torch.equal(fresh(z), expected)
    assert bank.double()(z.double()).dtype == torch.double


def test_energy_made_inside_of_a_model_pickles():
    bank = UnivariateFunctions(3)
    with pyro.poutine.trace():
        energy = bank.bound()
    assert torch.equal(pickle.loads(pickle.dumps(energy))(torch.ones(3)), energy(torch.ones(3)))


class Model(PyroModule):
    def __init__(self, bank):
        super().__init__()
        self.bank = bank

    def forward(self, z):
        energy = self.bank.bound()
        energy(z)  # evaluations draw and register nothing
        return pyro.sample(
            "x", dist.Normal(energy(z), 1.0).to_event(z.dim()), obs=torch.zeros_like(z)
        )


def test_random_coefficients_appear_once():
    bank = UnivariateFunctions((2, 3), grid_size=4, trainable_width=True)
    prior = dist.Normal(0.0, 1.0).expand([2, 3, 4]).to_event(3)
    bank.coefficients = PyroSample(prior)
    trace = pyro.poutine.trace(Model(bank)).get_trace(torch.rand(2, 3))
    sites = [name for name, site in trace.nodes.items() if site["type"] in ("sample", "param")]
    assert sorted(sites) == [
        "bank.base_weight",
        "bank.basis.width",
        "bank.coefficients",
        "bank.scale",
        "x",
    ]
    assert trace.nodes["bank.coefficients"]["fn"] is prior


def test_every_parameter_trains_under_svi():
    bank = UnivariateFunctions((2, 3), trainable_width=True)
    before = {name: p.detach().clone() for name, p in bank.named_parameters()}
    model = Model(bank)
    svi = SVI(model, lambda z: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(torch.rand(2, 3))
    assert set(before) == {"coefficients", "scale", "base_weight", "basis.width_unconstrained"}
    for name, p in bank.named_parameters():
        assert not torch.equal(p, before[name]), name


def test_width_stays_above_its_bound():
    basis = Basis("chebyshev", 0.0, 1.0, trainable_width=True)
    assert torch.isclose(basis.width, torch.tensor(1.01))
    with torch.no_grad():
        basis.width_unconstrained.fill_(-50.0)
    assert basis.width >= 1
    assert not dict(Basis("rbf", 0.0, 1.0).named_parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basis": "spline"}, "basis must be one of 'rbf', 'bspline', .*got 'spline'"),
        ({"activation": "relu6"}, "activation must be one of 'silu', .*got 'relu6'"),
        ({"low": 1.0, "high": 1.0}, "low must be below high, got low=1, high=1"),
        ({"high": math.inf}, "high must be a finite number, got inf"),
        ({"grid_size": 0}, "grid_size must be at least 1, got 0"),
        ({"basis": "rbf", "grid_size": 1}, "grid_size must be at least 2 centers, got 1"),
        ({"basis": "bspline", "degree": 0}, "degree must be at least 1 for a B-spline, got 0"),
        ({"degree": -1}, "degree must be at least 0, got -1"),
        ({"width": 0.0}, "width must be a finite number greater than 0, got 0.0"),
        (
            {"basis": "chebyshev", "width": 1.0},
            "width must be a finite number greater than 1, got 1.0",
        ),
        ({"basis": "bspline", "width": 1.0}, r"width and trainable_width must.*, got width=1\.0,"),
        (
            {"basis": "bspline", "trainable_width": True},
            r"width and trainable_width must.*, got width=None,",
        ),
        ({"fan_in": 0}, "fan_in must be at least 1, got 0"),
        ({"noise_scale": math.nan}, "noise_scale must be a finite number, got nan"),
        ({"batch_shape": (2, 0)}, "batch_shape must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        UnivariateFunctions(**{"batch_shape": 3, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid_size": 2.5}, "grid_size must be an int, got 2.5"),
        ({"low": "0"}, "low must be a number, got '0'"),
        ({"batch_shape": (2, 1.5)}, "batch_shape must be an int, got 1.5"),
    ],
)
def test_bad_types(options, message):
    with pytest.raises(TypeError, match=message):
        UnivariateFunctions(**{"batch_shape": 3, **options})


def test_bad_arguments():
    bank = UnivariateFunctions((4, 3))
    with pytest.raises(
        TypeError,
        match=r"z must have the dtype of the coefficients, torch.float32, got torch.float64",
    ):
        bank(torch.rand(3, dtype=torch.double))
    with pytest.raises(TypeError, match="z must be a tensor, got float"):
        bank(0.5)
    with pytest.raises(
        ValueError, match=r"z must broadcast against batch_shape \(4, 3\), got shape \(5,\)"
    ):
        bank(torch.rand(5))
