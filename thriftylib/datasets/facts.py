"""The fixed facts of every data set: shapes, sizes, class names, normalisation. No torch, no files."""

from __future__ import annotations

from dataclasses import dataclass, replace

from thriftylib.errors import SpecError


@dataclass(frozen=True)
class DatasetInfo:
    """One data set: sizes in images, ``image_shape`` (C, H, W), normalisation of values in 0..1 per channel."""

    name: str
    title: str
    image_shape: tuple[int, int, int]
    train: int
    test: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""


_CIFAR, _MNIST, _STL = (3, 32, 32), (1, 28, 28), (3, 96, 96)
_DIGITS = tuple("0123456789")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_STL10 = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm "
)
_IMAGENET = tuple(f"class {index}" for index in range(1, 1001))
_SVHN_NOTE = "train split only, no extra"
_STL10_NOTE = "our own stratified 4,000 / 1,000 split of the 5,000 labelled training images, not the official test set"
_DIGITS_NOTE = "1,797 scanned digits bundled with scikit-learn; our own stratified split"

# CIFAR and SVHN: constants of the ThriftyNet authors' code; its deviations of CIFAR-10 are the mean over images of each
# image's own (0.2470, 0.2435, 0.2616 over all pixels). The others: over all training pixels; ImageNet's as commonly
# quoted, not checked.
# fmt: off
_TABLE = (
    ("cifar10", "CIFAR-10", _CIFAR, 50_000, 10_000, _CIFAR10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ("cifar100", "CIFAR-100", _CIFAR, 50_000, 10_000, tuple(_CIFAR100.split()),
     (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ("svhn", "SVHN", _CIFAR, 73_257, 26_032, _DIGITS, (0.5,) * 3, (0.5,) * 3, _SVHN_NOTE),
    ("mnist", "MNIST", _MNIST, 60_000, 10_000, _DIGITS, (0.1307,), (0.3081,)),
    ("fashionmnist", "Fashion-MNIST", _MNIST, 60_000, 10_000, _FASHION, (0.2860,), (0.3530,)),
    ("stl10", "STL-10", _STL, 5_000, 8_000, _STL10, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    ("stl10-split", "STL-10 (our split)", _STL, 4_000, 1_000, _STL10,
     (0.4459, 0.4395, 0.4067), (0.2604, 0.2570, 0.2716), _STL10_NOTE),
    ("imagenet32", "ImageNet 32x32", _CIFAR, 1_281_167, 50_000, _IMAGENET,
     (0.4810, 0.4574, 0.4078), (0.2605, 0.2533, 0.2683)),
    ("digits", "digits (scikit-learn)", (1, 8, 8), 1_437, 360, _DIGITS, (0.3052,), (0.3760,), _DIGITS_NOTE),
)
# fmt: on
DATASETS = {row[0]: DatasetInfo(*row) for row in _TABLE}
IMAGENET = replace(DATASETS["imagenet32"], name="imagenet", title="ImageNet", image_shape=(3, 224, 224))
"""At full size nothing reads it: networks for it are counted."""


def dataset_info(name: str, *, to_count: bool = False) -> DatasetInfo:
    """The facts of a data set by its name; ``to_count``: ImageNet's too, at its full size.

    Raises:
        SpecError: no such data set; names the known ones.
    """
    known = DATASETS | ({IMAGENET.name: IMAGENET} if to_count else {})
    if name not in known:
        raise SpecError(f"unknown data set {name!r}; known: {', '.join(known)}")
    return known[name]
