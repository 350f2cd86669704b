"""Wavelet edges as grids: what edges gain over the image, by method, way of feeding, data set and training-set size.

The paper is known by its abstract alone: networks, data sets, recipe and all options are ours. So ``paper`` and
``fast`` have the same recipe, of a CPU's size; ``fast`` is the part of the grid that CIFAR-10 and SmallNet are.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.recipes import for_digits, like
from thriftylib.schedules import OneCycle
from thriftylib.spec import Data, Named, Recipe, Run

if TYPE_CHECKING:
    import numpy
    import pandas

experiment = partial(register, paper="wavelet_edges", source="abstract, in words; no table or figure is known to us")

RECIPE = Recipe(  # ours: no augmentation, so that digits, clothes and photographs are trained alike
    name="wavelet-edges",
    epochs=10,
    batch_size=100,
    learning_rate=0.02,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule=OneCycle(warmup=0.2),
)
QUICK = like(RECIPE, "wavelet-edges-quick", epochs=3)  # CIFAR-10 quick takes six times as long an epoch
SMOKE = for_digits(RECIPE, "wavelet-edges-smoke", epochs=2)
SMALL = {  # by percent of the training images: fewer images, more epochs, smaller batches
    percent: like(RECIPE, f"wavelet-edges-{percent}-percent", epochs=epochs, batch_size=50)
    for percent, epochs in ((1, 40), (5, 30), (20, 20))
}

SMALLNET, CIFAR_QUICK = "SmallNet", "CIFAR-10 quick"
NETWORKS = {SMALLNET: "smallnet", CIFAR_QUICK: "cifar10-quick"}
DATA = ("cifar10", "fashionmnist", "mnist")
METHODS = {"method 1": "details", "method 2": "maxima"}
CONTROLS = {"Sobel": "sobel", "random filters": "random"}
COMBINE = ("replace", "add", "concatenate")
PLAIN, TWICE = ("plain", "alone"), ("image", "concatenate")  # twice: the parameters of concatenated edges
FED = (PLAIN, TWICE, *product((*METHODS, *CONTROLS), COMBINE))
FED_SMALL = (PLAIN, *product(METHODS, ("replace", "concatenate")), ("Sobel", "concatenate"))
PADDED = {"padding": 1}  # of SmallNet for images smaller than 28x28
READINGS: dict[str, dict[str, Any]] = {
    "1a, Haar, J = 1": {},
    "1a, Haar, J = 2": {"level": 2},
    "1a, Haar, J = 3": {"level": 3},
    "1a, db2, J = 1": {"wavelet": "db2"},
    "1a, db2, J = 2": {"wavelet": "db2", "level": 2},
    "1a, Haar, J = 1, luma": {"per_channel": False},
    "1b, Haar, J = 2": {"level": 2, "inverse": 1, "inner_options": PADDED},  # SmallNet's parameters, at 16x16
    "2, spline, J = 1": {"feature": "maxima"},
    "2, spline, J = 2": {"feature": "maxima", "level": 2},
    "2, Haar, J = 1": {"feature": "maxima", "wavelet": "haar"},
    "2, spline, J = 1, T = 0.5": {"feature": "maxima", "threshold": 0.5},
    "2, spline, J = 1, mask": {"feature": "maxima", "mask": True},
    "2, spline, J = 1, luma": {"feature": "maxima", "per_channel": False},
}


def network(name: str, feed: tuple[str, str], inner: dict[str, Any] | None = None, **options: Any) -> Named:
    """A network of ``NETWORKS``, alone or behind the layer that a feed, such as ("method 1", "add"), names."""
    if feed == PLAIN:
        return Named(name=NETWORKS[name], options=inner or {})
    feature = {**METHODS, **CONTROLS}.get(feed[0], feed[0])
    layer = {"inner": NETWORKS[name], "inner_options": inner or {}, "feature": feature, "combine": feed[1]}
    return Named(name="wavelet-edges", options=layer | options)


def feeds(image: numpy.ndarray) -> pandas.DataFrame:
    """What is made of a grey image (H, W) of numbers: a row for each pixel, a column for each feed, and its place."""
    import pandas
    import torch

    from thriftylib.papers.wavelet_edges import WaveletEdgesOptions
    from thriftylib.papers.wavelet_edges_layer import Edges

    shown = {"the image": {"feature": "image"}}
    shown |= {f"method 1 ({name[4:]})": READINGS[name] for name in [*READINGS][:2]}
    shown |= {"method 2 (J = 1)": {"feature": "maxima"}}
    shown |= {name: {"feature": feature} for name, feature in CONTROLS.items()}
    x = torch.tensor(image, dtype=torch.float64)[None, None]  # so that three decimals are the same on every machine
    layers = {name: Edges(WaveletEdgesOptions(**options), (1, *image.shape)) for name, options in shown.items()}
    made = {name: layer.double().edges(x).flatten().numpy() for name, layer in layers.items()}
    places = product(*map(range, image.shape))
    return pandas.DataFrame(places, columns=["y", "x"]).assign(**made)


def _labels(feed: tuple[str, str]) -> dict[str, str]:
    return {"feature": feed[0], "combine": feed[1]}


@experiment(title="Accuracy with edges and without")
def accuracy(preset: str) -> list[Configuration]:
    """Is a network that is fed edges, found by either method, more accurate than the same network fed the image?

    Edges replace the image, are added to it or concatenated. Controls: the image twice, which has the parameters of
    concatenated edges; the modulus of Sobel's gradient; the same with random filters.
    """
    if preset == "smoke":
        return [
            Configuration(
                Run(network=network(SMALLNET, feed, PADDED), data=Data(name="digits"), recipe=SMOKE),
                {"network": SMALLNET, "dataset": "digits", **_labels(feed)},
            )
            for feed in (PLAIN, TWICE, ("method 1", "replace"), ("method 2", "replace"), ("Sobel", "add"))
        ]
    pairs = [(SMALLNET, "cifar10")]
    pairs += [] if preset == "fast" else [*((SMALLNET, data) for data in DATA[1:]), (CIFAR_QUICK, "cifar10")]
    return [
        Configuration(
            Run(network=network(name, feed), data=Data(name=data), recipe=QUICK if name == CIFAR_QUICK else RECIPE),
            {"network": name, "dataset": data, **_labels(feed)},
            headline=feed == PLAIN or (feed[0] in METHODS and feed[1] == "replace"),
        )
        for feed in FED
        for name, data in pairs
    ]


@experiment(title="Accuracy with few training images")
def small(preset: str) -> list[Configuration]:
    """Do edges help more, the fewer the training images?

    1, 5 and 20 % of them, as many of each class, the same for all seeds; and all, which are runs of
    wavelet-edges-accuracy. Recipes differ by size in epochs and batch, and not between what is compared.
    """
    if preset == "smoke":
        return [
            Configuration(
                Run(
                    network=network(SMALLNET, feed, PADDED),
                    data=Data(name="digits", train_images=images),
                    recipe=SMOKE,
                ),
                {"dataset": "digits", "percent": percent, **_labels(feed)},
            )
            for percent, images in ((20, 200), (100, None))
            for feed in (PLAIN, ("method 1", "replace"))
        ]
    return [
        Configuration(
            Run(
                network=network(SMALLNET, feed),
                data=Data(name=data, train_images=percent and Data(name=data).info.train * percent // 100),
                recipe=SMALL[percent] if percent else RECIPE,
            ),
            {"dataset": data, "percent": percent or 100, **_labels(feed)},
        )
        for percent in (*SMALL, None)
        for data in (DATA[:1] if preset == "fast" else DATA)
        for feed in FED_SMALL
    ]


@experiment(title="Readings of the abstract")
def readings(preset: str) -> list[Configuration]:
    """How much does it matter how the abstract is read: wavelet, levels, steps back, threshold, colour?

    CIFAR-10 and SmallNet, edges in place of the image, and the image itself.
    """
    size, data, recipe = (PADDED, "digits", SMOKE) if preset == "smoke" else ({}, "cifar10", RECIPE)
    chosen = {name: READINGS[name] for name in ([*READINGS][:2] if preset == "smoke" else READINGS)}
    found = {"image": network(SMALLNET, PLAIN, size)}
    for name, options in chosen.items():
        options = {"inner_options": size, **options}
        found[name] = Named(name="wavelet-edges", options={"inner": NETWORKS[SMALLNET], **options})
    return [
        Configuration(Run(network=fed, data=Data(name=data), recipe=recipe), {"reading": name})
        for name, fed in found.items()
    ]
