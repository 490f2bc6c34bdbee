"""MNIST, Fashion-MNIST, SVHN and CIFAR-10, read from their published files in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_tkam._checks import file_path, flag
from pyro_tkam._optional import needs
from pyro_tkam.datasets.formats import check_md5, read_cifar_batch, read_idx, read_mat
from pyro_tkam.datasets.images import LabeledImages

# MD5 sums: of the unpacked files of MNIST and Fashion-MNIST, since packages gzip them anew; of the
# others as their authors and torchvision publish them.
_MNIST = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_FASHION = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
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

    :param folder: folder with the files, directly or in ``MNIST/raw``.
    :param train: the 60,000 training images, or the 10,000 test images.
    :param verify: compare the images and classes with the published ones by MD5 sum, however the
        files were packed.
    :param download: fetch missing files through ``torchvision``.
    :return: images of shape ``(num, 28, 28)`` and classes 0 to 9.
    :raises FileNotFoundError: for missing files; says which ones, and where to put them.
    :raises ValueError: for damaged files.
    :raises OSError: if the download fails.
    """
    return _idx("MNIST", _MNIST, folder, train, verify, download)


def fashion_mnist(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read Fashion-MNIST (Xiao et al. 2017) from its four idx files; everything else is as in
    :func:`mnist`.

    Debian has them in its package ``dataset-fashion-mnist``, in the folder
    ``/usr/share/datasets/fashion-mnist``.

    :param folder: folder with the files, directly or in ``FashionMNIST/raw``.
    :param train: the 60,000 training images, or the 10,000 test images.
    :param verify: compare the images and classes with the published ones by MD5 sum.
    :param download: fetch missing files through ``torchvision``.
    """
    return _idx("FashionMNIST", _FASHION, folder, train, verify, download)


def svhn(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read the cropped street view house numbers (Netzer et al. 2011) from a MATLAB file.

    :param folder: folder with ``train_32x32.mat`` and ``test_32x32.mat``.
    :param train: the 73,257 training images, or the 26,032 test images.
    :param verify: compare the file with its published checksum.
    :param download: fetch a missing file through ``torchvision``.
    :return: images of shape ``(num, 3, 32, 32)`` and classes 0 to 9.
    :raises FileNotFoundError: for a missing file; says where to put it.
    :raises ValueError: for a damaged file.
    :raises ImportError: without the extra ``datasets``.
    """
    folder = _checked(folder, train, verify, download)
    name = "train_32x32.mat" if train else "test_32x32.mat"
    options = {"split": "train" if train else "test"}
    (path,) = _files("SVHN", [name], folder, "", download, options)
    if verify:
        check_md5(path, _SVHN[name])
    return _labeled(*read_mat(path))


def cifar10(
    folder: Path | str, *, train: bool = True, verify: bool = True, download: bool = False
) -> LabeledImages:
    """
    Read CIFAR-10 (Krizhevsky 2009) from its Python batches, without running code that a pickle may
    contain.

    :param folder: folder with the batches, directly or in ``cifar-10-batches-py``.
    :param train: the 50,000 training images, or the 10,000 test images.
    :param verify: compare the files with their published checksums.
    :param download: fetch missing files through ``torchvision``.
    :return: images of shape ``(num, 3, 32, 32)`` and classes 0 to 9.
    :raises FileNotFoundError: for missing files; says which ones, and where to put them.
    :raises ValueError: for damaged files.
    """
    folder = _checked(folder, train, verify, download)
    names = [name for name in _CIFAR10 if name.startswith("data") == train]
    paths = _files("CIFAR10", names, folder, "cifar-10-batches-py", download, {"train": train})
    if verify:
        for path in paths:
            check_md5(path, _CIFAR10[path.name])
    batches = [read_cifar_batch(path) for path in paths]
    return _labeled(
        np.concatenate([images for images, _ in batches]),
        np.concatenate([label for _, label in batches]),
    )


def _idx(
    kind: str,
    checksums: Mapping[str, str],
    folder: Path | str,
    train: bool,
    verify: bool,
    download: bool,
) -> LabeledImages:
    folder = _checked(folder, train, verify, download)
    prefix = "train" if train else "t10k"
    names = [name for name in checksums if name.startswith(prefix)]
    paths = _files(kind, names, folder, f"{kind}/raw", download, {"train": train})
    images, labels = (
        read_idx(path, md5=checksums[name] if verify else None)
        for name, path in zip(names, paths, strict=True)
    )
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(
            "folder must hold images (num, height, width) and classes (num,), got "
            f"{images.shape} and {labels.shape} in {paths[0].parent}"
        )
    return _labeled(images, labels.astype(np.int64))


def _checked(folder: Path | str, train: bool, verify: bool, download: bool) -> Path:
    flag("train", train)
    flag("verify", verify)
    flag("download", download)
    return file_path("folder", folder)


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
    """Return the files of a data set; download missing ones if requested."""
    found = {name: _find(name, folder, inside) for name in names}
    if download and None in found.values():
        _download(kind, folder, options)
        found = {name: _find(name, folder, inside) for name in names}
    if missing := [name for name, path in found.items() if path is None]:
        where = f"{folder}" + (f" and {folder / inside}" if inside else "")
        raise FileNotFoundError(
            f"folder must hold {', '.join(missing)} of {kind}, got none in {where}; put the "
            "published files there, or pass download=True if torchvision and a network "
            "connection are available"
        )
    return [path for path in found.values() if path is not None]


def _find(name: str, folder: Path, inside: str) -> Path | None:
    """Return the path of a file, gzipped or not, in the folder or the inner folder."""
    candidates = [
        parent / each for each in (f"{name}.gz", name) for parent in (folder, folder / inside)
    ]
    return next((path for path in candidates if path.is_file()), None)


def _download(kind: str, folder: Path, options: dict[str, Any]) -> None:
    with needs("download"):
        import torchvision.datasets
    try:
        getattr(torchvision.datasets, kind)(str(folder), download=True, **options)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"download must be False without a network, got {error}; put the published files of "
            f"{kind} into {folder}"
        ) from error
