"""The official files of every data set: where they are below the data root, their MD5 sums, and how they are read."""

from __future__ import annotations

import gzip
import hashlib
import math
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from thriftylib.datasets import formats
from thriftylib.datasets.facts import DatasetInfo
from thriftylib.errors import DataError


@dataclass(frozen=True)
class Release:
    """One published form of a data set."""

    folders: tuple[str, ...]  # below the data root; a file may be in any of them, also gzip-compressed (NAME.gz)
    read: formats.Reader
    train: list[str]
    test: list[str]
    together: bool = False  # images and labels in files of their own

    def md5(self, file: str) -> str | None:
        """The MD5 sum of a file's plain contents; None: not published."""
        return MD5.get(f"{self.folders[0]}/{file}")

    def locate(self, root: Path) -> dict[str, Path | None]:
        """Where each file is; None: nowhere."""
        found = dict.fromkeys(self.train + self.test)
        with _accessible(root):
            for file in found:
                places = (root / folder / f"{file}{suffix}" for folder in self.folders for suffix in ("", ".gz"))
                found[file] = next(filter(_is_there, places), None)
        return found


@contextmanager
def _accessible(path: Path) -> Iterator[None]:
    """Any refusal of the file system as one line that names the place."""
    try:
        yield
    except (OSError, ValueError, MemoryError) as error:
        why = getattr(error, "strerror", None) or _line(error) or type(error).__name__
        raise DataError(f"{getattr(error, 'filename', None) or path}: cannot be read ({why})") from None


