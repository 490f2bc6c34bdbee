"""
The paper's scale against the settings that the paper's tables 4 to 6 have, written out here once
more.
"""

import re
from dataclasses import replace

import pytest
import torch

from pyro_tkam.__main__ import main
from pyro_tkam.distributions import ShortRunULA
from pyro_tkam.infer import ULA, LangevinMLE, SteppingstoneMLE
from pyro_tkam.metrics import SAMPLE_SIZES
from pyro_tkam.paper.convolutional import conv_deep, conv_mixture
from pyro_tkam.paper.experiments import EXPERIMENTS, Images

COLOR = [
    f"{data}-{prior}-{by}"
    for data in ("svhn", "cifar10")
    for prior in ("mixture", "deep")
    for by in ("mle", "se")
]
UNIVARIATE = [
    f"{data}-{reference}-{basis}"
    for data in ("digits", "fashion", "darcy")
    for reference in ("uniform", "gaussian", "lognormal", "flat")
    for basis in ("rbf", "fourier")
]


def test_every_published_experiment_has_the_paper_scale():
    assert {name for name, row in EXPERIMENTS.items() if "paper" in row.scales} == {
        *COLOR,
        *UNIVARIATE,
    }


@pytest.mark.parametrize("name", UNIVARIATE)
def test_images_and_pressures_at_the_paper_scale(name):
    data, reference, basis = name.split("-")
    darcy = data == "darcy"
    row = EXPERIMENTS[name]
    scale = row.scales["paper"]
    assert (row.preset, row.objective) == ("kart", "ImportanceMLE")
    assert scale.data == {"digits": "mnist", "fashion": "fashion_mnist", "darcy": "darcy"}[data]
    assert scale.training * (600 if darcy else 10) == scale.updates * scale.batch_size
    assert (scale.training, scale.batch_size) == ((1000, 50) if darcy else (20_000, 100))
    assert (scale.learning_rate, scale.sizes) == (1e-3, SAMPLE_SIZES)
    assert scale.model == {
        "coupling": "shared",
        "reference": reference,
        "noise_scale": 0.1 if darcy else 1.0,
        "latent_dim": 40,
        "basis": basis,
        "grid_size": 20 if basis == "rbf" else 50,
    }
    assert scale.grid_updates == {
        "every": 100,
        "decay": 0.999,
        "uniform_share": 0.05,
        "num_samples": 100 if darcy else 50,
    }
    objective = row.elbo(scale)
    assert (objective.num_particles, objective.ess_threshold) == (scale.batch_size, 0.5)


def test_the_generator_has_the_widths_of_the_tables_and_layer_norm():
    scale = EXPERIMENTS["digits-flat-rbf"].scales["paper"]
    images = torch.zeros(2, 28, 28)
    model = EXPERIMENTS["digits-flat-rbf"].model(scale, images.shape[1:])
    assert model.generator.outer.widths == [81, 162, 784]
    assert [type(norm).__name__ for norm in model.generator.outer.norms] == ["PyroLayerNorm"]
    assert model.prior().batch_shape == (81, 40)


@pytest.fixture(scope="module")
def images():
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return Images(pixels, pixels, None)


