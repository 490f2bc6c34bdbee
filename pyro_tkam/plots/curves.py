"""Curves of training."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from pyro_tkam._checks import iterable, mapping, number, whole_number
from pyro_tkam.plots.axes import Axes, panels_or_new

_LABELS = {"loss": "loss (nats per datum)", "ess": "effective draws per datum"}


def training_curves(
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    axes: Sequence[Axes] | None = None,
    *,
    window: int = 50,
) -> Sequence[Axes]:
    """
    Plot every metric of the first run against the number of updates: the values (faint) and their
    running mean. Other runs may have more metrics.

    The vertical axis excludes the first fiftieth of the updates if their values are far away.

    :param runs: for each run's name, its columns, including ``"update"``; see
        :meth:`pyro_tkam.train.RunFolder.read_metrics`.
    :param axes: one for each other column; None makes a figure.
    :param window: updates in a running mean, at most a tenth of all.
    :return: the axes.
    :raises TypeError: for what is no mapping, and columns that are no sequences of numbers.
    :raises ValueError: for no runs, runs that lack metrics of the first, columns of
        different lengths, and if the number of
        axes differs from the number of metrics.
    """
    window = whole_number("window", window, 1)
    names = _names(runs)
    axes = panels_or_new(axes, len(names), f"of {names}", 4.5, 3.2)
    for name, panel in zip(names, axes, strict=True):
        for index, (run, columns) in enumerate(runs.items()):
            _curve(panel, columns["update"], columns[name], window, run, f"C{index}")
        panel.set_ylim(*_limits([columns[name] for columns in runs.values()]))
        panel.set_xlabel("update")
        panel.set_ylabel(_LABELS.get(name, name))
        panel.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        axes[0].legend(frameon=False)
    return axes


def _names(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Check the columns of all runs and return the names of the metrics."""
    mapping("runs", runs, "names to columns")
    if not runs:
        raise ValueError("runs must hold at least one run, got none")
    for run, columns in runs.items():
        mapping(f"runs[{run!r}]", columns, "names to columns")
    first = set(next(iter(runs.values())))
    for run, columns in runs.items():
        if not first <= set(columns) or "update" not in columns or len(columns) < 2:
            raise ValueError(
                "runs must all have the columns of the first, 'update' and others, got "
                f"{sorted(columns)} in {run!r}"
            )
        for name, column in columns.items():
            iterable(f"runs[{run!r}][{name!r}]", column, "numbers")
            for value in column:
                number(f"runs[{run!r}][{name!r}]", value)
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(f"runs must have columns of equal length, got {sizes} in {run!r}")
    return [name for name in next(iter(runs.values())) if name != "update"]


def _limits(curves: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return what to show: all but the first fiftieth, whose fall would flatten the rest."""
    later = [value for curve in curves for value in curve[len(curve) // 50 :]]
    margin = 0.05 * (max(later) - min(later)) or abs(max(later)) / 2 or 0.5
    return min(later) - margin, max(later) + margin


def _curve(
    axes: Axes,
    updates: Sequence[float],
    values: Sequence[float],
    window: int,
    label: str,
    color: str,
) -> None:
    window = max(1, min(window, len(values) // 10))
    sums = [0.0, *accumulate(values)]
    means = [(sums[i + window] - sums[i]) / window for i in range(len(values) - window + 1)]
    axes.plot(updates, values, color=color, alpha=0.25, linewidth=0.6)
    axes.plot(updates[window // 2 :][: len(means)], means, color=color, linewidth=1.5, label=label)
