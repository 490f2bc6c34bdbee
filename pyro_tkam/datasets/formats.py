"""Readers of the formats in which image data sets are published."""

import gzip
import hashlib
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_tkam._optional import needs

_IDX_BYTES = 0x08  # the code of unsigned bytes in an idx header


def check_md5(path: Path, expected: str) -> None:
    """
    Compare a file with its published checksum.

    :param path: the file.
    :param expected: its MD5 sum in hexadecimal.
    :raises ValueError: if they differ.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    _same_md5(path, found, expected)


def _same_md5(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"folder must hold the published files, got {path} with MD5 sum {found} instead of "
            f"{expected}; download it again"
        )


def read_idx(path: Path, *, md5: str | None = None) -> NDArray[np.uint8]:
    """
    Read an array of bytes in the idx format of MNIST, whole or gzipped.

    :param path: the file; the suffix ``.gz`` means that it is gzipped.
    :param md5: MD5 sum of the unpacked file in hexadecimal; None accepts any content.
    :raises ValueError: for any other format, and for a file that is truncated or too long.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"folder must hold gzip files, got {path}: {error}") from error
    if len(content) < 4 or content[:3] != bytes((0, 0, _IDX_BYTES)):
        raise ValueError(
            f"folder must hold idx files of bytes, got {path}, which starts with "
            f"{content[:4].hex(' ')}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(
            f"folder must hold complete files, got {path} with {len(content)} of {start} bytes"
        )
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(
            f"folder must hold complete files, got {path} with {len(content) - start} bytes of "
            f"data for a header of {shape}"
        )
    if md5 is not None:
        _same_md5(path, hashlib.md5(content, usedforsecurity=False).hexdigest(), md5)
    # a view of bytes would be read-only
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def read_mat(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """
    Read images ``X`` and classes ``y`` from a MATLAB file of SVHN, in which class 10 is the digit
    0.

    :param path: the file.
    :return: shapes ``(num, 3, height, width)`` and ``(num,)``.
    :raises ValueError: for any other content.
    :raises ImportError: without the extra ``datasets``.
    """
    with needs("datasets"):
        from scipy.io import loadmat
    try:
        content = loadmat(path)
        pixels = content["X"]
        labels = content["y"].ravel()
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise ValueError(
            f"folder must hold a MATLAB file with X and y, got {path}: {error}"
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2:] != (3, len(labels)):
        raise ValueError(
            f"folder must hold images of bytes, (height, width, 3, num), got {pixels.dtype} of "
            f"shape {pixels.shape} for {len(labels)} classes in {path}"
        )
    return pixels.transpose(3, 2, 0, 1), labels.astype(np.int64) % 10


class _ArraysOnly(pickle.Unpickler):
    """
    An unpickler that makes NumPy arrays and plain containers, and refuses to call anything else.
    """

    allowed = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which no batch of CIFAR-10 contains"
            )
        if module == "numpy._core.multiarray":
            return np.ndarray.__reduce__(np.empty(0))[0]  # by its name in this version of NumPy
        return super().find_class(module, name)


def read_cifar_batch(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """
    Read a batch of CIFAR-10, which is a pickle, without running code that a file may contain.

    :param path: the file.
    :return: images ``(num, 3, 32, 32)`` and classes ``(num,)``.
    :raises ValueError: for any other content, and a pickle that names anything but arrays.
    """
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
        pixels = content["data"]
        labels = np.asarray(content["labels"], np.int64)
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:
        raise ValueError(f"folder must hold batches of CIFAR-10, got {path}: {error}") from error
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(labels), 3072)
    ):
        got = f"{pixels.dtype} of {pixels.shape}" if isinstance(pixels, np.ndarray) else "others"
        raise ValueError(
            f"folder must hold bytes of shape ({len(labels)}, 3072), got {got} in {path}"
        )
    return pixels.reshape(-1, 3, 32, 32), labels
