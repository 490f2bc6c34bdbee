"""
Convolutional and sequence generators: shapes, nonlinearity, causality, cached decoding, and bad
input.
"""

import pickle

import pyro
import pytest
import torch

from pyro_tkam.infer import ULA, ImportanceMLE, LangevinMLE
from pyro_tkam.models import TKAM, GaussianLikelihood, TiltedPrior
from pyro_tkam.nn import ConvGenerator, SequenceGenerator

SMALL = {
    "channels": (8, 4, 1),
    "kernel_sizes": (4, 4, 3),
    "strides": (1, 2, 1),
    "paddings": (0, 1, 1),
}


def sequence(**options: int) -> SequenceGenerator:
    torch.manual_seed(0)
    return SequenceGenerator(3, 7, 9, width=8, num_heads=2, num_layers=2, **options).double()


@pytest.mark.parametrize("make", [ConvGenerator.svhn, ConvGenerator.cifar10])
def test_the_papers_shapes(make) -> None:
    generator = make(5)
    convolutions = [m for m in generator.layers if isinstance(m, torch.nn.ConvTranspose2d)]
    channels, sizes = {
        ConvGenerator.svhn: ([5, 512, 256, 128], [4, 8, 16, 32]),
        ConvGenerator.cifar10: ([5, 1024, 512, 256], [8, 16, 32, 32]),
    }[make]
    assert [m.in_channels for m in convolutions] == channels
    image = torch.rand(2, 5, 1, 1)
    found = []
    for layer in generator.layers:
        image = layer(image)
        if isinstance(layer, torch.nn.ConvTranspose2d):
            found.append(image.shape[-1])
    assert found == sizes
    assert image.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_convolutional_generator_is_not_linear_even_before_its_output(batch_norm: bool) -> None:
    torch.manual_seed(0)
    generator = ConvGenerator(5, **SMALL, batch_norm=batch_norm, output="none").eval()
    a, b, zero = torch.randn(5), torch.randn(5), torch.zeros(5)

    def departure(g) -> torch.Tensor:
        return (g(a + b) - g(a) - g(b) + g(zero)).abs().max() / g(a).abs().max()

    linear = ConvGenerator(
        5, **SMALL, batch_norm=batch_norm, output="none", negative_slope=1.0
    ).eval()
    assert departure(generator) > 0.01
    assert departure(linear) < 1e-5  # the measure does see a linear one


def test_images_do_not_depend_on_their_batch() -> None:
    generator, z = ConvGenerator(5, **SMALL).double(), torch.randn(2, 3, 5, dtype=torch.float64)
    assert generator(z).shape == (2, 3, 1, 8, 8)
    torch.testing.assert_close(generator(z)[1, 2], generator(z[1, 2]))
    assert generator(z).min() > 0
    assert generator(z).max() < 1
    torch.testing.assert_close(torch.func.vmap(generator)(z), generator(z))


def stripes(num: int) -> torch.Tensor:
    """Images of eight by eight pixels, bright at the top or at the bottom by a random amount."""
    height = torch.linspace(-1, 1, 8)[:, None].expand(8, 8)
    return torch.sigmoid(3 * torch.randn(num, 1, 1, 1) * height)


def of_images(**options: bool) -> TKAM:
    pyro.set_rng_seed(0)
    return TKAM(
        TiltedPrior(3, "gaussian"),
        ConvGenerator(3, **SMALL, **options),
        GaussianLikelihood(0.3, event_dim=3),
    )


