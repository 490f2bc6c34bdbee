"""Options that all presets share: grids reached strictly, widths, noise, generators, units."""

import pytest
import torch
from pyro import poutine
from torch.distributions import Normal

from pyro_tkam.infer import ImportanceMLE
from pyro_tkam.models import TKAM, AmortizedGuide, NetworkOptions, StandardizedLikelihood
from pyro_tkam.models.standardized import StandardizedNormal

PRESETS = {
    "kart": lambda shape, **options: TKAM.kart(shape, 2, grid_size=4, **options),
    "mixture": lambda shape, **options: TKAM.mixture(shape, 4, 3, grid_size=4, **options),
    "deep": lambda shape, **options: TKAM.deep(shape, 4, grid_size=4, **options),
    "autoregressive": lambda shape, **options: TKAM.autoregressive(
        shape, 4, context_widths=(6,), **options
    ),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("hidden_range", ["sigmoid", "affine"])
def test_hidden_features_reach_the_next_grid_strictly(preset, hidden_range):
    torch.manual_seed(0)
    model = PRESETS[preset](3, hidden_range=hidden_range, layer_norm=False)
    first, second = model.generator.outer.layers
    with torch.no_grad():
        first.coefficients.mul_(1e4)
    seen = []
    second.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model.generate(50)
    assert seen[0].abs().max() <= 2.0
    assert seen[0].std() > 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_widths_learn_where_they_are_asked_to(preset):
    torch.manual_seed(0)
    model = PRESETS[preset](3, trainable_width=True, basis="rbf")
    ImportanceMLE(20)(model, None)(torch.rand(5, 3)).backward()
    widths = {name: each for name, each in model.named_parameters() if "width" in name}
    assert len(widths) == {"kart": 3, "mixture": 3, "deep": 4, "autoregressive": 2}[preset]
    assert all(each.grad is not None and each.grad != 0 for each in widths.values())
    assert not any("width" in name for name, _ in PRESETS[preset](3).named_parameters())


def test_the_degree_is_that_of_energies_and_generator():
    model = TKAM.kart(3, 2, basis="chebyshev", degree=5)
    assert model.prior.energies.coefficients.shape[-1] == 6
    assert [layer.coefficients.shape[1] for layer in model.generator.outer.layers] == [6, 6]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(8, 8), (3, 12, 12), (28, 28)])
def test_convolutions_make_images_of_any_square_shape(preset, shape):
    images = PRESETS[preset](shape, generator="convolutional").generate(2)
    assert images.shape == (2, *shape)
    assert ((images > 0) & (images < 1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "flow"}, r"generator must be one of \['cifar10', .*\], got 'flow'"),
        ({"generator": "svhn"}, r"data_shape must be \(3, 32, 32\), .*, got \(4, 6\)"),
        ({"generator": "convolutional"}, r"data_shape must be \(side, side\).*, got \(4, 6\)"),
        (
            {"generator": "convolutional", "widths": [3]},
            r"widths must be None for generator 'convolutional', got \[3\]",
        ),
        (
            {"generator": "svhn", "hidden_range": "affine"},
            "hidden_range must be 'none' for generator 'svhn', got 'affine'",
        ),
        ({"standardized": True}, "output must be 'none' with standardized=True, got 'sigmoid'"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        TKAM.mixture((4, 6), 3, 2, **options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="hidden_rage"):
        TKAM.mixture(3, 3, 2, hidden_rage="affine")


def test_learned_noise_is_a_parameter_that_starts_where_it_is_put():
    options = NetworkOptions(learned_noise=True)
    likelihood = options.likelihood(0.25, (3,))
    assert float(likelihood.noise_scale.detach()) == pytest.approx(0.25)
    assert [name for name, _ in likelihood.named_parameters()] == ["noise_scale_unconstrained"]


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_a_standardized_likelihood_is_that_of_the_data(shape):
    torch.manual_seed(0)
    rows = 300 + 50 * torch.randn(400, *shape)
    likelihood = StandardizedLikelihood(0.3, shape)
    likelihood.fit(rows)
    assert likelihood.shift.shape == (shape if len(shape) == 1 else ())
    output = torch.randn(5, 1, *shape)
    fn = likelihood(output).expand((5, 4))
    assert isinstance(fn, StandardizedNormal)
    plain = Normal(likelihood.shift + likelihood.factor * output, 0.3 * likelihood.factor)
    expected = plain.log_prob(rows[:4]).sum(tuple(range(-len(shape), 0)))
    torch.testing.assert_close(fn.log_prob(rows[:4]), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fn.mean[:, 0], plain.mean[:, 0])
    torch.testing.assert_close(
        fn.variance, plain.variance.expand(fn.variance.shape), rtol=1e-5, atol=0
    )
    draws = fn.sample((4000,))
    torch.testing.assert_close(draws.mean(0), fn.mean, rtol=0, atol=0.07 * 50)
    torch.testing.assert_close(draws.std(0), fn.variance.sqrt(), rtol=0.1, atol=0)


def test_constant_features_keep_their_unit():
    likelihood = StandardizedLikelihood(0.3, (2,))
    likelihood.fit(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    torch.testing.assert_close(likelihood.factor, torch.ones(2))
    with pytest.raises(ValueError, match="rows must hold at least 2 rows to standardize, got 1"):
        likelihood.fit(torch.zeros(1, 2))


def test_a_guide_reads_standardized_data():
    torch.manual_seed(0)
    model = TKAM.mixture(3, 4, 2, output="none", standardized=True)
    rows = 300 + 50 * torch.randn(100, 3)
    model.likelihood.fit(rows)
    guide = AmortizedGuide(model)
    seen = []
    guide.encoder[1].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with poutine.block():
        guide(rows)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen[0].std(0, correction=0), torch.ones(3))
