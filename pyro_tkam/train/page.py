"""A self-contained HTML page that shows a run, for example to send by mail."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from pyro_tkam import __version__
from pyro_tkam._files import write_text
from pyro_tkam.train.checkpoints import last_checkpoint
from pyro_tkam.train.config import TrainConfig
from pyro_tkam.train.folder import RunFolder, existing_folder, read_results
from pyro_tkam.train.per_datum import METHOD_WORDS

_TEMPLATE = Path(__file__).with_name("page.html")
_UNFINISHED = "<p>Not available: the run has not finished.</p>"


def report(folder: Path | str) -> Path:
    """
    Write ``report.html`` into a run folder: configuration, curves, samples, priors, evidence and
    verdict.

    The page shows the evidence of each datum if ``python -m pyro_tkam evidence`` was run. Pictures
    are embedded, all text is escaped, and nothing is recomputed. The report of an unfinished run
    shows what exists so far.

    :param folder: the run folder.
    :return: the file.
    :raises FileNotFoundError: for a missing folder, configuration or checkpoint.
    :raises ValueError: for a damaged configuration, checkpoint, metrics, summary or evidence.
    """
    files = existing_folder(folder)
    last_checkpoint(files)  # refuses damaged files
    config = TrainConfig.load(files.config)
    summary = files.read_summary()
    each = files.path / "evidence.json"
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(files.path.resolve().name),
        state=_state(files, config),
        evidence=_shown(files.summary, summary, _evidence)
        + _shown(
            each, read_results(each, "delete it, and `evidence` will write it again"), _per_datum
        ),
        curves=_picture(files.path / "curves.png", "metrics of every update"),
        metrics=_table({name: value for name, value in summary.items() if name != "held_out"}),
        samples=_samples(files),
        priors=_picture(files.path / "prior.png", "the learned prior beside its reference"),
        configuration=_table(_flat(asdict(config))),
        version=__version__,
    )
    written = files.path / "report.html"
    write_text(written, page)
    return written


def _shown(path: Path, numbers: Mapping[str, Any], show: Callable[[Mapping[str, Any]], str]) -> str:
    """Show the content of a file."""
    try:
        return show(numbers)
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no entry {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _state(files: RunFolder, config: TrainConfig) -> str:
    done = len(files.read_metrics().get("update", ())) if files.metrics.is_file() else 0
    return f"<p>{done} of {config.updates} updates on {escape(config.data)}.</p>"


def _evidence(summary: Mapping[str, Any]) -> str:
    evidence = summary.get("held_out")
    if not summary:
        return _UNFINISHED
    if evidence is None:
        return "<p>Not estimated: no data were held out.</p>"
    verdict = str(evidence["verdict"])
    kind = "verdict reliable" if verdict.startswith("reliable") else "verdict"
    value = (
        f"{evidence['log_evidence']:.2f} ± {evidence['standard_error']:.2g} nats per held-out datum"
    )
    return (
        f'<div class="{kind}"><p><strong>{escape(value)}</strong></p><p>{escape(verdict)}</p></div>'
    )


def _per_datum(evidence: Mapping[str, Any]) -> str:
    """Show the results of ``python -m pyro_tkam evidence`` if it was run."""
    if not evidence:
        return ""
    value = f"{evidence['log_evidence']:.3f} ± {evidence['standard_error']:.2g} nats per datum"
    ways = ", ".join(
        f"{count} by {METHOD_WORDS[name]}" for name, count in evidence["methods"].items() if count
    )
    rows = {"estimated": ways, "trusted": f"{evidence['trusted']} of {evidence['num']}"}
    if evidence["checked"]:
        rows["agree with tempering"] = f"{evidence['agreeing']} of {evidence['checked']}"
    kind = "verdict reliable" if evidence["trusted"] == evidence["num"] else "verdict"
    return (
        f'<div class="{kind}"><p><strong>{escape(value)}</strong>, each by '
        f"itself</p>{_table(rows)}</div>"
    )


def _samples(files: RunFolder) -> str:
    """Return the samples: a picture, one for each modality, or texts."""
    for path in (files.responses, files.texts):
        if path.is_file():
            return f"<pre>{escape(path.read_text(encoding='utf-8'))}</pre>"
    if pictures := sorted(files.path.glob("samples-of-*.png")):
        return "".join(_picture(path, f"samples of {path.stem[11:]}") for path in pictures)
    return _picture(files.path / "samples.png", "samples of the trained model")


def _picture(path: Path, alternative: str) -> str:
    """Return a picture that is embedded in the page."""
    if not path.is_file():
        return "<p>No picture.</p>"
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{escape(alternative)}" src="data:image/png;base64,{content}">'


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested options, with names as on the command line."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return flat


def _table(values: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th><td>{escape(_text(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)