@pytest.mark.parametrize("name", COLOR)
def test_color_images_at_the_paper_scale(name, images):
    data, prior, by = name.split("-")
    row = EXPERIMENTS[name]
    scale = row.scales["paper"]
    assert scale.data == data
    assert (scale.training, scale.batch_size, scale.updates) == (40_000, 100, 8000)  # 20 epochs
    assert (scale.learning_rate, scale.grid_updates, scale.sizes) == (5e-4, None, SAMPLE_SIZES)

    objective = row.elbo(scale)
    assert isinstance(objective.kernel, ULA)
    assert objective.kernel.initial_step_size == 0.01
    if by == "mle":
        assert isinstance(objective, LangevinMLE)
        assert objective.num_steps == {"svhn": 20, "cifar10": 40}[data]
    else:
        assert isinstance(objective, SteppingstoneMLE)
        assert (objective.num_steps, objective.num_temperatures, objective.swap_every) == (20, 5, 1)
        assert [objective.exponent(step) for step in (0, 4000, 8000)] == pytest.approx(
            [4.0, 2.5, 1.0]
        )

    model = row.model(scale, images.training.shape[1:])
    channels = [
        layer.out_channels for layer in model.generator.layers if hasattr(layer, "out_channels")
    ]
    kernels = [
        layer.kernel_size[0] for layer in model.generator.layers if hasattr(layer, "kernel_size")
    ]
    assert channels == {"svhn": [512, 256, 128, 3], "cifar10": [1024, 512, 256, 3]}[data]
    assert kernels == {"svhn": [4, 4, 4, 4], "cifar10": [8, 4, 4, 3]}[data]
    assert float(model.likelihood(torch.zeros(3, 32, 32)).variance[0, 0, 0]) == pytest.approx(
        0.3**2
    )
    if prior == "mixture":
        bank = model.prior.components
        assert bank.energies.batch_shape == (201, 100)
        assert (bank.low, bank.high) == (-4.0, 4.0)
        assert model.prior().components.reference.log_density(torch.zeros(())) == pytest.approx(
            -0.9189, abs=1e-4
        )
        bases = [bank.energies.basis]
    else:
        assert model.prior.energy.widths == [100, 200, 200, 1]
        assert model.prior.sampler == ShortRunULA(60, 0.16)
        assert [type(norm).__name__ for norm in model.prior.energy.norms] == ["PyroIdentity"] * 2
        bases = [layer.basis for layer in model.prior.energy.layers]
    assert {(basis.name, basis.num_functions, round(float(basis.width), 4)) for basis in bases} == {
        ("chebyshev", 4, 1.01)
    }
    drawn = model.generate(2)
    assert drawn.shape == (2, 3, 32, 32)
    assert ((drawn > 0) & (drawn < 1)).all()


@pytest.mark.parametrize("prior", ["mixture", "deep"])
@pytest.mark.parametrize("by", ["mle", "se"])
def test_one_gradient_of_a_color_experiment_reaches_every_parameter(prior, by, images):
    row = EXPERIMENTS[f"svhn-{prior}-{by}"]
    scale = row.scales["paper"]
    small = (
        {"latent_dim": 6, "num_components": 3}
        if prior == "mixture"
        else {"latent_dim": 6, "energy_widths": [4]}
    )
    scale = replace(
        scale, model={**scale.model, **small}, objective={**scale.objective, "num_steps": 2}
    )
    model = row.model(scale, images.training.shape[1:])
    row.elbo(scale).differentiable_loss(model, None, images.training[:1]).backward()
    missing = [
        name
        for name, each in model.named_parameters()
        if each.grad is None or not each.grad.abs().sum() > 0
    ]
    assert missing == []


@pytest.mark.parametrize("make", [conv_mixture, conv_deep])
def test_models_of_other_images_are_refused(make):
    with pytest.raises(
        ValueError,
        match=r"data_shape must be \(3, 32, 32\),.*, got \(3, 16, 16\)",
    ):
        make((3, 16, 16))
    with pytest.raises(
        ValueError, match=r"generator must be one of \['cifar10', 'svhn'\], got 'vae'"
    ):
        make((3, 32, 32), generator="vae")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "svhn-mixture-mle",
            r"folder must hold train_32x32.mat of SVHN, got none in .*; put the published files",
        ),
        (
            "cifar10-deep-se",
            r"folder must hold data_batch_1, .*data_batch_5 of CIFAR10, got none in .*; put "
            r"the published files",
        ),
        (
            "fashion-flat-rbf",
            r"folder must hold train-images-idx3-ubyte, .* of FashionMNIST, got none in "
            r".*; put the published files",
        ),
    ],
)
def test_without_published_files_a_run_says_what_is_missing(name, files, tmp_path, capsys):
    words = ["reproduce", name, "--scale", "paper", "--folder", str(tmp_path / "runs")]
    assert main(words) == 1
    assert re.search(
        r"error: data must be the folder with the published files of .*, got none",
        capsys.readouterr().err,
    )
    assert main([*words, "--data", str(tmp_path)]) == 1
    assert re.search(f"error: {files}", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
    assert main(words[:2]) == 1
    assert f"scale must be one of ['paper'] for {name}" in capsys.readouterr().err
