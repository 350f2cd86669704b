"""EBCLE's idea as grids: entropies of data sets, accuracy against depth, and controls that isolate entropy.

The formula is reconstructed; the paper's networks and tables are unavailable to us. Bounds are by reading R1 of
:mod:`thriftylib.papers.ebcle` unless a label says otherwise. No number of these grids is the paper's.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from thriftylib.datasets.facts import dataset_info
from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.ebcle_recipes import FAST, READING, SHORT, SHORTER, SMOKE, unflipped
from thriftylib.papers.ebcle import shaped
from thriftylib.papers.families import (
    BottleneckResNetOptions,
    DenseNetOptions,
    EfficientNetOptions,
    ResNeXtOptions,
    StagedOptions,
)
from thriftylib.spec import NO_NETWORK, Data, Named, Pixels, Recipe, Run

experiment = partial(register, paper="ebcle")

DEPTHS, FEW, SHALLOW = (1, 2, 3, 4, 5, 6, 8, 12), (1, 2, 3, 5, 8), (1, 2, 3, 4, 5, 6)
MORE = (7, 10)  # for Fashion-MNIST, so that seven lie beyond its bound of 3 as they do beyond MNIST's of 1
DENSENET = DenseNetOptions()
NARROW = DenseNetOptions(growth=4, stem=8, stem_stride=2)  # of the sweeps on a CPU: ours
TINY = DenseNetOptions(growth=3, stem=6, layers=(3, 3, 3))
BOUNDS = {"digits": 2, "mnist": 1, "fashionmnist": 3, "cifar10": 5, "cifar100": 5, "stl10": 5}
"""By reading R1, from the entropies on record (a test compares them)."""
CONVENTIONS: dict[str, dict[str, Any]] = {
    "channels pooled": {},
    "one histogram of the set": {"histogram": "set"},
    "grey, neighbourhoods": {"channels": "grey", "radius": 5},
    "red channel": {"channels": "red"},  # from here on: the same as pooled, of images with one channel
    "mean of channels": {"channels": "mean"},
    "grey": {"channels": "grey"},
    "triples": {"channels": "triples"},
}
RULES = {"fixed width": "none", "fixed parameters": "parameters"}
AS_IS = "8 bits"
PIXELS = {
    AS_IS: Pixels(),
    **{f"{bits} bit{'s' * (bits > 1)}": Pixels(bits=bits) for bits in (6, 4, 3, 2, 1)},
    "stretched": Pixels(histogram="stretched"),
    "equalised": Pixels(histogram="equalised"),
    "shuffled": Pixels(shuffled=True),
}
FAMILIES: dict[str, tuple[StagedOptions, tuple[str, ...]]] = {  # the deep network, and what the bound counts
    "DenseNet-40": (DENSENET, ("per stage",)),
    "ResNet-50": (BottleneckResNetOptions(), ("per stage", "blocks")),
    "ResNeXt-56": (ResNeXtOptions(), ("per stage",)),
    "EfficientNet-B0": (EfficientNetOptions(version="B0"), ("per stage",)),
    "EfficientNet-B1": (EfficientNetOptions(version="B1"), ("per stage",)),
    "EfficientNet-B2": (EfficientNetOptions(version="B2"), ("per stage",)),
}
MATCHES = {"none": "", "parameters": ", as many parameters", "macs": ", as many MACs"}


def training(options: StagedOptions, data: str, recipe: Recipe, pixels: str = AS_IS) -> Run:
    """A network in stages trained on a data set, perhaps with changed ``pixels``; digits and clothes do not flip."""
    if data in ("mnist", "fashionmnist"):
        recipe = SHORTER if recipe == SHORT else unflipped(recipe)
    named = Named(name=options.network, options=options.model_dump(mode="json"))
    return Run(network=named, data=Data(name=data, pixels=PIXELS[pixels]), recipe=recipe)


def cut(options: StagedOptions, data: str, bound: int, **how: Any) -> StagedOptions:
    """The network cut to a bound (:func:`thriftylib.papers.ebcle.shaped`), matched for the images of a data set."""
    info = dataset_info(data)
    return shaped(options, bound, image_shape=info.image_shape, classes=len(info.classes), **how)


@experiment(title="Entropy of training sets, and how pixels change it", source="the author's script; values ours")
def entropy(preset: str) -> list[Configuration]:
    """How much entropy have the images of a data set, and how much do conventions move it?

    Measure only: no network, nothing is trained. CIFAR-10 is also measured with changed pixels. ``paper`` adds the sets
    that are larger or harder to get.
    """
    sets = {"smoke": ["digits"], "fast": ["digits", "mnist", "fashionmnist", "cifar10", "cifar100", "stl10-split"]}
    sets["paper"] = [*sets["fast"], "stl10", "svhn", "imagenet32"]
    grid = [
        (data, convention, AS_IS)
        for data in sets[preset]
        for convention in list(CONVENTIONS)[: None if dataset_info(data).image_shape[0] == 3 else 3]
    ]
    grid += [("digits" if preset == "smoke" else "cifar10", "channels pooled", pixels) for pixels in [*PIXELS][1:]]
    found = []
    for data, convention, pixels in grid:
        options = CONVENTIONS[convention] | ({"split": "both"} if data == "stl10-split" else {})  # all that has labels
        run = Run(
            network=Named(name=NO_NETWORK),
            data=Data(name=data, pixels=PIXELS[pixels]),
            recipe=None,
            method=Named(name="image-entropy", options=options),
        )
        found.append(Configuration(run, {"dataset": data, "convention": convention, "pixels": pixels}))
    return found


@experiment(title="Accuracy against depth", source="abstract, in words; no figure is known to us")
def depth(preset: str) -> list[Configuration]:
    """Up to which depth does accuracy rise, and is it the depth that the data set's entropy predicts?

    fast: narrow DenseNets and a short recipe, minutes a run on one thread of a CPU. paper: DenseNet-40 and ResNeXt-56
    with fewer and fewer units. At fixed width, and at the parameters of the deepest.
    """
    if preset == "smoke":
        grid = [("DenseNet, narrow", TINY, "digits", value, "fixed width") for value in (1, 3)]
    elif preset == "fast":
        of = "DenseNet, narrow", NARROW
        grid = [(*of, data, value, "fixed width") for value in DEPTHS for data in ("mnist", "fashionmnist", "cifar10")]
        grid += [(*of, "fashionmnist", value, "fixed width") for value in MORE]
        grid += [(*of, "cifar10", value, "fixed parameters") for value in DEPTHS[:-1]]
    else:
        grid = [
            (name, FAMILIES[name][0], data, value, rule)
            for data in ("cifar10", "mnist")
            for name, depths in (("DenseNet-40", DEPTHS), ("ResNeXt-56", SHALLOW))
            for rule in ("fixed width", "fixed parameters")
            for value in (depths if rule == "fixed width" else depths[:-1])
        ]
    recipe = {"smoke": SMOKE, "fast": SHORT, "paper": READING}[preset]
    return [
        Configuration(
            training(cut(options, data, value, match=RULES[rule]), data, recipe),
            {"network": name, "dataset": data, "depth": value, "rule": rule},
            headline=preset == "paper" and data == "cifar10",
        )
        for name, options, data, value, rule in grid
    ]


@experiment(title="Control: the depth that is needed, by entropy and task", source="ours; the paper has none")
def pixels(preset: str) -> list[Configuration]:
    """Does the depth that is needed follow the entropy of the images, when their motifs stay?

    fast: narrow DenseNets on CIFAR-10 with 1 to 8 bits a channel, stretched and equalised histograms; and at the same
    entropy with pixels shuffled, or as CIFAR-100. paper: the same with DenseNet-40.
    """
    data, depths = ("digits", (1, 2)) if preset == "smoke" else ("cifar10", FEW)
    options, recipe = {"smoke": (TINY, SMOKE), "fast": (NARROW, SHORT), "paper": (DENSENET, READING)}[preset]
    kinds = [(data, name) for name in PIXELS if name not in ("6 bits", "3 bits") or preset == "paper"]
    kinds = kinds[:2] if preset == "smoke" else [*kinds, ("cifar100", AS_IS)]
    return [
        Configuration(
            training(options.with_repeats((value,) * 3), images, recipe, name),
            {"dataset": images, "pixels": name, "depth": value},
        )
        for value in depths
        for images, name in kinds
    ]


@experiment(title="Deep against shallow and broad", source="abstract, in words; the rows are not known to us")
def shape(preset: str) -> list[Configuration]:
    """Is the network cut to the bound as accurate as the deep one, and how much time does it save?

    The deep network, and cut to the bound: as wide as before, and broadened to the deep one's parameters or MACs (one
    row where one width matches both). fast: narrow DenseNets, minutes on a CPU, and two families with a short recipe on
    a GPU. paper: four families. Networks that the bound does not cut, such as EfficientNets on CIFAR-10, are left out.
    """
    per_stage = ("per stage",)
    if preset == "smoke":
        of = [("DenseNet, narrow", (TINY, per_stage), "digits", SMOKE)]
    elif preset == "fast":
        of = [("DenseNet, narrow", (NARROW, per_stage), data, SHORT) for data in ("cifar10", "mnist", "fashionmnist")]
        of += [(name, FAMILIES[name], "cifar10", FAST) for name in ("DenseNet-40", "ResNeXt-56")]
    else:
        of = [(name, each, data, READING) for data in ("cifar10", "mnist") for name, each in FAMILIES.items()]
        of += [("DenseNet-40", FAMILIES["DenseNet-40"], data, READING) for data in ("cifar100", "stl10")]
    grid = []
    for name, (deep, counts), data, recipe in of:
        shapes = {"deep": deep}
        possible = counts if BOUNDS[data] >= len(deep.repeats) else counts[:1]  # a stage has one unit at least
        for count, (match, said) in product(possible, MATCHES.items()):
            shallow = cut(deep, data, BOUNDS[data], count=count, match=match)
            if shallow not in shapes.values():  # a bound may change nothing, and one width may match both quantities
                shapes[f"cut {'in all' if count == 'blocks' else 'per stage'}{said}"] = shallow
        for said, options in shapes.items() if len(shapes) > 1 else ():
            run = training(options, data, recipe)
            grid.append(Configuration(run, {"network": name, "dataset": data, "shape": said}))
    return grid


@experiment(title="What deep units do", source="abstract, in words; no measure is known to us")
def identity(preset: str) -> list[Configuration]:
    """Do units beyond the bound do next to nothing?

    Measure only, of trained networks of the sweep: fast the narrow DenseNets of 12 layers a block, paper DenseNet-40
    and ResNeXt-56.
    """
    found = []
    for parent in depth.grid(preset):
        deepest = {"smoke": 3, "fast": 12, "paper": SHALLOW[-1] if parent.labels["network"] == "ResNeXt-56" else 12}
        if parent.labels["depth"] == deepest[preset] and parent.labels["rule"] == "fixed width":
            method = Named(name="depth-measures", options={"images": 0 if preset != "fast" else 5000})
            run = parent.run.model_dump() | {"recipe": None, "method": method, "parent": parent.run.configuration}
            found += [Configuration(parent.run, {**parent.labels, "task": "trained"})]
            found += [Configuration(Run.model_validate(run), {**parent.labels, "task": "measured"})]
    return found
