"""The configuration of a training run, and its YAML file."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pyro_tkam import __version__
from pyro_tkam._checks import file_path, length, number, one_of, whole_number
from pyro_tkam._files import write_text
from pyro_tkam._optional import needs
from pyro_tkam.train.fields import check_fields
from pyro_tkam.train.folder import REMEDY, checksum


@dataclass(frozen=True)
class ModelConfig:
    """
    Options of the presets of :class:`pyro_tkam.models.TKAM`. Options that belong to other presets
    must keep their defaults.

    :param preset: "kart" (the representation theorem), "mixture" (a mixture for each latent),
        "deep" (one energy of all latents), "autoregressive" (ordered latents, each depending on the
        earlier ones; for objectives with a guide), "seq2seq" (sequence to sequence, with such
        latents; for pairs of sequences), "labeled" (latents coupled to a class, which may be
        missing), "multimodal" (several arrays from one latent) or "text" (windows of a text, from a
        decoder that attends to the latent); the last two have mixture priors.
    :param data_shape: shape of one datum; null takes the data's shape, which the run folder
        records.
    :param latent_dim: for "kart", the number P of inner indices, with Q = 2P + 1 outer ones; for
        the others, the number Q of latents.
    :param num_components: for "mixture", the number P of components of each latent.
    :param coupling: for "kart", "shared" (one uniform for each inner index: exactly the
        Kolmogorov-Arnold representation) or "independent" (a latent for each pair of inner and
        outer index).
    :param blocks: for "autoregressive" and "seq2seq", the number of blocks of latents; null takes
        one block per latent.
    :param context: for "autoregressive", the network from earlier latents to a latent's density:
        "perceptron" or "kan".
    :param reference: density that the prior of "kart" and "mixture" tilts: "uniform", "gaussian",
        "lognormal", "learnable_gaussian", "flat".
    :param basis: basis of energies and generator: "rbf", "bspline", "rswaf", "fourier",
        "chebyshev", "gegenbauer", "mexican_hat" or "morlet"; for "autoregressive", of the generator
        only.
    :param grid_size: grid size of the energies and the generator; for "autoregressive", of the
        generator only.
    :param degree: degree of splines and polynomials; other bases ignore it.
    :param trainable_width: train the widths of basis functions.
    :param hidden_range: how hidden features of the generator are mapped to the next grid: "none",
        or "sigmoid" or "affine", which keep them inside it.
    :param energy_constraint: constraint on the prior's energies: "none", "increasing", "decreasing"
        (both for "bspline"), "even" or "periodic" (for "fourier").
    :param energy_periods: number of periods of periodic energies within the prior's interval.
    :param edge_constraint: constraint on the generator's edges, with the choices of the energies.
    :param edge_periods: number of periods of periodic edges within their grids.
    :param energy_widths: for "deep", hidden widths of the energy; null takes one layer of 2Q.
    :param generator: "kan"; or "convolutional" (square images), "svhn" or "cifar10" (the paper's
        networks, for images of 3 x 32 x 32).
    :param widths: hidden widths of a KAN generator; null takes one layer of 2Q.
    :param sequences: for "seq2seq", the sizes of the alphabets and the largest lengths, [source
        symbols, source length, target symbols, target length]; null takes those of the data, which
        the run folder records.
    :param width: for "seq2seq" and "text", features per position.
    :param num_labels: for "labeled", the number of classes; null takes that of the data, which the
        run folder records.
    :param modalities: for "multimodal", the shape and the number of classes (0 for numeric data) of
        each; null takes those of the data, which the run folder records.
    :param length: for "text", number of symbols per window.
    :param alphabet: for "text", the symbols of the alphabet; null takes those of the text, which
        the run folder records.
    :param noise_scale: standard deviation of the Gaussian likelihood, in units of the data.
    :param learned_noise: learn the noise scale, starting from the given one.
    :param output: output activation of the generator: "sigmoid" for data in [0, 1], or "none".
    :param standardized: let the generator work in standardized units of the data, which then also
        apply to ``noise_scale``; requires ``output`` "none". Samples and evidence stay in the units
        of the data.
    """

    preset: str = "kart"
    data_shape: list[int] | None = None
    latent_dim: int = 40
    num_components: int = 40
    coupling: str = "shared"
    blocks: int | None = None
    context: str = "perceptron"
    reference: str = "uniform"
    basis: str = "rbf"
    grid_size: int = 20
    degree: int = 3
    trainable_width: bool = False
    hidden_range: str = "none"
    energy_constraint: str = "none"
    energy_periods: int = 1
    edge_constraint: str = "none"
    edge_periods: int = 1
    energy_widths: list[int] | None = None
    generator: str = "kan"
    widths: list[int] | None = None
    sequences: list[int] | None = None
    width: int = 128
    num_labels: int | None = None
    modalities: dict[str, dict[str, Any]] | None = None
    length: int = 64
    alphabet: str | None = None
    noise_scale: float = 0.6
    learned_noise: bool = False
    output: str = "sigmoid"
    standardized: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class GridConfig:
    """
    When and how grids follow the latents.

    See :class:`pyro_tkam.train.GridUpdates`.

    :param every: number of updates before the first grid update; later intervals grow.
    :param decay: each interval is 2 - decay times the previous one.
    :param num_samples: prior draws that determine the knots.
    :param uniform_share: share of the uniform grid in the new grid.
    :param max_change: refuse an update that changes the functions by more than this, relative to
        their size.
    :param grid_size: size of the grids from the first update on (a larger size refines them); null
        keeps the size.
    """

    every: int = 100
    decay: float = 0.999
    num_samples: int = 100
    uniform_share: float = 0.05
    max_change: float = 0.1
    grid_size: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, infinite=("max_change",))


@dataclass(frozen=True)
class ChainConfig:
    """
    Options of the objectives that sample the posterior with chains; see
    :class:`~pyro_tkam.infer.LangevinMLE`.

    :param kernel: "ula", "mala" or "automala"; the objective "automala" always uses the last.
    :param step_size: step size of the kernel; "automala" starts with it and then continues with the
        mean of its accepted step sizes.
    :param min_step_size: smallest step size of "automala".
    :param max_step_size: largest step size of "automala".
    :param num_unadjusted: initial steps of "automala" without the Metropolis test.
    :param num_steps: steps of a chain per update.
    :param num_chains: chains per datum and temperature.
    :param guide_objective: what the guide of the objective "refined" learns from: "elbo" (its own
        draws) or "inclusive" (the ends of the chains).
    :param num_temperatures: temperatures of "steppingstone" and "thermodynamic", including 0 and 1.
    :param first_exponent: exponent of the ladder's power law at the first update.
    :param last_exponent: the same exponent at the last update.
    :param cycles: full cycles of the exponent between the first and the last update.
    """

    kernel: str = "ula"
    step_size: float = 0.01
    min_step_size: float = 1e-4
    max_step_size: float = 2.0
    num_unadjusted: int = 5
    num_steps: int = 20
    num_chains: int = 1
    guide_objective: str = "elbo"
    num_temperatures: int = 5
    first_exponent: float = 4.0
    last_exponent: float = 1.0
    cycles: int = 0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class PairConfig:
    """
    Options of the objective "pair"; see :class:`~pyro_tkam.models.PairELBO`.

    :param free_nats: nats of each divergence that cost nothing: of the posterior from the prior,
        and from the posterior given the source alone.
    :param unknown_share: share of the source's symbols that are replaced by the unknown symbol in
        training.
    """

    free_nats: float = 2.0
    unknown_share: float = 0.02

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class PenaltyConfig:
    """
    Weights of penalties on functions, in nats per datum; see
    :meth:`~pyro_tkam.nn.UnivariateFunctions.regularization` for the prior's energies and
    :meth:`~pyro_tkam.nn.KAN.regularization` for networks.

    :param energy_l1: weight of the sizes of the prior's energies.
    :param energy_entropy: weight of the entropy of these sizes.
    :param energy_smoothness: weight of the integrals of the energies' squared second derivatives.
    :param generator_l1: weight of the spreads of the generator's edges.
    :param generator_entropy: weight of the entropy of these spreads.
    :param generator_smoothness: weight of the integrals of the edges' squared second derivatives.
    """

    energy_l1: float = 0.0
    energy_entropy: float = 0.0
    energy_smoothness: float = 0.0
    generator_l1: float = 0.0
    generator_entropy: float = 0.0
    generator_smoothness: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number(f"penalty.{name}", value, at_least=0.0)


@dataclass(frozen=True)
class StartConfig:
    """
    Prior knowledge: the prior at the start of training. Give at most one of the first four options;
    without any, the prior starts near the reference.

    :param samples: a .npy or .pt file of values inside the prior's interval, of shape ``(num,)``,
        used for all latents, or ``(num, *latents)``; for "autoregressive", ``(num, latent_dim)``.
    :param density: a torch distribution with numeric arguments, such as "Normal(0.5, 0.2)".
    :param formula: a density in one variable, up to a constant factor, such as
        ``exp(-(z - 1)**2)``.
    :param run: run folder of a model whose learned prior is copied.
    :param ridge: penalty on the squared coefficients of the prior's energies, in nats; larger
        values stay closer to the reference.
    :param frozen: keep the prior fixed during training.
    """

    samples: str | None = None
    density: str | None = None
    formula: str | None = None
    run: str | None = None
    ridge: float = 1e-6
    frozen: bool = False

    @property
    def given(self) -> dict[str, str]:
        """The options among the first four that are given, by name."""
        sources = {name: getattr(self, name) for name in ("samples", "density", "formula", "run")}
        return {name: value for name, value in sources.items() if value is not None}

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.given) > 1:
            raise ValueError(
                "start must have at most one of samples, density, formula and run, got "
                f"{', '.join(self.given)}"
            )
        if self.frozen and not self.given:
            raise ValueError("start.frozen must be false without a start of the prior, got true")


@dataclass(frozen=True)
class TrainConfig:
    """
    Everything that determines a training run.

    The same values give the same metrics.

    :param data: data set: "mnist5k" (28 x 28 digits), "digits" (8 x 8 digits), "darcy" (32 x 32
        pressures), "patches" (3 x 16 x 16, from color photographs), or a .npy or .pt file of
        floating-point rows, (num, ...). For the preset "seq2seq": a .dict file of pronunciations or
        a .tsv file of pairs of texts. For "labeled": "mnist5k", "digits" or a .npz file of "x" and
        "label", with -1 where a label is missing. For "multimodal": a .npz file of arrays by name,
        numbers or classes, and Booleans NAME_observed where some are missing. For "text": a text
        file, .txt.
    :param held_out: number of rows held out from training; for pairs, of sources with all their
        targets.
    :param model: the model.
    :param updates: number of gradient steps.
    :param batch_size: rows per gradient step, over all processes.
    :param objective: how posterior draws are obtained: "importance", "langevin" (chains at the
        posterior), "automala" (the same with that kernel), "steppingstone" or "thermodynamic"
        (tempered chains; the loss is that estimate of the evidence), "amortized" (a guide network
        and the evidence lower bound), "iwae" (the same with the importance-weighted bound), "wake"
        (the same, but the guide learns from weighted draws), "wake-sleep" (the guide learns from
        draws of the model instead), "refined" (chains that start at the guide's draws; the model
        learns from their ends) or "pair" (the bounds of two sequences, for the preset "seq2seq").
    :param num_particles: draws per gradient step. Those of "importance" are shared across the
        batch; "iwae", "wake" and "wake-sleep" make separate draws for each datum.
    :param chains: options of the objectives that run chains.
    :param pair: options of the objective "pair".
    :param penalty: weights of the penalties on the functions, in nats per datum.
    :param start: prior knowledge that the prior starts from.
    :param learning_rate: step size of Adam; with a "one-cycle" schedule, the highest step size.
    :param schedule: "constant", or "one-cycle": the step size rises to the learning rate within the
        first twentieth of the updates and falls to nearly zero at the last update, as in
        ``OneCycleLR``.
    :param clip_norm: largest norm of the gradient; larger gradients are scaled down to it; null
        turns this off.
    :param checkpoint_every: number of updates between checkpoints.
    :param grid_updates: schedule of grid updates; null keeps the grids.
    :param patience: stop after this many consecutive blocks of 100 updates without a new best
        mean loss; null never stops early.
    :param tensorboard: also write the metrics for TensorBoard, into the folder "tensorboard".
    :param seed: seed of all random numbers.
    :param device: "auto", "cpu", "gpu", "mps" or another accelerator that Lightning supports.
    :param devices: number of processes per machine, with one device each; they share the batches.
    :param num_nodes: number of machines.
    :param precision: "32-true", or "bf16-mixed" for matrix products of networks in half precision;
        tables of the prior and log densities stay in single precision.
    """

    data: str = "mnist5k"
    held_out: int = 1000
    model: ModelConfig = field(default_factory=ModelConfig)
    updates: int = 2000
    batch_size: int = 100
    objective: str = "importance"
    num_particles: int = 100
    chains: ChainConfig = field(default_factory=ChainConfig)
    pair: PairConfig = field(default_factory=PairConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    start: StartConfig = field(default_factory=StartConfig)
    learning_rate: float = 1e-3
    schedule: str = "constant"
    clip_norm: float | None = None
    checkpoint_every: int = 200
    grid_updates: GridConfig | None = None
    patience: int | None = None
    tensorboard: bool = False
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("updates", "batch_size", "num_particles", "checkpoint_every", "patience"):
            value = getattr(self, name)
            if value is not None:
                whole_number(name, value, 1)
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None:
                length(name, value)
        if (self.model.preset == "seq2seq") != (self.objective == "pair"):
            raise ValueError(
                'objective must be "pair" for the preset "seq2seq" and for no other, got '
                f"{self.objective!r} for {self.model.preset!r}"
            )
        if self.start.frozen and self.grid_updates is not None:
            raise ValueError(
                "grid_updates must be null with start.frozen, because grid updates would "
                f"change the prior, got {self.grid_updates}"
            )
        one_of("schedule", self.schedule, ("constant", "one-cycle"))
        check_hardware(self.batch_size, self.devices, self.num_nodes, self.precision)

    @classmethod
    def of(cls, content: Any) -> "TrainConfig":
        """
        Make a configuration from nested mappings.

        :param content: any of the fields by name; ``model``, ``chains``, ``pair``, ``penalty`` and
            ``start`` are mappings too.
        :raises ValueError: for unknown keys and values out of range.

        >>> TrainConfig.of({"updates": 10, "model": {"latent_dim": 3}}).model.latent_dim
        3
        """
        values = _known(cls, content)
        parts = {name: kind(**_known(kind, values.get(name, {}))) for name, kind in _PARTS.items()}
        if values.get("grid_updates") is not None:
            parts["grid_updates"] = GridConfig(**_known(GridConfig, values["grid_updates"]))
        return cls(**(values | parts))

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """
        Read a configuration written by :meth:`save`.

        :param path: the YAML file.
        :raises FileNotFoundError: if there is no such file.
        :raises ValueError: for anything but YAML with such a configuration; names the file and the
            key.
        """
        with needs("train"):
            import yaml
        path = file_path("path", path)
        if not path.is_file():
            raise FileNotFoundError(f"path must be an existing file, got none: {path} is missing")
        try:
            text = path.read_text(encoding="utf-8")
            content = yaml.safe_load(text)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            cause = " ".join(str(error).split())
            raise ValueError(f"{path} is not a YAML file: {cause}; {REMEDY}") from error
        head, _, body = text.partition("\n")
        if (written := _HEAD.fullmatch(head)) and written[1] != checksum(body.encode()):
            raise ValueError(
                f"{path} was changed after it was written: its checksum differs; restore a "
                "copy of it, or remove its first line to accept the change"
            )
        try:
            return cls.of(content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is not a configuration: {error}; {REMEDY}") from error

    def save(self, path: Path) -> None:
        """
        Write the configuration as YAML, under a line with a checksum.

        :param path: the file to write.
        """
        with needs("train"):
            import yaml
        path = file_path("path", path)
        body = yaml.safe_dump(asdict(self), sort_keys=False)
        written = f"# written by pyro-tkam {__version__}, checksum {checksum(body.encode())}"
        write_text(path, f"{written}: remove this line after editing by hand\n{body}")


_HEAD = re.compile(r"# written by pyro-tkam \S+, checksum (\w+): .*")

PRECISIONS = ("32-true", "bf16-mixed")
"""Precisions in which a run can compute, by Lightning's names."""