def _is_there(path: Path) -> bool:
    """Whether there is such a file; a folder that may not be entered is an error."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _numbered(name: str, count: int) -> list[str]:
    return [name.format(number) for number in range(1, count + 1)]


_CIFAR10, _CIFAR10_PY = ("cifar-10-batches-bin",), ("cifar-10-batches-py",)
_CIFAR100, _CIFAR100_PY = ("cifar-100-binary",), ("cifar-100-python",)
_IDX = formats.idx, *([f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")] for part in ("train", "t10k"))
_STL10 = ("stl10_binary",), formats.stl10_binary, ["train_X.bin", "train_y.bin"]
_IMAGENET = ("imagenet32", "Imagenet32_train", "Imagenet32_val", "Imagenet32_train_npz", "Imagenet32_val_npz")
_cifar100_binary = partial(formats.cifar_binary, label_bytes=2)
RELEASES: dict[str, tuple[Release, ...]] = {
    "cifar10": (
        Release(_CIFAR10, formats.cifar_binary, _numbered("data_batch_{}.bin", 5), ["test_batch.bin"]),
        Release(_CIFAR10_PY, formats.cifar_pickle, _numbered("data_batch_{}", 5), ["test_batch"]),
    ),
    "cifar100": (
        Release(_CIFAR100, _cifar100_binary, ["train.bin"], ["test.bin"]),
        Release(_CIFAR100_PY, formats.cifar_pickle, ["train"], ["test"]),
    ),
    "svhn": (Release(("svhn", "SVHN", "."), formats.svhn_mat, ["train_32x32.mat"], ["test_32x32.mat"]),),
    "mnist": (Release(("MNIST/raw", "mnist"), *_IDX, together=True),),
    "fashionmnist": (Release(("FashionMNIST/raw", "fashion-mnist"), *_IDX, together=True),),
    "stl10": (Release(*_STL10, ["test_X.bin", "test_y.bin"], together=True),),
    "stl10-split": (Release(*_STL10, [], together=True),),
    "imagenet32": (
        Release(_IMAGENET, formats.imagenet_npz, _numbered("train_data_batch_{}.npz", 10), ["val_data.npz"]),
        Release(_IMAGENET, formats.imagenet_pickle, _numbered("train_data_batch_{}", 10), ["val_data"]),
    ),
}

# As `md5sum` writes them. ImageNet 32x32 has none: counts, shapes and label ranges are checked instead.
_MD5SUMS = Path(__file__).with_name("md5sums.txt").read_text("utf-8")
MD5 = {path: md5 for md5, path in map(str.split, _MD5SUMS.splitlines())}

_HINTS = {
    "stl10": " (the training images alone serve as the data set 'stl10-split')",
    "imagenet32": " (unpacked from image-net.org's Imagenet32_train.zip and Imagenet32_val.zip, or their _npz twins)",
}
_ARCHIVES = ("*.tar.gz", "*.tgz", "*.tar", "*.zip")
# torchvision's class for each set that it downloads.
_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN", "mnist": "MNIST"}
_TORCHVISION |= {"fashionmnist": "FashionMNIST", "stl10": "STL10", "stl10-split": "STL10"}


def present(name: str, root: Path) -> bool:
    """Whether every file of one release is there; nothing is read."""
    return any(None not in release.locate(root).values() for release in RELEASES[name])


def read(info: DatasetInfo, root: Path) -> tuple[formats.Arrays, formats.Arrays]:
    """The training and the test images and labels of the first complete release below ``root``, all checked.

    A release without test files (``stl10-split``) holds all ``info.train + info.test`` images in its training part.

    Raises:
        DataError: files are missing, corrupt or truncated, or do not hold what they should.
    """
    for release in RELEASES[info.name]:
        paths = release.locate(root)
        if None not in paths.values():
            sizes = (info.train, info.test) if release.test else (info.train + info.test, 0)
            parts = zip((release.train, release.test), sizes, strict=True)
            return tuple(_read_part(release, files, paths, info, size) for files, size in parts)
    raise DataError(_missing(info.name, root))


def _missing(name: str, root: Path) -> str:
    found = [(release, release.locate(root)) for release in RELEASES[name]]
    begun = [(release, paths) for release, paths in found if any(paths.values())]
    looked = []
    for release, paths in begun or found:
        files = [file for file, path in paths.items() if path is None]
        listed = ", ".join(files) if len(files) <= 6 else f"{files[0]} ... {files[-1]} ({len(files)} files)"
        looked.append(f"{listed} in {' or '.join(release.folders)}")
    fetch = f"run `thrifty data {name} --data {root}`, or " if name in _TORCHVISION else ""
    hint = _HINTS.get(name, "") + _nearby(name, root)
    return (
        f"{name}: missing below {root}: {'; or '.join(looked)}; to get them, {fetch}put the official files there{hint}"
    )


def _nearby(name: str, root: Path) -> str:
    """Where the files seem to be instead: one folder above or below, or in an archive."""
    with suppress(DataError, OSError, ValueError):
        if root.exists() and not root.is_dir():
            return f"; {root} is no folder"
        for folder in (root.absolute().parent, *sorted(filter(Path.is_dir, root.glob("*")))[:64]):
            if present(name, folder):
                return f"; they are below {folder}: give that folder"
        wanted = {_letters(folder) for release in RELEASES[name] for folder in release.folders} - {""}
        wanted |= {_letters(name), *(word.removesuffix("raw") for word in wanted)}
        for archive in sorted(path for kind in _ARCHIVES for path in root.glob(kind)):
            stem = _letters(archive.name.split(".")[0])
            if any(word in stem or stem in word for word in wanted if stem):
                return f"; {archive} seems to hold them: unpack it there"
    return ""


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def _read_part(
    release: Release, files: list[str], paths: dict[str, Path], info: DatasetInfo, count: int
) -> formats.Arrays:
    images, labels = [np.empty((0, *info.image_shape), np.uint8)], [np.empty(0, np.int64)]
    most = count * (math.prod(info.image_shape) + 64) + 2**20  # labels and file names are shorter
    for group in [files] if release.together and files else [[file] for file in files]:
        names = " and ".join(str(paths[file]) for file in group)
        contents = [_contents(paths[file], release.md5(file), most) for file in group]
        try:
            pixels, classes = release.read(contents, info.image_shape)
            if pixels.dtype != np.uint8 or not 0 <= classes.min() <= classes.max() < len(info.classes):
                raise ValueError(f"pixels are {pixels.dtype}, labels {classes.min()} to {classes.max()}")
            images.append(np.ascontiguousarray(pixels.reshape(len(classes), *info.image_shape)))
            labels.append(classes.astype(np.int64))
        except Exception as error:  # contents without a known MD5 sum may break their reader in any way
            raise DataError(f"{names}: corrupt or truncated, not of {info.name}: {_line(error)}") from error
    if (found := sum(map(len, labels))) != count:
        raise DataError(f"{info.name}: {found} images in {', '.join(str(paths[file]) for file in files)}, not {count}")
    return np.concatenate(images), np.concatenate(labels)


def _contents(path: Path, md5: str | None, most: int) -> bytes:
    """A file's plain contents; no more than ``most`` bytes are read or unpacked before anything is checked."""
    fault, content = "", b""
    with _accessible(path), path.open("rb") as file:
        try:
            content = (gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file).read(most + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            fault = f"cannot be decompressed ({_line(error)}): "
            file.seek(0)
            content = file.read(most)
    if len(content) > most:
        raise DataError(f"{path}: corrupt or foreign: holds more than {most:,} bytes; delete it and get it again")
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if fault or (md5 is not None and found != md5):
        raise DataError(
            f"{path}: corrupt or truncated: {fault}the MD5 sum of its contents is {found}, the official one {md5}; "
            "delete it and get it again"
        )
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def download(name: str, root: Path) -> None:
    """Fetch the official files below ``root`` with torchvision, which checks the archives.

    Raises:
        DataError: the set cannot be fetched by a program, or the download failed.
    """
    if name not in _TORCHVISION:
        raise DataError(_missing(name, root))
    from torchvision import datasets

    kind = getattr(datasets, _TORCHVISION[name])
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name == "svhn":
            for split in ("train", "test"):
                kind(root / "svhn", split=split, download=True)
        else:
            kind(root, download=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{name}: the download to {root} failed: {_line(error)}") from error
