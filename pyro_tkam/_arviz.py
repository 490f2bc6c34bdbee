"""
The one place that knows ArviZ 0.2x (``InferenceData``) from 1.x (``DataTree``); NumPy arrays in, no
torch.

Everything else hands over plain ``{group: {name: array}}`` dictionaries, see :func:`from_groups`.
"""

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from pyro_tkam._checks import file_path

# ArviZ 0.23 tells, once a day, that 1.0 differs; this module takes both.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
    import arviz

__all__ = [
    "Container",
    "ess",
    "from_groups",
    "load",
    "posterior",
    "psis",
    "rhat",
    "save",
    "variable_name",
]

#: ``arviz.InferenceData`` or ``xarray.DataTree``.
Container = Any

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""Bytes with which a netCDF file of version 4 begins."""

_HAS_INFERENCE_DATA = int(arviz.__version__.split(".")[0]) < 1
_DATA_GROUPS = ("observed_data", "constant_data", "predictions_constant_data")
_MIN_PSIS_DRAWS = 25  # a fifth of the draws are tail, and the fit needs five


def ess(draws: ArrayLike, method: str = "bulk") -> NDArray[np.float64]:
    """Effective sample size of Markov chain draws (Vehtari et al. 2021, arXiv:1903.08008).

    :param draws: array of shape ``(chain, draw, *event)``.
    :param method: ArviZ's name of the quantity, such as ``"bulk"``, ``"tail"`` or ``"mean"``.
    :return: array of shape ``event``, in draws.
    """
    return np.asarray(arviz.ess(_as_dataset(draws), method=method)["x"].values)


def rhat(draws: ArrayLike, method: str = "rank") -> NDArray[np.float64]:
    """Rank-normalized split R-hat (Vehtari et al. 2021, arXiv:1903.08008): 1 where chains agree.

    :param draws: array of shape ``(chain, draw, *event)``.
    :param method: ArviZ's name of the variant, such as ``"rank"`` or ``"split"``.
    :return: array of shape ``event``.
    """
    return np.asarray(arviz.rhat(_as_dataset(draws), method=method)["x"].values)


def psis(log_weights: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Pareto-smoothed importance weights and their tail index k̂ (Vehtari et al. 2024,
    arXiv:1507.02646).

    :param log_weights: log importance weights ``log p - log q`` (large is important) of shape
        ``(*batch, N)``.
    :return: smoothed log weights of the same shape, normalized over the last dimension, and k̂ of
        shape ``batch``. Below 0.7 an estimate from the weights can be trusted; ``-inf`` where the
        largest weights are all equal.
    :raises ValueError: if there are fewer than 25 weights, or one is NaN or ``+inf``.
    """
    weights = np.asarray(log_weights, dtype=np.float64)
    if weights.ndim == 0 or weights.shape[-1] < _MIN_PSIS_DRAWS:
        raise ValueError(
            f"log_weights must have shape (*batch, N) with N >= {_MIN_PSIS_DRAWS}, got "
            f"{weights.shape}"
        )
    if not np.isfinite(weights.max(-1)).all():
        raise ValueError("log_weights must be below +inf, not NaN and not all -inf")
    smoothed, khat = np.vectorize(_psis_of_vector, signature="(n)->(n),()")(weights)
    return smoothed, khat


def from_groups(
    groups: Mapping[str, Mapping[str, ArrayLike]],
    *,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    attrs: Mapping[str, Any] | None = None,
    sample_dims: Mapping[str, Sequence[str]] | None = None,
) -> Container:
    """
    Container of named groups of labeled arrays: ``InferenceData`` under ArviZ 0.2x, ``DataTree``
    under 1.x.

    :param groups: ``{group: {variable: array}}``, any group names; an array's shape is
        ``(*sample_dims, *event)``. netCDF has no slashes in names: ``outer/mu`` becomes
        ``outer.mu`` (:func:`variable_name`).
    :param dims: ``{variable: names of its event dimensions}``, or ``{"group/variable": ...}`` where
        groups differ; by default ``<variable>_dim_<i>``.
    :param coords: ``{dimension: labels}``; by default 0, 1, 2, …
    :param attrs: attributes of the whole: numbers, strings or arrays of them, so that they survive
        netCDF.
    :param sample_dims: ``{group: names of its leading dimensions}``; by default none for observed
        and constant data, and ``("chain", "draw")`` for every other group.
    :raises TypeError: if an attribute is something that netCDF cannot hold.
    :raises ValueError: if a variable has another number of dimensions than its names, sizes
        disagree, or two variables or dimensions would have one name.
    """
    attrs = dict(attrs or {})
    for name, value in attrs.items():
        if np.asarray(value).dtype.kind not in "iufU":
            raise TypeError(
                f"attrs[{name!r}] must be a number, a string or an array of them, got {value!r}"
            )
    datasets = {
        group: _group_dataset(
            variables,
            leading=(sample_dims or {}).get(
                group, () if group in _DATA_GROUPS else ("chain", "draw")
            ),
            dims=_dims_of(group, dims or {}),
            coords=coords or {},
        )
        for group, variables in groups.items()
    }
    if _HAS_INFERENCE_DATA:
        return arviz.InferenceData(attrs=attrs, **datasets)
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs = attrs
    return tree