def check_hardware(batch_size: int, devices: int, num_nodes: int, precision: str) -> None:
    """
    Refuse a batch size that the processes can't share, invalid numbers of processes, and unknown
    precisions.

    :param batch_size: rows of a batch, of all processes together.
    :param devices: number of processes on each machine.
    :param num_nodes: number of machines.
    :param precision: one of :data:`PRECISIONS`.
    :raises ValueError: names the argument.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        whole_number(name, value, 1)
    whole_number("batch_size", batch_size, 1)
    if batch_size % (devices * num_nodes):
        raise ValueError(
            f"batch_size must be a multiple of the {devices * num_nodes} processes, got "
            f"{batch_size}"
        )
    one_of("precision", precision, PRECISIONS)


_PARTS: dict[str, type] = {
    "model": ModelConfig,
    "chains": ChainConfig,
    "pair": PairConfig,
    "penalty": PenaltyConfig,
    "start": StartConfig,
}


def _known(kind: type, content: Any) -> dict[str, Any]:
    """Check that the keys of a mapping are fields of a dataclass, and return the mapping."""
    if not isinstance(content, Mapping):
        raise ValueError(f"configuration must be a mapping, got {type(content).__name__}")
    names = [entry.name for entry in fields(kind)]
    unknown = [str(key) for key in content if key not in names]
    if unknown:
        raise ValueError(f"keys must be among {', '.join(names)}, got {', '.join(unknown)}")
    return dict(content)
