"""MNIST, Fashion-MNIST, SVHN and CIFAR-10, from their published files in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_tkam._optional import needs
from pyro_tkam.datasets.formats import check_md5, read_cifar_batch, read_idx, read_mat
from pyro_tkam.datasets.images import LabeledImages

# Checksums as the data sets' authors and torchvision publish them.
_MNIST = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_FASHION = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_SVHN = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}
_CIFAR10 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


def mnist(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read MNIST (LeCun et al. 1998) from its four idx files, gzipped or not.

    :param folder: where they lie, or in ``MNIST/raw`` in it.
    :param train: the 60,000 training images, or the 10,000 test images.
    :param verify: compare the gzipped files with their published checksums; for files that are not
        gzipped none is published, and their headers alone are checked.
    :param download: fetch missing files through ``torchvision``.
    :return: images of shape ``(num, 28, 28)`` and classes 0 to 9.
    :raises FileNotFoundError: for missing files; says which, and where to put them.
    :raises ValueError: for damaged files.
    :raises OSError: where the download fails.
    """
    return _idx("MNIST", _MNIST, Path(folder), train, verify, download)


def fashion_mnist(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read Fashion-MNIST (Xiao et al. 2017) from its four idx files; all else is as in :func:`mnist`.

    :param folder: where they lie, or in ``FashionMNIST/raw`` in it.
    :param train: the 60,000 training images, or the 10,000 test images.
    :param verify: compare the gzipped files with their published checksums.
    :param download: fetch missing files through ``torchvision``.
    """
    return _idx("FashionMNIST", _FASHION, Path(folder), train, verify, download)


def svhn(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read the cropped street view house numbers (Netzer et al. 2011) from a MATLAB file.

    :param folder: where ``train_32x32.mat`` and ``test_32x32.mat`` lie.
    :param train: the 73,257 training images, or the 26,032 test images.
    :param verify: compare the file with its published checksum.
    :param download: fetch a missing file through ``torchvision``.
    :return: images of shape ``(num, 3, 32, 32)`` and classes 0 to 9.
    :raises FileNotFoundError: for a missing file; says where to put it.
    :raises ValueError: for a damaged file.
    :raises ImportError: without the extra ``datasets``.
    """
    name = "train_32x32.mat" if train else "test_32x32.mat"
    options = {"split": "train" if train else "test"}
    (path,) = _files("SVHN", [name], Path(folder), "", download, options)
    if verify:
        check_md5(path, _SVHN[name])
    return _labeled(*read_mat(path))


def cifar10(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read CIFAR-10 (Krizhevsky 2009) from its Python batches, without running code that a pickle may
    carry.

    :param folder: where the batches lie, or in ``cifar-10-batches-py`` in it.
    :param train: the 50,000 training images, or the 10,000 test images.
    :param verify: compare the files with their published checksums.
    :param download: fetch missing files through ``torchvision``.
    :return: images of shape ``(num, 3, 32, 32)`` and classes 0 to 9.
    :raises FileNotFoundError: for missing files; says which, and where to put them.
    :raises ValueError: for damaged files.
    """
    names = [name for name in _CIFAR10 if name.startswith("data") == train]
    paths = _files(
        "CIFAR10", names, Path(folder), "cifar-10-batches-py", download, {"train": train}
    )
    if verify:
        for path in paths:
            check_md5(path, _CIFAR10[path.name])
    batches = [read_cifar_batch(path) for path in paths]
    return _labeled(
        np.concatenate([images for images, _ in batches]),
        np.concatenate([label for _, label in batches]),
    )


def _idx(
    kind: str, checksums: Mapping[str, str], folder: Path, train: bool, verify: bool, download: bool
) -> LabeledImages:
    prefix = "train" if train else "t10k"
    names = [name for name in checksums if name.startswith(prefix)]
    paths = _files(kind, names, folder, f"{kind}/raw", download, {"train": train})
    for path in paths:
        if verify and path.name in checksums:
            check_md5(path, checksums[path.name])
    images, labels = (read_idx(path) for path in paths)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{paths[0].parent}: its images are {images.shape} and its classes {labels.shape}"
        )
    return _labeled(images, labels.astype(np.int64))


def _labeled(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> LabeledImages:
    pixels = torch.as_tensor(images, dtype=torch.get_default_dtype()) / 255
    return LabeledImages(pixels, torch.as_tensor(labels))


def _files(
    kind: str,
    names: Sequence[str],
    folder: Path,
    inside: str,
    download: bool,
    options: dict[str, Any],
) -> list[Path]:
    """Return the files of a data set, fetched where that is asked for and needed."""
    found = {name: _find(name, folder, inside) for name in names}
    if download and None in found.values():
        _download(kind, folder, options)
        found = {name: _find(name, folder, inside) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        where = f"{folder}" + (f" or {folder / inside}" if inside else "")
        raise FileNotFoundError(
            f"{kind}: {', '.join(missing)} not found in {where}. Put the published files there, "
            "or pass download=True "
            "where torchvision and a network are at hand"
        )
    return [path for path in found.values() if path is not None]


def _find(name: str, folder: Path, inside: str) -> Path | None:
    """
    Return where a file is, in the folder or the one inside, gzipped (which has a checksum) before
    unpacked.
    """
    candidates = [
        parent / each
        for each in (name, name.removesuffix(".gz"))
        for parent in (folder, folder / inside)
    ]
    return next((path for path in candidates if path.is_file()), None)


def _download(kind: str, folder: Path, options: dict[str, Any]) -> None:
    with needs("download"):
        import torchvision.datasets
    try:
        getattr(torchvision.datasets, kind)(str(folder), download=True, **options)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{kind} could not be downloaded ({error}); put its published files into {folder}"
        ) from error
