import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Predictive
from pyro.nn import PyroSample
from torch.distributions import Normal

from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import (
    TKAM,
    GaussianLikelihood,
    Heads,
    JointPrior,
    KARTGenerator,
    LabeledPrior,
    LabeledTKAM,
    LatentGenerator,
    MixturePrior,
    MultimodalTKAM,
    TiltedPrior,
)
from pyro_tkam.models._reach import tell_of_values_out_of_reach
from pyro_tkam.nn import KAN

COUPLINGS = ["independent", "shared"]
REFERENCES = ["uniform", "gaussian", "lognormal", "learnable_gaussian", "flat"]


def small(coupling: str = "independent", **options: object) -> TKAM:
    return TKAM.kart((2, 3), latent_dim=2, coupling=coupling, grid_size=5, **options)


def mixture() -> TKAM:
    return TKAM.mixture((2, 3), latent_dim=3, num_components=2, grid_size=5)


def deep() -> TKAM:
    return TKAM.deep((2, 3), latent_dim=3, grid_size=5, sampler=ShortRunULA(num_steps=3))


@pytest.mark.parametrize("make", [mixture, deep])
def test_presets_with_other_priors_draw_and_train_every_parameter(make) -> None:
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    model, x = make(), torch.rand(6, 2, 3)
    assert model.generate(4).shape == model(size=4).shape == (4, 2, 3)
    trace = pyro.poutine.trace(model).get_trace(x)
    assert trace.nodes["z"]["value"].shape == (6, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    svi = SVI(model, None, pyro.optim.Adam({"lr": 0.01}), loss=ImportanceMLE(20))
    for _ in range(3):
        svi.step(x)
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


@pytest.mark.parametrize("make", [small, mixture, lambda: small("shared")])
def test_generated_data_have_gradients_where_asked(make) -> None:
    model = make()
    pyro.set_rng_seed(0)
    plain = model.generate(4)
    pyro.set_rng_seed(0)
    data = model.generate(4, differentiable=True)
    assert not plain.requires_grad
    assert torch.equal(data, plain)
    data.square().sum().backward()
    for part in (model.prior, model.generator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    with torch.no_grad():
        assert not model.generate(4, differentiable=True).requires_grad


def latents(model: TKAM, num: int) -> torch.Tensor:
    """Catch what the generator receives."""
    caught: list[torch.Tensor] = []
    handle = model.generator.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    model.generate(num)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("reference", REFERENCES)
def test_shapes_and_sites(coupling: str, reference: str) -> None:
    model = small(coupling, reference=reference)
    assert model.generate(4).shape == (4, 2, 3)
    assert model(size=4).shape == (4, 2, 3)
    trace = pyro.poutine.trace(model).get_trace(torch.rand(3, 2, 3), size=12)
    site = {"independent": "z", "shared": "u"}[coupling]
    assert set(trace.stochastic_nodes) == {site, "data"}
    assert trace.observation_nodes == ["x"]
    assert trace.nodes[site]["value"].shape == {"z": (3, 5, 2), "u": (3, 2)}[site]
    assert trace.nodes["x"]["scale"] == 4


def rank_correlation(z: torch.Tensor) -> torch.Tensor:
    """
    Spearman's correlation between the q of each p, shape (P, Q, Q), from z of shape (draws, Q, P).
    """
    ranks = z.argsort(0).argsort(0).double()
    return torch.stack([torch.corrcoef(ranks[:, :, p].T) for p in range(z.shape[-1])])


def test_shared_draws_of_one_inner_index_are_comonotone() -> None:
    pyro.set_rng_seed(0)
    correlation = rank_correlation(latents(small("shared"), 4000))
    # float32 ties apart, every q orders the draws as every other
    torch.testing.assert_close(correlation, torch.ones_like(correlation), atol=1e-4, rtol=0)


def test_independent_draws_are_uncorrelated() -> None:
    pyro.set_rng_seed(0)
    correlation = rank_correlation(latents(small("independent"), 4000))
    off_diagonal = correlation[:, ~torch.eye(5, dtype=torch.bool)]
    # five standard errors of 40 correlations: false alarms below 3e-5
    assert off_diagonal.abs().max() < 5 / math.sqrt(4000)


def test_independent_draws_are_detached_and_shared_ones_learn_pathwise() -> None:
    for coupling, pathwise in (("independent", False), ("shared", True)):
        model = small(coupling)
        elbo = ImportanceMLE(8)
        received: list[bool] = []
        model.generator.register_forward_pre_hook(
            lambda _, z, received=received: received.append(z[0].requires_grad)
        )
        elbo(model, None)(torch.rand(4, 2, 3)).backward()
        assert received[-1] is pathwise
        assert model.prior.energies.coefficients.grad.abs().sum() > 0


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("reference", ["uniform", "learnable_gaussian"])
@pytest.mark.parametrize("route", ["svi", "module"])
def test_every_parameter_is_trained(coupling: str, reference: str, route: str) -> None:
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    model, x = small(coupling, reference=reference), torch.rand(6, 2, 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    elbo = ImportanceMLE(20)
    if route == "svi":
        svi = SVI(model, None, pyro.optim.Adam({"lr": 0.01}), loss=elbo)
        for _ in range(3):
            svi.step(x)
    else:
        loss = elbo(model, None)
        optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
    stuck = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not stuck
    assert any("energies" in name for name in before)
    assert any("generator" in name for name in before)


def mixture_of_two(num: int, noise: float) -> tuple[torch.Tensor, float]:
    """
    Return data ½ N(μ1, σ²I) + ½ N(μ2, σ²I) and the entropy, by quadrature along the line between
    the centers.
    """
    centers = torch.tensor([[-1.0, 0.5], [1.0, -0.5]])
    x = centers[torch.arange(num) % 2] + noise * torch.randn(num, 2)
    distance = float((centers[0] - centers[1]).norm())
    t = torch.linspace(-8 * noise, distance + 8 * noise, 20001, dtype=torch.float64)
    parts = torch.stack([Normal(0.0, noise).log_prob(t), Normal(distance, noise).log_prob(t)])
    log_density = parts.logsumexp(0) - math.log(2)
    along = -torch.trapezoid(log_density.exp() * log_density, t)
    return x, float(along) + 0.5 * math.log(2 * math.pi * math.e * noise**2)


def exact_evidence(model: TKAM, x: torch.Tensor) -> float:
    """Integrate the likelihood over the latent space, by Gauss-Legendre in u for every latent."""
    dimensions = 1 if model.coupling == "shared" else 3
    num = 2000 if dimensions == 1 else 32
    edges = torch.linspace(0, 1, num + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    grid = torch.cartesian_prod(*[middle] * dimensions).reshape(-1, dimensions)
    with torch.no_grad():
        z = model.prior().icdf(grid[:, :, None] if dimensions > 1 else grid[:, None, :])
        likelihood = model.likelihood(model.generator(z)[:, None])
        return float(
            (
                likelihood.expand((len(grid), len(x))).log_prob(x).logsumexp(0)
                - math.log(len(grid))
            ).mean()
        )


@pytest.mark.slow
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_training_reaches_the_entropy_of_two_gaussians(coupling: str) -> None:
    """
    The exact evidence of the trained model comes within 0.05 nats a datum of minus the data's
    entropy.
    """
    pyro.set_rng_seed(0)
    noise = 0.25
    x, entropy = mixture_of_two(2000, noise)
    held_out, _ = mixture_of_two(3000, noise)
    model = TKAM.kart(2, 1, coupling=coupling, noise_scale=noise, output="none", widths=[])
    before = exact_evidence(model, held_out[:300])
    loss = ImportanceMLE(100, ess_threshold=0.0)(model, None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    steps = 150
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (100,))]
        optimizer.zero_grad()
        (loss(batch) / len(batch)).backward()
        optimizer.step()
        schedule.step()
    after = exact_evidence(model, held_out)
    assert before < -entropy - 0.5
    assert abs(after + entropy) < 0.05


def test_predictive_and_pickling() -> None:
    model = small("shared")
    assert Predictive(model, num_samples=3)(size=2)["x"].shape == (3, 2, 2, 3)
    clone = pickle.loads(pickle.dumps(model))
    pyro.set_rng_seed(0)
    first = model.generate(3)
    pyro.set_rng_seed(0)
    assert torch.equal(first, clone.generate(3))


def test_a_state_dict_round_trip_restores_the_model() -> None:
    first, second = small(reference="learnable_gaussian"), small(reference="learnable_gaussian")
    second.load_state_dict(first.state_dict())
    results = []
    for model in (first, second):
        pyro.set_rng_seed(1)
        results.append(model.generate(3))
    assert torch.equal(*results)


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("preset", ["kart", "mixture", "deep"])
def test_a_pruned_model_is_smaller_and_equal(preset: str, ran: bool) -> None:
    pyro.set_rng_seed(0)
    sizes = {"mixture": {"num_components": 4}}.get(preset, {})
    model = getattr(TKAM, preset)((2, 3), 2, grid_size=5, widths=[8], layer_norm=False, **sizes)
    reader = model.generator.outer.layers[1]
    with torch.no_grad():
        reader.coefficients[3] = 0.0
        reader.base_weight[:, 3] = 0.0
        if preset == "mixture":
            model.prior.logits[:, 1] = -30.0
    if ran:
        ImportanceMLE(5)(model, None)(torch.rand(4, 2, 3))
    pruned, results = model.prune(1e-7), []
    assert pruned.generator.outer.widths[1] == 7
    if preset == "mixture":
        assert pruned.prior.logits.shape == (2, 3)
    for each in (model, pruned):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        results.append(each.generate(20))
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=0)
    pyro.clear_param_store()
    ImportanceMLE(5)(pruned, None)(torch.rand(4, 2, 3)).backward()
    assert all(p.grad is not None for p in pruned.parameters())
    assert model.generator.outer.widths[1] == 8


def test_with_layer_norm_nodes_stay() -> None:
    model = TKAM.mixture(4, 3, 2, grid_size=5)
    assert model.prune(0.01).generator.outer.widths == model.generator.outer.widths
    with pytest.raises(ValueError, match=r"threshold must be a number from 0 to 1, got 1000\.0"):
        model.prune(1000.0)


@pytest.mark.parametrize("make", [small, mixture, deep])
def test_a_refined_model_draws_nearly_the_same_and_trains_on(make) -> None:
    pyro.set_rng_seed(0)
    model, data = make(), []
    for refine in (True, False):
        pyro.set_rng_seed(1)
        data.append(model.generate(200))
        if refine:
            assert all(update.accepted for update in model.update_grid(100, grid_size=10))
    assert (data[1] - data[0]).square().mean() < 0.1 * data[0].var()
    coefficients = {
        name: p for name, p in model.named_parameters() if name.endswith("coefficients")
    }
    assert all(10 in p.shape for p in coefficients.values())
    ImportanceMLE(10)(model, None)(torch.rand(4, 2, 3)).backward()
    assert all(p.grad.abs().sum() > 0 for p in coefficients.values())


def test_a_grid_update_that_fails_changes_nothing() -> None:
    """
    The generator's hidden layer puts out nothing; wrong version: the prior's grid had moved
    already.
    """
    pyro.set_rng_seed(0)
    model = small()
    with torch.no_grad():
        model.generator.outer.layers[0].coefficients.zero_()
        model.generator.outer.layers[0].base_weight.zero_()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="samples must differ"):
        model.update_grid(50)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: TiltedPrior(3, grid_size=5), r"\(3,\)"),
        (lambda: MixturePrior(TiltedPrior((3, 2), grid_size=5)), r"\(3,\)"),
        (lambda: JointPrior(torch.nn.Linear(3, 1), 3), r"\(\)"),
    ],
)
def test_shared_draws_need_inner_indices(make, shape: str) -> None:
    """Wrong version: rows of shape (1, 10) for data of shape (10,)."""
    model = TKAM(make(), torch.nn.Linear(3, 10), GaussianLikelihood(0.5), coupling="shared")
    for call in (
        lambda: model.generate(4),
        lambda: model(torch.zeros(4, 10)),
        lambda: model.update_grid(4),
    ):
        with pytest.raises(
            ValueError, match=f"coupling must be 'independent' for .*, got 'shared' for {shape}"
        ):
            call()


