"""Conversion of the user's data (tensors, arrays, Datasets, files) to a Dataset for training."""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from pyro_tkam._checks import existing_file, file_path, text, whole_number
from pyro_tkam.datasets.flow import darcy
from pyro_tkam.datasets.images import digits, mnist5k
from pyro_tkam.datasets.photographs import color_patches
from pyro_tkam.ops._arguments import dense

_INTEGERS = (torch.int64, torch.bool)


def as_dataset(data: Any) -> Dataset[Any]:
    """
    Return data as a torch ``Dataset``.

    :param data: a tensor or array of shape ``(num, *event)``, whose dtype is kept: floating point,
        or integers for symbols; a tuple or dictionary of them, see :class:`RowsOf`; or any
        map-style ``Dataset``, which is returned unchanged.
    :raises TypeError: for other types and dtypes, such as bytes.
    :raises ValueError: for no rows, rows without an event dimension (except in a tuple or
        dictionary), different numbers of rows, and elements that are not finite.

    >>> len(as_dataset(np.zeros((4, 3))))
    4
    """
    if isinstance(data, Dataset):
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise TypeError(
                f"data must be a map-style Dataset, got {type(data).__name__} without a length"
            )
        if len(data) == 0:
            raise ValueError("data must have at least one item, got an empty Dataset")
        return data
    if isinstance(data, tuple | Mapping):
        return RowsOf(data)
    return TensorDataset(_rows("data", data, integers=True))


class RowsOf(Dataset[Any]):
    """
    Rows of several tensors together; an item has the structure of the data.

    :param data: a tuple or dictionary of tensors or arrays, possibly nested, all with the same
        number of rows. Integers stand for symbols and classes, Booleans for masks. A tensor of
        shape ``(num,)`` holds one number per row.
    :raises TypeError: for other types.
    :raises ValueError: for empty data, different numbers of rows, and elements that are not finite.

    >>> rows = RowsOf(({"image": torch.rand(4, 2), "label": torch.arange(4)}, torch.tensor([0, -1,
    ...     1, -1])))
    >>> rows[1][0]["label"], rows[torch.tensor([0, 2])][1]
    (tensor(1), tensor([0, 1]))
    """

    def __init__(self, data: Any) -> None:
        self._data = _checked_tree("data", data)
        sizes = {name: len(rows) for name, rows in _leaves("data", self._data)}
        if len(set(sizes.values())) != 1:
            raise ValueError(
                "data must be at least one tensor, all with the same number of rows, got "
                f"{sizes} rows"
            )
        self._size = next(iter(sizes.values()))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        return _mapped(lambda rows: rows[index], self._data)


def _mapped(fn: Callable[[Tensor], Tensor], data: Any) -> Any:
    """Apply a function to each tensor in nested tuples and dictionaries."""
    if isinstance(data, dict):
        return {name: _mapped(fn, part) for name, part in data.items()}
    return tuple(_mapped(fn, part) for part in data) if isinstance(data, tuple) else fn(data)


