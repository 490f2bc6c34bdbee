"""Published data sets, from small files of the same formats."""

import gzip
import hashlib
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyro_tkam.datasets import cifar10, fashion_mnist, mnist, published, svhn


def idx(array):
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_mnist(folder, pixels, labels, prefix="train", zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        content = idx(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)


def unpacked(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)


LABELS = np.array([3, 1, 4, 1, 5], np.uint8)
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
COLORS = np.random.default_rng(1).integers(0, 256, (5, 3072), dtype=np.uint8)


@pytest.mark.parametrize(
    ("load", "kind"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")], ids=["mnist", "fashion"]
)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files(tmp_path, pixels, load, kind, inside, zipped):
    folder = tmp_path / kind / "raw" if inside else tmp_path
    write_mnist(folder, pixels, LABELS, zipped=zipped)
    write_mnist(folder, pixels[::-1].copy(), LABELS, prefix="t10k", zipped=zipped)
    data = load(tmp_path, verify=False)
    torch.testing.assert_close(data.images, torch.as_tensor(pixels).float() / 255)
    assert data.images.dtype == torch.get_default_dtype()
    assert data.labels.tolist() == LABELS.tolist()
    torch.testing.assert_close(
        load(tmp_path, train=False, verify=False).images, data.images.flip(0)
    )


def write_svhn(folder, name="test_32x32.mat"):
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(folder / name, {"X": images, "y": np.array([[10], [1], [9], [2]], np.uint8)})
    return images


def test_svhn_files(tmp_path):
    images = write_svhn(tmp_path)
    data = svhn(tmp_path, train=False, verify=False)
    assert data.images.shape == (4, 3, 32, 32)
    assert float(data.images[2, 1, 7, 11]) == pytest.approx(images[7, 11, 1, 2] / 255)
    assert data.labels.tolist() == [0, 1, 9, 2]


def write_cifar(folder, names, data=COLORS, labels=(0, 9, 3, 3, 1)):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = {
            "batch_label": "x",
            "labels": list(labels),
            "data": data,
            "filenames": ["a.png"] * len(labels),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


def test_cifar_files(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py", BATCHES)
    data = cifar10(tmp_path, verify=False)
    assert data.images.shape == (25, 3, 32, 32)
    torch.testing.assert_close(
        data.images[6], torch.as_tensor(COLORS[1].reshape(3, 32, 32)).float() / 255
    )
    assert data.labels[:5].tolist() == [0, 9, 3, 3, 1]


# What Python 2 and NumPy of 2009 wrote: byte strings, and arrays under the old module's name.
OLD_ARRAY = (
    b"\x80\x02}q\x00(U\x06labelsq\x01]q\x02K\x07aU\x04dataq\x03"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\n"
    b"q\x05K\x00\x85U\x01b\x87Rq\x06(K\x01K\x01M\x00\x0c\x86"
    b"cnumpy\ndtype\nq\x07U\x02u1K\x00K\x01\x87Rq\x08(K\x03U\x01|NNNJ"
    b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00"
    + bytes(range(256)) * 12
    + b"tbu."
)


def test_a_batch_as_python_2_wrote_it(tmp_path):
    (tmp_path / "test_batch").write_bytes(OLD_ARRAY)
    data = cifar10(tmp_path, train=False, verify=False)
    assert data.labels.tolist() == [7]
    torch.testing.assert_close(data.images.flatten()[:256], torch.arange(256) / 255)


class Evil:
    def __reduce__(self):
        return (print, ("this must not be printed",))


class EvilArray:
    def __reduce__(self):
        return (np.fromfile, ("/etc/passwd", np.uint8))


@pytest.mark.parametrize(
    "evil", [Evil(), EvilArray(), torch.nn.Linear], ids=["print", "numpy function", "class"]
)
def test_a_pickle_cannot_run_code(tmp_path, capsys, evil):
    write_cifar(tmp_path, ["test_batch"], data=evil)
    with pytest.raises(ValueError, match=r"must hold batches of CIFAR-10, got .*: it names "):
        cifar10(tmp_path, train=False, verify=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("load", "table", "write", "first", "num"),
    [
        (
            mnist,
            "_MNIST",
            lambda folder, pixels: write_mnist(folder, pixels, LABELS),
            "train-images.*gz",
            5,
        ),
        (
            fashion_mnist,
            "_FASHION",
            lambda folder, pixels: write_mnist(folder, pixels, LABELS),
            "train-images.*gz",
            5,
        ),
        (
            svhn,
            "_SVHN",
            lambda folder, _: write_svhn(folder, "train_32x32.mat"),
            "train_32x32.mat",
            4,
        ),
        (cifar10, "_CIFAR10", lambda folder, _: write_cifar(folder, BATCHES), "data_batch_1", 25),
    ],
    ids=["mnist", "fashion", "svhn", "cifar10"],
)
def test_checksums_are_compared(tmp_path, pixels, monkeypatch, load, table, write, first, num):
    write(tmp_path, pixels)
    published_sum = next(iter(getattr(published, table).values()))
    with pytest.raises(
        ValueError, match=rf"got .*{first} with MD5 sum \w{{32}} instead of {published_sum}"
    ):
        load(tmp_path)
    sums = {
        path.name.removesuffix(".gz"): hashlib.md5(unpacked(path)).hexdigest()
        for path in sorted(tmp_path.iterdir())
    }
    monkeypatch.setattr(published, table, sums)
    assert len(load(tmp_path).images) == num
    last = sorted(tmp_path.iterdir())[-1]  # every file is compared, not the first alone
    monkeypatch.setitem(sums, last.name.removesuffix(".gz"), "0" * 32)
    with pytest.raises(
        ValueError, match=rf"got .*{last.name} with MD5 sum \w{{32}} instead of 0{{32}}"
    ):
        load(tmp_path)


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_content_counts_however_it_was_packed(tmp_path, pixels, monkeypatch, level, zipped):
    write_mnist(tmp_path, pixels, LABELS, zipped=False)
    sums = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in sorted(tmp_path.iterdir())}
    monkeypatch.setattr(published, "_FASHION", sums)
    changed = tmp_path / "train-images-idx3-ubyte"
    labels = tmp_path / "train-labels-idx1-ubyte"
    content = bytearray(changed.read_bytes())
    for flip in (0, 1):  # first the right content, then one wrong bit in the last pixel
        content[-1] ^= flip
        for path in [p for p in tmp_path.iterdir() if zipped]:
            path.unlink()
        for name, raw in ((changed.name, bytes(content)), (labels.name, idx(LABELS))):
            path = tmp_path / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(raw, level) if zipped else raw)
        if not flip:
            assert len(fashion_mnist(tmp_path).images) == 5
    with pytest.raises(ValueError, match=rf"got .*{changed.name}.* with MD5 sum"):
        fashion_mnist(tmp_path)


def test_no_two_published_files_share_a_checksum():
    tables = [published._MNIST, published._FASHION, published._SVHN, published._CIFAR10]
    sums = [each for table in tables for each in table.values()]
    assert [len(table) for table in tables] == [4, 4, 2, 6]
    assert len(set(sums)) == len(sums)
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in sums)


def test_missing_files_are_named_offline(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"folder must hold train-images.*, train-labels.* of MNIST, got none in .*raw",
    ):
        mnist(tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=r"folder must hold train_32x32.mat of SVHN, .*put the published files there",
    ):
        svhn(tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=r"folder must hold data_batch_1, .*data_batch_5 of CIFAR10, got none in .* and "
        r".*cifar-10-batches-py; put the published",
    ):
        cifar10(tmp_path)
    write_cifar(tmp_path, BATCHES[:3] + BATCHES[4:])
    with pytest.raises(FileNotFoundError, match="must hold data_batch_4 of CIFAR10, got"):
        cifar10(tmp_path, verify=False)


def torchvision_that(fetch, kind="MNIST"):
    """
    Return the two modules of a stand-in for torchvision whose data set does something with its
    folder.
    """
    package, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    package.datasets = datasets
    setattr(datasets, kind, fetch)
    return {"torchvision": package, "torchvision.datasets": datasets}


def test_torchvision_fetches_what_is_missing(tmp_path, pixels, monkeypatch):
    asked = []

    def fetch(root, *, download, train):
        asked.append((root, download, train))
        write_mnist(tmp_path / "MNIST" / "raw", pixels, LABELS)

    for name, module in torchvision_that(fetch).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert len(mnist(tmp_path, verify=False, download=True).images) == 5
    assert len(mnist(tmp_path, verify=False, download=True).images) == 5
    assert asked == [(str(tmp_path), True, True)]


@pytest.mark.parametrize(
    ("load", "kind", "write", "options"),
    [
        (svhn, "SVHN", lambda folder: write_svhn(folder), {"split": "test"}),
        (
            cifar10,
            "CIFAR10",
            lambda folder: write_cifar(folder / "cifar-10-batches-py", ["test_batch"]),
            {"train": False},
        ),
    ],
    ids=["svhn", "cifar10"],
)
def test_torchvision_fetches_color_images(tmp_path, monkeypatch, load, kind, write, options):
    """It is asked once, for the split that is missing, in the words of each of its classes."""
    asked = []

    def fetch(root, **given):
        asked.append((root, given))
        write(tmp_path)

    for name, module in torchvision_that(fetch, kind).items():
        monkeypatch.setitem(sys.modules, name, module)
    first = load(tmp_path, train=False, verify=False, download=True)
    assert first.images.shape[1:] == (3, 32, 32)
    assert torch.equal(
        load(tmp_path, train=False, verify=False, download=True).images, first.images
    )
    assert asked == [(str(tmp_path), {"download": True, **options})]


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def fetch(root, **options):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    for name, module in torchvision_that(fetch).items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(
        OSError, match=r"download must be False.*, got Error .*; put the published files of MNIST"
    ):
        mnist(tmp_path, download=True)


def test_without_torchvision_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-tkam\[download\]'"):
        mnist(tmp_path, download=True)


def test_damaged_files_are_named(tmp_path, pixels):
    name = "train-images-idx3-ubyte"
    whole = idx(pixels)
    write_mnist(tmp_path, pixels, LABELS, zipped=False)
    for content, message in (
        (whole[:-1], "must hold complete files, got .* with 119 bytes of data"),
        (whole + b"x", "with 121 bytes of data"),
        (whole[:9], "must hold complete files, got .* with 9 of 16 bytes"),
        (b"\x00\x00\x0d" + whole[3:], "must hold idx files of bytes, got"),
        (b"", "must hold idx files"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            mnist(tmp_path)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(ValueError, match="folder must hold gzip files, got"):
        mnist(tmp_path, verify=False)
    (tmp_path / "train_32x32.mat").write_bytes(b"x" * 200)
    with pytest.raises(ValueError, match="folder must hold a MATLAB file with X and y, got"):
        svhn(tmp_path, verify=False)
    for content in (
        b"",
        b"x",
        pickle.dumps([1]),
        pickle.dumps({"labels": [1], "data": np.zeros((1, 3))}),
    ):
        (tmp_path / "test_batch").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"must hold (batches of CIFAR-10, got .*test_batch|bytes of .*, got)"
        ):
            cifar10(tmp_path, train=False, verify=False)


def test_images_and_labels_must_belong_together(tmp_path, pixels):
    write_mnist(tmp_path, pixels, LABELS[:4], zipped=False)
    with pytest.raises(ValueError, match=r"got \(5, 4, 6\) and \(4,\)"):
        mnist(tmp_path, verify=False)