def test_shared_draws_of_random_priors_in_a_plate() -> None:
    model = small("shared")
    energies = model.prior.energies
    energies.coefficients = PyroSample(
        dist.Normal(0.0, 1.0).expand(energies.coefficients.shape).to_event(3)
    )
    assert Predictive(model, num_samples=3, parallel=True)(size=4)["x"].shape == (3, 4, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: small(coupling="both"),
            r"coupling must be one of \['independent', 'shared'\], got 'both'",
        ),
        (
            lambda: TKAM.kart(4, latent_dim=0),
            "latent_dim must be an integer of at least 1, got 0",
        ),
        (
            lambda: TKAM.kart((), latent_dim=2),
            r"data_shape must have at least one dimension, got \(\)",
        ),
        (
            lambda: TKAM.mixture(4, latent_dim=0),
            "latent_dim must be an integer of at least 1, got 0",
        ),
        (
            lambda: TKAM.mixture(4, 3, 0),
            "num_components must be an integer of at least 1, got 0",
        ),
        (
            lambda: TKAM.deep(4, latent_dim=0),
            "latent_dim must be an integer of at least 1, got 0",
        ),
        (
            lambda: TKAM.kart(4, 2, reference="cauchy"),
            r"reference must be one of \['flat',.*, got 'cauchy'",
        ),
        (lambda: TKAM.kart(4, 2, basis="haar"), "basis"),
        (
            lambda: GaussianLikelihood(0.0),
            r"noise_scale must be positive and finite, got 0\.0",
        ),
        (
            lambda: GaussianLikelihood(event_dim=0),
            "event_dim must be an integer of at least 1, got 0",
        ),
        (
            lambda: GaussianLikelihood(math.nan),
            "noise_scale must be positive and finite, got nan",
        ),
        (lambda: TiltedPrior((2, 2), low=1.0, high=0.0), r"low must be below high.*, got "),
        (
            lambda: KARTGenerator(torch.nn.Identity(), (2,), mean=0.0, spread=0.0),
            r"spread must be positive and finite, got 0\.0",
        ),
        (lambda: small()(), "size must be the number of rows to draw, at least 1, got None"),
        (lambda: small()(size=0), "size must be an integer of at least 1, got 0"),
        (lambda: small().generate(0), "num must be an integer of at least 1, got 0"),
        (lambda: small().update_grid(0), r"num_samples must be .*, got 0"),
        (
            lambda: small()(torch.zeros(0, 2, 3)),
            r"x must have shape \(batch, \*event\) with at least one row, got \(0, 2, 3\)",
        ),
        (
            lambda: small()(torch.tensor(1.0)),
            r"x must have shape \(batch, \*event\) with at least one row, got \(\)",
        ),
        (lambda: small()(torch.zeros(4)), r"x must have rows of shape \(2, 3\), got \(\)"),
        (
            lambda: small()(torch.full((1, 2, 3), math.nan)),
            "x must be finite, got NaN or infinite elements",
        ),
        (
            lambda: small()(torch.full((1, 2, 3), math.inf)),
            "x must be finite, got NaN or infinite elements",
        ),
        (
            lambda: small()(torch.zeros(4, 3, 2)),
            r"x must have rows of shape \(2, 3\), got \(3, 2\)",
        ),
        (
            lambda: small()(torch.zeros(4, 2, 3), size=3),
            "size must be at least the 4 rows of the mini-batch, got 3",
        ),
    ],
)
def test_refuses_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: small()(torch.zeros(4, 2, 3, dtype=torch.float64)),
            r"x must have the dtype of the.*, got torch\.float64",
        ),
        (
            lambda: small()(torch.zeros(4, 2, 3, dtype=torch.int64)),
            r"x must have the dtype of the.*, got torch\.int64",
        ),
        (
            lambda: TKAM(None, torch.nn.Identity(), GaussianLikelihood()),
            "prior must be a callable, got NoneType",
        ),
        (
            lambda: TKAM(lambda: None, None, GaussianLikelihood()),
            "generator must be a callable, got NoneType",
        ),
    ],
)
def test_refuses_wrong_types(call, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_threads_draw_from_one_model():
    """Without the lock, Pyro refuses the plate of another thread."""
    model = TKAM.kart(8, 2)
    with ThreadPoolExecutor(3) as threads:
        drawn = list(threads.map(lambda _: model.generate(50), range(60)))
    assert all(each.shape == (50, 8) and bool(each.isfinite().all()) for each in drawn)


OUT_OF_REACH = torch.tensor([[0.5, 3.0], [-2.0, 0.0]]).repeat(50, 1)


@pytest.mark.parametrize("make", [TKAM.kart, TKAM.mixture, TKAM.deep, TKAM.autoregressive])
def test_data_that_a_sigmoid_cannot_reach_are_told(make):
    x = OUT_OF_REACH
    with pytest.warns(UserWarning, match="x has values from -2 to 3, .* with output='none'"):
        make(2, latent_dim=2, grid_size=4)(x)
    make(2, latent_dim=2, grid_size=4)(x.clamp(0, 1))
    make(2, latent_dim=2, grid_size=4, output="none")(x)
    make(2, latent_dim=2, grid_size=4, output="none", standardized=True)(x)


@pytest.mark.parametrize("noise_scale", [0.01, 0.1, 1.0])
def test_what_a_model_draws_is_in_its_reach(noise_scale):
    """The widest outputs, all 0 or 1, with noise: 400 sets, each told with 1e-5 at most."""
    torch.manual_seed(0)
    likelihood = GaussianLikelihood(noise_scale)
    generator = KAN([2, 2], output="sigmoid")
    for rows in (1, 2, 10, 1000):
        for _ in range(100):
            ends = torch.randint(2, (rows, 2)).float()
            x = ends + noise_scale * torch.randn(rows, 2)
            tell_of_values_out_of_reach(generator, likelihood, x)


def test_data_of_modalities_and_labels_that_a_sigmoid_cannot_reach_are_told():
    def head() -> LatentGenerator:
        return LatentGenerator(KAN([2, 2], output="sigmoid"), (2,), mean=0.0, spread=1.0)

    x = OUT_OF_REACH
    labeled = LabeledTKAM(LabeledPrior(3, 2, grid_size=5), head(), GaussianLikelihood(0.5))
    with pytest.warns(UserWarning, match="x has values from -2 to 3"):
        labeled(x)
    prior = MixturePrior(TiltedPrior((2, 2), grid_size=5))
    several = MultimodalTKAM(prior, Heads({"image": head()}), {"image": GaussianLikelihood(0.3)})
    with pytest.warns(UserWarning, match=r"x\['image'\] has values from -2 to 3"):
        several({"image": x})
    several({"image": x.clamp(0, 1)})
