"""DACNN's plot, its comparison with pruning, and what its code hints at, as grids of runs.

The authors' recipe could not be read: every ``paper`` grid here is trained by ``dacnn-reading``, our READING of it, the
same for every network, and no page may call it the paper's. Names are the plot's: DACNN14 is the VGG layout, DACNN18,
24 and 34 the ResNet layout; (REG) has regulators, (MIX) partly shared kernels. DACNN14 and DACNN14(MIX) are as their
files were released. Batch norms start with weights drawn between 0 and 1, the default of PyTorch 1.1, which was current
when the files were released; no file names a version (READING). The small networks under our own recipes start them
with ones, since their records came first. The 8x8 digits of the smoke grids can be halved three times, so there the
last stages do not pool, and a tiny ResNet stands in for the baselines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thriftylib.experiments import dacnn_recipes as recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.spec import Data, Named, Recipe, Run

if TYPE_CHECKING:
    import pandas

PAPER = "dacnn"
REG = {"regulators": "depth"}  # READING: one per layer, the number that the plotted parameters of the plain nets need
MIX = {"sharing": "mix"}
START = {"norm_init": "uniform"}  # READING: PyTorch's default on 20 June 2019, the day of the release
PLAIN14 = {"depth": 14, "order": "conv-relu-bn"}  # as released; the other files have conv-BN-ReLU
MIX_REG = {**MIX, "regulators": "per-block"}
SMALL_LAYERS = (3, 5, 7, 9, 11)
NORMS = ("free", "affine", "shared")
KERNELS: dict[str, dict[str, Any]] = {  # of the small networks
    "shared with norm": {"shared": True, "norm": "shared"},
    "shared": {"shared": True, "norm": "free"},
    "unshared": {"shared": False, "norm": "free"},
}

# The plot's points: family and network with its options.
POINTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "DACNN14": ("plain", "dacnn", PLAIN14),
    "DACNN18": ("plain", "dacnn", {"depth": 18}),
    "DACNN34": ("plain", "dacnn", {"depth": 34}),
    "DACNN18(REG)": ("REG", "dacnn", {"depth": 18, **REG}),
    "DACNN24(REG)": ("REG", "dacnn", {"depth": 24, **REG}),
    "DACNN34(REG)": ("REG", "dacnn", {"depth": 34, **REG}),
    "DACNN14(MIX)": ("MIX", "dacnn", {"depth": 14, **MIX, "bare_fifth": True}),  # as released
    "DACNN18(MIX)": ("MIX", "dacnn", {"depth": 18, **MIX}),
    "DACNN34(MIX)": ("MIX", "dacnn", {"depth": 34, **MIX}),
    "DACNN18(MIX,REG)": ("MIX,REG", "dacnn", {"depth": 18, **MIX_REG}),
    "DACNN34(MIX,REG)": ("MIX,REG", "dacnn", {"depth": 34, **MIX_REG}),
    "VGG": ("baseline", "vgg16-bn", {}),
    "ResNet18": ("baseline", "resnet18", {}),
    "ResNet34": ("baseline", "resnet34", {}),
}
POINTS = {name: (family, network, {**options, **START}) for name, (family, network, options) in POINTS.items()}
HEADLINES = ("DACNN14", "DACNN18", "DACNN18(REG)", "DACNN14(MIX)", "DACNN18(MIX)")
STAND_IN = ("baseline", "tiny-resnet", {"width": 4, "blocks": 1})  # for a baseline on the 8x8 digits


def configuration(
    network: str, options: dict[str, Any], data: str, recipe: Recipe, *, headline: bool = False, **labels: str | int
) -> Configuration:
    """One configuration from seed 0; whatever else is given is a label."""
    return Configuration(
        Run(network=Named(name=network, options=options), data=Data(name=data), recipe=recipe), labels, headline
    )


def tiny(options: dict[str, Any], **labels: str | int) -> Configuration:
    """A smoke configuration on digits: 4 channels, or 2 to 4 where they grow, and 3 poolings."""
    stages = 5 if options["depth"] == 14 else 4
    width = [2, 2, 3, 4, 4][:stages] if options.get("sharing") == "mix" else 4
    return configuration("dacnn", {**options, "width": width, "pools": 3}, "digits", recipes.SMOKE, **labels)


def point(name: str, data: str, recipe: Recipe) -> Configuration:
    """A point of the plot on ``data``, with the number of parameters that the plot seems to count."""
    family, network, options = POINTS[name]
    headline = data == "cifar100" and name in HEADLINES  # the plot's own data set comes first
    return _placed(configuration(network, options, data, recipe, headline=headline, net=name, family=family))


def tiny_points(*names: str) -> list[Configuration]:
    """Points of the plot on digits, before them the stand-in for a baseline."""
    family, network, options = STAND_IN
    baseline = configuration(network, options, "digits", recipes.SMOKE, net="tiny ResNet", family=family)
    nets = [tiny(POINTS[name][2], net=name, family=POINTS[name][0]) for name in names]
    return [_placed(each) for each in (baseline, *nets)]


def _placed(plain: Configuration) -> Configuration:
    return Configuration(
        plain.run, {**plain.labels, "kernel_parameters": plain.run.cost.kernel_parameters}, plain.headline
    )


@register(
    name="dacnn-scatter",
    paper=PAPER,
    title="Test error against parameters, CIFAR-100",
    source="figure: test error against parameters (result_1.png of the authors' repository)",
)
def scatter(preset: str) -> list[Configuration]:
    """What accuracy does one kernel for all layers cost, and what do regulators and partial sharing regain?

    paper: the plot's fourteen points, recipe dacnn-reading (READING, 350 epochs), one for all networks. The plot does
    not name its data set: CIFAR-100 is a READING. Expected by the plot: plain sharing gains nothing from depth beyond
    18 (38.64 against 38.87 % error), with regulators depth helps (35.39, 34.86, 33.88), DACNN14(MIX) about equals VGG
    (30.54 against 30.20), DACNN34(MIX,REG) beats ResNet18 (26.66 against 27.31). Its baselines are about 3 points worse
    than public results of a stronger recipe, so the order and the gaps are to be looked for, not the errors themselves.
    ``kernel_parameters`` leaves out batch norms and biases of convolutions, as the plotted parameters do.
    """
    if preset == "smoke":
        return tiny_points("DACNN14", "DACNN18", "DACNN18(REG)", "DACNN14(MIX)", "DACNN18(MIX,REG)")
    recipe = recipes.READING if preset == "paper" else recipes.FAST
    return [point(name, "cifar100", recipe) for name in POINTS]


@register(
    name="dacnn-pruning",
    paper=PAPER,
    title="Comparison with pruning, CIFAR-10",
    source="table: comparison with pruning (result_2.png of the authors' repository)",
)
def pruning(preset: str) -> list[Configuration]:
    """How many points do DACNN18 and DACNN18(MIX,REG) lose against ResNet18, and how many parameters do they save?

    paper: the three networks on CIFAR-10, recipe dacnn-reading (READING). Base network and data set are not on the
    table: ResNet18 and CIFAR-10 are READINGs. Expected: a loss of 0.79 points with 49.6 % fewer parameters, and of 10.2
    points with 98.5 % fewer. No absolute accuracy is known. The rivals' rows are quoted, not rerun.
    """
    if preset == "smoke":
        return tiny_points("DACNN18(MIX,REG)", "DACNN18")
    recipe = recipes.READING if preset == "paper" else recipes.FAST
    return [point(name, "cifar10", recipe) for name in ("ResNet18", "DACNN18(MIX,REG)", "DACNN18")]


@register(
    name="dacnn-svhn",
    paper=PAPER,
    title="SVHN",
    source="abstract: tested on CIFAR-10, CIFAR-100 and SVHN; no readable number",
)
def svhn(preset: str) -> list[Configuration]:
    """Does the order of the networks on CIFAR-100 hold for house numbers?

    paper: recipe dacnn-reading without flips, train split only (READINGs). Ours alone: no number of the paper could be
    read for SVHN.
    """
    if preset == "smoke":
        return tiny_points("DACNN14", "DACNN18(REG)", "DACNN18(MIX,REG)")
    recipe = recipes.READING_SVHN if preset == "paper" else recipes.FAST_SVHN
    names = ("DACNN14", "DACNN18", "DACNN18(REG)", "DACNN14(MIX)", "DACNN18(MIX,REG)", "VGG", "ResNet18")
    return [point(name, "svhn", recipe) for name in names]


@register(
    name="dacnn-depth-sweep",
    paper=PAPER,
    title="Depth of small networks, shared against unshared, CIFAR-100",
    source="authors' code, small_nets.py; no published numbers",
)
def depth_sweep(preset: str) -> list[Configuration]:
    """How much does depth gain where one kernel is used again, against kernels of their own at the same width?

    paper: 3 to 11 convolutions of 128 channels, recipe dacnn-reading (READING). In the authors' code the shared unit
    includes its batch norm ("shared with norm"); beside it stands ours, the kernel alone shared ("shared"), so that
    what the kernel costs is not confused with what the batch norm costs. fast: the same nets with our recipe for a GPU,
    and nets of 32 channels with our recipe dacnn-cpu of 4 epochs: ours in width and length, at a size that a CPU
    finishes.
    """
    if preset == "smoke":
        return [_small(layers, kernels, 4, "digits", recipes.SMOKE) for kernels in KERNELS for layers in (3, 7, 11)]
    sizes = [(128, recipes.READING)] if preset == "paper" else [(128, recipes.FAST), (32, recipes.CPU)]
    return [
        _small(layers, kernels, width, "cifar100", recipe)
        for width, recipe in sizes
        for kernels in KERNELS
        for layers in SMALL_LAYERS
    ]


def _small(layers: int, kernels: str, width: int, data: str, recipe: Recipe) -> Configuration:
    options: dict[str, Any] = {"layers": layers, "width": width, **KERNELS[kernels]}
    if recipe == recipes.READING:
        options |= START
    if data == "digits" and layers > 3:
        options["pools"] = 3
    return configuration("dacnn-small", options, data, recipe, layers=layers, kernels=kernels, width=width)


@register(
    name="dacnn-norm",
    paper=PAPER,
    title="Batch norm: one per use, or shared with the kernel, CIFAR-100",
    source="authors' code, header of resnet_Fix_BN.py; no published numbers",
)
def norm(preset: str) -> list[Configuration]:
    """Must each use of the shared kernel have a batch norm of its own?

    paper: plain DACNN14 (as released), 18 and 34 with free batch norms (the authors'), one affine map per kernel with
    statistics of each use, and one batch norm per kernel; recipe dacnn-reading (READING).
    """
    if preset == "smoke":
        return [tiny(_normed(depth, norm), depth=depth, norm=norm) for depth in (14, 18) for norm in NORMS]
    recipe = recipes.READING if preset == "paper" else recipes.FAST
    return [
        configuration("dacnn", _normed(depth, norm), "cifar100", recipe, depth=depth, norm=norm)
        for depth in (14, 18, 34)
        for norm in NORMS
    ]


def _normed(depth: int, norm: str) -> dict[str, Any]:
    return {**POINTS[f"DACNN{depth}"][2], "norm": norm}


@register(
    name="dacnn-regulators",
    paper=PAPER,
    title="Regulators against depth, CIFAR-100",
    source="figures of the authors' repository (result_1.png, sharing_techniques.png); released code for the rotation",
)
def regulators(preset: str) -> list[Configuration]:
    """Do regulators make depth useful again, how many are needed, and does rotating the channels do as well for free?

    paper: recipe dacnn-reading (READING). How many regulators a plain network of the paper has, and where they lie, is
    a READING of its parameters: one per layer ("depth"). Beside it stand none, one or two per block and one per
    convolution, and the rotation of the channels that the released code performs in their place. Expected by the plot:
    without regulators nothing from depth 18 to 34, with them 1.5 points.
    """
    if preset == "smoke":
        grid = [("plain", depth, kind) for depth in (18, 24) for kind in ("none", "depth", "rotation")]
        return [tiny(_regulated(*each), **_labels(*each)) for each in [*grid, ("mix", 18, "per-block")]]
    recipe = recipes.READING if preset == "paper" else recipes.FAST
    numbers = ("per-block", "two-per-block", "per-layer") if preset == "paper" else ()
    grid = [("plain", depth, kind) for depth in (18, 24, 34) for kind in ("none", *numbers, "depth", "rotation")]
    grid += [("mix", depth, kind) for depth in (18, 34) for kind in ("none", "per-block", "rotation")]
    return [configuration("dacnn", _regulated(*each), "cifar100", recipe, **_labels(*each)) for each in grid]


def _regulated(sharing: str, depth: int, kind: str) -> dict[str, Any]:
    extra = {"swap": True} if kind == "rotation" else {"regulators": kind}
    return {"depth": depth, "sharing": sharing, **extra, **START}


def _labels(sharing: str, depth: int, kind: str) -> dict[str, str | int]:
    return {"sharing": sharing, "depth": depth, "regulators": kind}


def depth_costs(dataset: str = "cifar100") -> pandas.DataFrame:
    """What plain networks of 128 channels cost in closed form, their kernel shared and not: no training.

    The small networks of 3 to 11 convolutions, then DACNN14 to DACNN34, each use with a batch norm of its own.

    Returns:
        Columns source (counted), net, kernels (shared, unshared), uses (convolutions of one shape, the stem left out),
        kernel, body and parameters (numbers in those convolutions, in all but the linear layer, in all), weight_bytes
        and activation_bytes (of one image).
    """
    import pandas

    nets: dict[str, tuple[str, dict[str, Any]]] = {
        f"{layers} convolutions": ("dacnn-small", {"layers": layers, "norm": "free"}) for layers in SMALL_LAYERS
    }
    nets |= {f"DACNN{depth}": ("dacnn", {"depth": depth}) for depth in (14, 18, 24, 34)}
    rows = []
    for name, (network, options) in nets.items():
        costs = {}
        for kernels, shared in (("shared", True), ("unshared", False)):
            run = configuration(network, {**options, "shared": shared}, dataset, recipes.READING).run
            costs[kernels] = run.cost
        rows += [
            {
                "source": "counted",
                "net": name,
                "kernels": kernels,
                "uses": len(costs["unshared"].part("trunk conv").terms),
                "kernel": cost.part("trunk conv").parameters,
                "body": cost.parameters - cost.part("head").parameters,
                "parameters": cost.parameters,
                "weight_bytes": cost.weight_bytes(),
                "activation_bytes": cost.activation_bytes(),
            }
            for kernels, cost in costs.items()
        ]
    return pandas.DataFrame(rows)