def _leaves(name: str, data: Any) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors in nested tuples and dictionaries, with their names."""
    if not isinstance(data, tuple | dict):
        yield name, data
        return
    for key, part in data.items() if isinstance(data, dict) else enumerate(data):
        yield from _leaves(f"{name}[{key!r}]", part)


def _checked_tree(name: str, data: Any) -> Any:
    """Check the tensors in nested tuples and dictionaries."""
    if isinstance(data, Mapping):
        return {key: _checked_tree(f"{name}[{key!r}]", part) for key, part in data.items()}
    if isinstance(data, tuple):
        return tuple(_checked_tree(f"{name}[{index}]", part) for index, part in enumerate(data))
    return _rows(name, data, integers=True, least_dim=1)


def _rows(name: str, data: Any, *, integers: bool = False, least_dim: int = 2) -> Tensor:
    """Check rows of data and return them as a tensor."""
    if not isinstance(data, Tensor | np.ndarray):
        raise TypeError(
            f"{name} must be a tensor, a NumPy array or a Dataset, got {type(data).__name__}"
        )
    if isinstance(data, np.ndarray) and data.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold floating point numbers, got an array of {data.dtype}")
    rows = torch.as_tensor(data)
    dense(name, rows)
    if not rows.is_floating_point() and not (integers and rows.dtype in _INTEGERS):
        others = ", or 64-bit integers for symbols" if integers else ""
        raise TypeError(
            f"{name} must hold floating point numbers (divide bytes by 255){others}, got "
            f"{rows.dtype}"
        )
    if rows.dim() < least_dim or rows.numel() == 0:
        raise ValueError(
            f"{name} must have shape (num, *event), all dimensions at least 1, got "
            f"{tuple(rows.shape)}"
        )
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"{name} must be finite, got NaN or infinite elements")
    return rows


def split(size: int, held_out: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """
    Split rows into training rows and held-out rows, at random but reproducibly.

    :param size: number of rows.
    :param held_out: how many of them to hold out.
    :param seed: selects the split; the global generator is neither read nor changed.
    :return: training indices and held-out indices, disjoint, together all rows.
    :raises ValueError: if no training row would be left.

    >>> train, test = split(10, 3)
    >>> len(train), len(test)
    (7, 3)
    """
    size = whole_number("size", size, 1)
    seed = whole_number("seed", seed, 0)
    if whole_number("held_out", held_out, 0) >= size:
        raise ValueError(f"held_out must be from 0 to {size - 1} of {size} rows, got {held_out}")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order[held_out:], order[:held_out]


#: replaces the readers' own messages, which explain how to run the code
_UNREADABLE = "it is incomplete or holds objects that could run code"


def _read_npy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except ValueError:
        raise ValueError(_UNREADABLE) from None


def _read_pt(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        raise ValueError(_UNREADABLE) from None


#: readers of data files by suffix
READERS: dict[str, Callable[[Path], Any]] = {".npy": _read_npy, ".pt": _read_pt}


def _pressures() -> Tensor:
    """Return Darcy pressures in units of the largest one, so that they lie between 0 and 1."""
    pressure = darcy().pressure
    return pressure / pressure.max()


#: rows to train on by the user's name
SOURCES: dict[str, Callable[[], Tensor]] = {
    "mnist5k": lambda: mnist5k().images,
    "digits": lambda: digits().images,
    "darcy": _pressures,
    "patches": lambda: color_patches().images,
}


def load_rows(source: str) -> Tensor:
    """
    Load a data set by name or data from a file.

    :param source: ``"mnist5k"``, ``"digits"``, ``"darcy"`` (pressures, scaled to [0, 1]),
        ``"patches"`` (from color photographs), or the path of a ``.npy`` or ``.pt`` file with a
        floating-point array.
    :return: rows in the default dtype, shape ``(num, *event)``.
    :raises ValueError: for an unknown name, a file that cannot be read, and whatever
        :func:`as_dataset` refuses.
    :raises FileNotFoundError: for a missing file.
    """
    if isinstance(source, str) and source in SOURCES:
        return SOURCES[source]()
    names = f"one of {sorted(SOURCES)} or "
    return load_array(source, "data", least_dim=2, or_names=names)


def load_arrays(source: str) -> dict[str, Tensor]:
    """
    Load named arrays from a file, all with the same number of rows.

    :param source: path of a ``.npz`` file.
    :return: floating-point arrays in the default dtype, integers as int64, Booleans as they are.
    :raises ValueError: for a file that cannot be read, arrays of other types, different numbers of
        rows, and elements that are not finite.
    :raises FileNotFoundError: for a missing file.
    """
    path = file_path("data", source)
    if path.suffix != ".npz":
        raise ValueError(f"data must be a .npz file of named arrays, got {source!r}")
    existing_file("data", path)
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"data must be a file that can be read as arrays, got {source}: {_UNREADABLE}"
        ) from error
    found = {
        name: torch.as_tensor(array.astype(np.int64) if array.dtype.kind in "iu" else array)
        for name, array in arrays.items()
        if array.dtype.kind in "fiub"
    }
    if other := sorted(set(arrays) - set(found)):
        raise ValueError(
            f"data must be numbers or Booleans, got {arrays[other[0]].dtype} in {other[0]!r}"
        )
    RowsOf(found)  # checks them
    default = torch.get_default_dtype()
    return {
        name: array.to(default) if array.is_floating_point() else array
        for name, array in found.items()
    }


def load_array(source: str, name: str, *, least_dim: int = 1, or_names: str = "") -> Tensor:
    """
    Load a floating-point array from a file.

    :param source: path of a ``.npy`` or ``.pt`` file.
    :param name: its name in errors.
    :param least_dim: smallest number of dimensions.
    :param or_names: what else ``source`` may be, for errors.
    :return: the array in the default dtype.
    :raises ValueError: for a file that cannot be read, and elements that are not finite.
    :raises FileNotFoundError: for a missing file.
    """
    text("name", name)
    text("or_names", or_names)
    least_dim = whole_number("least_dim", least_dim, 0)
    path = file_path(name, source)
    if path.suffix not in READERS:
        raise ValueError(f"{name} must be {or_names}a {' or '.join(READERS)} file, got {source!r}")
    existing_file(name, path)
    try:
        content = READERS[path.suffix](path)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{name} must be a file that can be read as an array, got {source}: {error}"
        ) from error
    return _rows(name, content, least_dim=least_dim).to(torch.get_default_dtype())