def save(container: Container, path: str | PathLike[str]) -> None:
    """Write a container to a netCDF file.

    :param container: what :func:`from_groups` returned.
    :param path: file to write; an existing one is replaced.
    :raises TypeError: for what is no container, and what is no path.
    :raises ValueError: for a folder.
    """
    if not hasattr(container, "to_netcdf"):
        raise TypeError("container must be what to_arviz returns, got " + type(container).__name__)
    if file_path("path", path).is_dir():
        raise ValueError(f"path must be a file, got the folder {str(path)!r}")
    container.to_netcdf(str(path), engine="h5netcdf")


def check_netcdf(name: str, path: Any) -> None:
    """Refuse what is no path of a netCDF file.

    :param name: of the argument.
    :param path: its value.
    :raises TypeError: for what is no path.
    :raises ValueError: for a file that is missing or of another kind.
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"{name} must be the path of a netCDF file, got {path!r}")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"{name} must be an existing file, got {str(path)!r}")
    with file.open("rb") as content:
        if content.read(len(SIGNATURE)) != SIGNATURE:
            raise ValueError(
                f"{name} must be a netCDF file, got another kind of file, {str(path)!r}"
            )


def load(path: str | PathLike[str]) -> Container:
    """Read a container from a netCDF file into memory.

    :param path: file that :func:`save` wrote.
    :return: ``InferenceData`` or ``DataTree``.
    :raises TypeError: for what is no path.
    :raises ValueError: for a file that is missing or no netCDF.
    """
    check_netcdf("path", path)
    if _HAS_INFERENCE_DATA:
        return arviz.from_netcdf(str(path), engine="h5netcdf").load()
    with xarray.open_datatree(str(path), engine="h5netcdf") as tree:
        # Not tree.load(): it skips a variable that has the name of a group.
        return tree.map_over_datasets(xarray.Dataset.load)


def posterior(container: Container) -> dict[str, NDArray[Any]] | None:
    """Draws of a container's posterior, each ``(chain, draw, *event)``; None where it has none.

    :param container: ``InferenceData`` or ``DataTree``.
    """
    group = getattr(container, "posterior", None)
    if group is None or not hasattr(group, "data_vars"):
        return None
    return {
        str(name): variable.transpose("chain", "draw", ...).values
        for name, variable in group.data_vars.items()
    }


def variable_name(name: str) -> str:
    """Name under which a container holds a variable: slashes, which netCDF forbids, are dots."""
    return name.replace("/", ".")


def _dims_of(group: str, dims: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Names of dimensions by variable, those given for this group first."""
    own = {
        name.removeprefix(f"{group}/"): names
        for name, names in dims.items()
        if name.startswith(f"{group}/")
    }
    return {**dims, **own}


def _as_dataset(draws: ArrayLike) -> xarray.Dataset:
    array = np.asarray(draws)
    if array.ndim < 2:
        raise ValueError(f"draws must have shape (chain, draw, *event), got {array.shape}")
    return _group_dataset({"x": array}, leading=("chain", "draw"), dims={}, coords={})


def _group_dataset(
    variables: Mapping[str, ArrayLike],
    *,
    leading: Sequence[str],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, ArrayLike],
) -> xarray.Dataset:
    data: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {}
    for name, values in variables.items():
        array = np.asarray(values)
        default = [f"{name}_dim_{i}" for i in range(array.ndim - len(leading))]
        names = tuple(variable_name(dim) for dim in (*leading, *dims.get(name, default)))
        if len(names) != array.ndim:
            raise ValueError(f"{name} must have the dimensions {names}, got shape {array.shape}")
        if len(set(names)) < len(names):
            raise ValueError(
                f"{name} must have dimensions with distinct names, got {names}: rename the plate"
            )
        if variable_name(name) in data:
            raise ValueError(
                f"variables must have distinct names, got {variable_name(name)!r} twice after "
                "slashes become dots: rename a site"
            )
        data[variable_name(name)] = (names, array)
    used = {dim for names, _ in data.values() for dim in names}
    if clash := sorted(used & set(data)):
        raise ValueError(
            f"variables must not share names with dimensions, got {clash}: rename these sites"
        )
    dataset = xarray.Dataset(data)
    labels = {variable_name(dim): label for dim, label in coords.items()}
    return dataset.assign_coords(
        {dim: labels.get(str(dim), np.arange(size)) for dim, size in dataset.sizes.items()}
    )


def _psis_of_vector(log_weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    tail_length = min(len(log_weights) // 5, int(3 * len(log_weights) ** 0.5))
    tail = np.partition(log_weights, -tail_length)[-tail_length:]
    if tail.min() == tail.max():  # no tail to fit
        smoothed = log_weights
        khat = -np.inf
    elif _HAS_INFERENCE_DATA:
        smoothed, khat = arviz.psislw(log_weights, normalize=False)
    else:
        # only ArviZ 1.x has it, and it takes -log p + log q
        from arviz_stats.base import array_stats

        smoothed, khat = array_stats.psislw(-log_weights)
    return smoothed - np.logaddexp.reduce(smoothed), float(khat)