OBJECTIVES = {
    "importance": lambda: ImportanceMLE(20),
    "langevin": lambda: LangevinMLE(ULA, num_steps=5, step_size=0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["importance", "langevin"])
def test_a_convolutional_generator_is_trained(objective: str) -> None:
    """
    The evidence of the data rises by far more than its noise, and every parameter of the generator
    moves.
    """
    model = of_images()
    x, before = (
        stripes(40),
        {name: p.detach().clone() for name, p in model.generator.named_parameters()},
    )

    def evidence() -> float:
        pyro.set_rng_seed(1)
        return -ImportanceMLE(200).loss(model, None, x) / len(x)

    start = evidence()
    loss = OBJECTIVES[objective]()(model, None)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.03)
    for _ in range(25):
        optimizer.zero_grad()
        (loss(x) / len(x)).backward()
        optimizer.step()
    assert evidence() > start + 5
    assert not [
        name for name, p in model.generator.named_parameters() if torch.equal(p, before[name])
    ]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_name_batch_normalization(objective: str) -> None:
    model, x = of_images(batch_norm=True), stripes(4)
    with pytest.raises(
        ValueError,
        match=r"couples its data, by batch normalization in 'generator\.layers\.1'; call eval",
    ):
        OBJECTIVES[objective]()(model, None)(x)
    OBJECTIVES[objective]()(model.eval(), None)(x).backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": (1, 2)}, "strides must hold one value for each of 3 layers, got 2"),
        ({"paddings": (2, 1, 1)}, "leave a side of 0"),
        ({"channels": (8, 0, 1)}, "every element of channels must be an integer of at least 1"),
        ({"output": "tanh"}, "output must be one of"),
    ],
)
def test_refuses_layers_that_make_no_image(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        ConvGenerator(5, **{**SMALL, **change})


@pytest.mark.parametrize("local", [1, 3])
@pytest.mark.parametrize("position", range(9))
def test_a_token_changes_only_later_outputs(local: int, position: int) -> None:
    generator = sequence(local=local)
    z, tokens = torch.randn(4, 3, dtype=torch.float64), torch.randint(7, (4, 9))
    changed = tokens.clone()
    changed[:, position] = (changed[:, position] + 1) % 7
    before, after = generator(z, tokens), generator(z, changed)
    assert torch.equal(before[:, : position + 1], after[:, : position + 1])
    later = (before - after)[:, position + 1 :].abs().amax(-1)
    assert bool((later > 0).all())  # and every later one


def test_outputs_depend_on_the_latent() -> None:
    generator, tokens = sequence(), torch.randint(7, (9,))
    z = torch.randn(2, 3, dtype=torch.float64)
    assert (generator(z, tokens)[0] - generator(z, tokens)[1]).abs().amin(-1).min() > 0


@pytest.mark.parametrize("local", [1, 3])
def test_cached_logits_equal_the_full_forward(local: int) -> None:
    generator = sequence(local=local)
    z, tokens = torch.randn(4, 3, dtype=torch.float64), torch.randint(7, (4, 9))
    cache, cached = generator.start(z), []
    for t in range(9):
        logits, cache = generator.step(cache)
        cache = generator.append(cache, tokens[:, t])
        cached.append(logits)
    torch.testing.assert_close(torch.stack(cached, 1), generator(z, tokens), atol=1e-12, rtol=0)


def test_latents_and_sequences_broadcast_as_all_pairs() -> None:
    generator = sequence()
    z, tokens = torch.randn(5, 1, 3, dtype=torch.float64), torch.randint(7, (4, 9))
    pairs = generator(z, tokens)
    assert pairs.shape == (5, 4, 9, 7)
    torch.testing.assert_close(pairs[3, 2], generator(z[3, 0], tokens[2]))


def test_samples_have_the_models_frequencies() -> None:
    """
    First two tokens of 20,000 draws against the exact table of pairs; five standard errors, false
    alarms < 3e-5.
    """
    generator = sequence()
    z = torch.randn(3, dtype=torch.float64)
    draws = generator.sample(z.expand(20_000, 3), length=2)
    with torch.no_grad():
        pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
        logits = generator(z, pairs).log_softmax(-1)
        exact = logits.gather(-1, pairs[..., None]).sum((-1, -2)).exp()
    found = torch.bincount(7 * draws[:, 0] + draws[:, 1], minlength=49) / 20_000
    assert abs(exact.sum() - 1) < 1e-12
    assert bool(((found - exact).abs() < 5 * (exact * (1 - exact) / 20_000).sqrt()).all())


def test_a_sequence_generator_pickles() -> None:
    generator, z, tokens = sequence(), torch.randn(3, dtype=torch.float64), torch.randint(7, (9,))
    clone = pickle.loads(pickle.dumps(generator))
    assert torch.equal(clone(z, tokens), generator(z, tokens))


def test_refuses_bad_sequences() -> None:
    generator, z = sequence(), torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"tokens must have shape .* max_length=9, got"):
        generator(z, torch.zeros(2, 10, dtype=torch.int64))
    with pytest.raises(ValueError, match="length must be from 1 to max_length=9, got 10"):
        generator.sample(z, length=10)
    with pytest.raises(ValueError, match="tokens must hold classes from 0 to 6, got 7"):
        generator(z, torch.full((2, 4), 7))
    with pytest.raises(ValueError, match="token must hold classes from 0 to 6, got 7"):
        generator.append(generator.step(generator.start(z))[1], torch.tensor([0, 7]))
    with pytest.raises(TypeError, match=r"tokens must hold integers, got torch\.float32"):
        generator(z, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"z must have shape \(\*, 3\)"):
        generator(z[:, :2], torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="width must be a multiple"):
        SequenceGenerator(3, 7, 9, width=9, num_heads=2)
