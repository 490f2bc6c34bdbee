"""A whole training run from its configuration, and loading a trained model from a run folder."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from pyro_tkam import _arviz
from pyro_tkam._checks import file_path, flag, instance
from pyro_tkam._files import replacing
from pyro_tkam.datasets import Pairs
from pyro_tkam.models import PairGuide, Seq2SeqTKAM
from pyro_tkam.train.batches import tensors
from pyro_tkam.train.checkpoints import last_checkpoint, read_last_checkpoint
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.data import RECORDED, load_data
from pyro_tkam.train.folder import (
    RunFolder,
    existing_folder,
    training_to_arviz,
    write_results,
)
from pyro_tkam.train.measures import measured
from pyro_tkam.train.ownership import sole_owner
from pyro_tkam.train.pairs import (
    SHOWN,
    pair_summary,
    responses,
    write_responses,
)
from pyro_tkam.train.presets import make_model


def train(config: TrainConfig, folder: Path | str, *, progress: bool = True) -> dict[str, Any]:
    """
    Train, starting from the folder's last checkpoint if there is one, and write all results of the
    run.

    The folder gets ``config.yaml``, ``metrics.csv``, ``checkpoints/last.ckpt``, ``summary.json``,
    ``samples.png`` (``responses.txt`` for pairs of sequences), ``prior.png``, ``curves.png`` and
    ``training.nc``.

    :param config: everything that determines the run.
    :param folder: the run folder. An existing folder must have the same configuration.
    :param progress: show a progress bar.
    :return: the content of ``summary.json``. If several processes train together, the first one
        does the work after training, and the others return nothing at once.
    :raises ValueError: for a folder with another configuration or damaged files.
    :raises BlockingIOError: if another process trains in the folder.
    :raises OSError: if the disk is full; the last checkpoint is kept.
    """
    from pyro_tkam.train.pictures import draw_run

    instance("config", config, TrainConfig, "a TrainConfig")
    flag("progress", progress)
    files = RunFolder(file_path("folder", folder))
    data = load_data(config)
    config = replace(config, model=data.model)
    processes = config.devices * config.num_nodes

    def go_on() -> str:
        if files.config.is_file():
            return f"continue it with `python -m pyro_tkam resume {files.path}`"
        return "nothing was trained yet; start it again"

    task = "resume" if files.config.is_file() else "train"
    with sole_owner(files.path, task, processes, go_on):
        earlier = files.read_summary().get("seconds_per_update")
        seconds = _fit(config, data.rows, files, progress)
        if not _is_first_process():
            return {}
        model = load_model(files.path)
        pyro.set_rng_seed(config.seed)
        summary = {
            **_last_metrics(files),
            **_measured(model, data.held_out, files),
            "seconds_per_update": earlier if seconds is None else seconds,
        }
        draw_run(model, files, config.model)
        written = write_results(files.summary, summary)
        with replacing(files.training) as aside:
            _arviz.save(training_to_arviz(files), aside)
        return written


def _fit(config: TrainConfig, rows: Any, files: RunFolder, progress: bool) -> float | None:
    """Make the model and train it; return the median number of seconds per update."""
    from lightning.pytorch.callbacks import LambdaCallback

    from pyro_tkam.train.grid_updates import GridUpdates
    from pyro_tkam.train.module import ELBOTraining
    from pyro_tkam.train.objectives import make_objective
    from pyro_tkam.train.penalties import make_penalty
    from pyro_tkam.train.start import start_prior
    from pyro_tkam.train.trainer import fit

    pyro.set_rng_seed(config.seed)
    model = make_model(config.model)
    if config.model.standardized:
        model.likelihood.fit(next(tensors(rows)))
    if last_checkpoint(files) is None:
        start_prior(config, model)
    # Pyro turns gradients back on, so parameters are frozen by leaving them out of the optimizer.
    frozen = {id(each) for each in model.prior.parameters() if config.start.frozen}
    elbo, guide = make_objective(config, model)
    module = ELBOTraining(
        model,
        elbo,
        guide,
        size=len(next(tensors(rows))),
        optimizer=lambda parameters: torch.optim.Adam(
            [each for each in parameters if id(each) not in frozen],
            lr=config.learning_rate,
            fused=True,
        ),
        scheduler=_one_cycle(config) if config.schedule == "one-cycle" else None,
        penalty=make_penalty(config.penalty, model),
    )
    _check_claim(files, config)
    # With several processes, the first one is known only after they have started.
    claim = LambdaCallback(
        on_fit_start=lambda trainer, _: (
            config.save(files.config) if trainer.is_global_zero else None
        )
    )
    grids = () if config.grid_updates is None else (GridUpdates(**vars(config.grid_updates)),)
    return fit(
        module,
        rows,
        files.path,
        updates=config.updates,
        batch_size=config.batch_size,
        seed=config.seed,
        clip_norm=config.clip_norm,
        checkpoint_every=config.checkpoint_every,
        callbacks=(claim, *grids),
        patience=config.patience,
        tensorboard=config.tensorboard,
        device=config.device,
        devices=config.devices,
        num_nodes=config.num_nodes,
        precision=config.precision,
        progress=progress,
    )


def _one_cycle(config: TrainConfig) -> Callable[[Optimizer], LRScheduler]:
    """Return a schedule that rises within a twentieth of the updates, and ends near zero."""
    return partial(
        OneCycleLR,
        max_lr=config.learning_rate,
        total_steps=config.updates + 1,
        pct_start=0.05,
    )


def _is_first_process() -> bool:
    from lightning.pytorch.utilities import rank_zero_only

    return bool(rank_zero_only.rank == 0)


def _check_claim(files: RunFolder, config: TrainConfig) -> None:
    """Refuse a folder that has a checkpoint of another version or configuration."""
    if last_checkpoint(files) is not None and TrainConfig.load(files.config) != config:
        raise ValueError(
            f"{files.path}: this run has a different configuration, {files.config}; "
            "use a new folder"
        )


def _last_metrics(files: RunFolder) -> dict[str, Any]:
    """Average the training metrics over the last tenth of the run."""
    columns = files.read_metrics()
    updates = len(columns["update"])
    tail = max(1, updates // 10)
    means = {
        f"train_{name}": sum(values[-tail:]) / tail
        for name, values in columns.items()
        if name != "update"
    }
    return {"updates": updates, **means}


def _measured(model: Any, held_out: Any, files: RunFolder) -> dict[str, Any]:
    """Measure held-out data; for a model of pairs, also write targets that it generates."""
    if isinstance(held_out, Pairs):
        if len(held_out) == 0:
            return {}
        guide = load_guide(files.path, model)
        lines = responses(model, guide, held_out, held_out.source[:SHOWN], num=3)
        write_responses(files.responses, lines)
        return pair_summary(model, guide, held_out)
    if len(next(tensors(held_out))) == 0:
        return {}
    with pyro.get_param_store().scope():
        return measured(model, held_out)


def load_model(folder: Path | str) -> Any:
    """
    Return the trained model of a run folder.

    :param folder: the run folder.
    :raises FileNotFoundError: for a missing folder, configuration or checkpoint.
    :raises ValueError: for a damaged configuration or checkpoint, and for a checkpoint of another
        version or model.
    """
    files, config, state = _read(folder)
    recorded = RECORDED.get(config.model.preset, "data_shape")
    if getattr(config.model, recorded) is None:
        raise ValueError(f"{files.config} lacks model.{recorded}, which training records")
    return _restored(make_model(config.model), "model", files, state)


def load_guide(folder: Path | str, model: Seq2SeqTKAM) -> PairGuide:
    """
    Return the trained guide of a run on pairs of sequences.

    :param folder: the run folder.
    :param model: the model of the folder, which the guide reads.
    :raises FileNotFoundError: for a missing folder, configuration or checkpoint.
    :raises ValueError: for a run without such a guide, and damaged files.
    """
    instance("model", model, Seq2SeqTKAM, "a Seq2SeqTKAM")
    files, config, state = _read(folder)
    if config.model.preset != "seq2seq":
        raise ValueError(
            f"folder must be a run with the preset 'seq2seq', got {config.model.preset!r} in "
            f"{files.path}"
        )
    return _restored(PairGuide(model), "guide", files, state)


Part = TypeVar("Part", bound=nn.Module)


def _restored(part: Part, name: str, files: RunFolder, state: dict[str, Tensor]) -> Part:
    """Load the state of the model or of the guide."""
    prefix = f"objective.{name}."
    own = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    try:
        part.load_state_dict(own)
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise ValueError(
            f"{files.checkpoint} does not fit the {name} that {files.config} describes: {cause}"
        ) from error
    return part


def _read(folder: Path | str) -> tuple[RunFolder, TrainConfig, dict[str, Tensor]]:
    """Read the configuration and the last checkpoint."""
    files = existing_folder(folder)
    content = read_last_checkpoint(files) if files.checkpoint.exists() else None
    config = TrainConfig.load(files.config)
    if content is None or content["global_step"] == 0:
        raise FileNotFoundError(
            f"{files.checkpoint} is missing: the run has not reached its first checkpoint"
        )
    return files, config, content["state_dict"]
