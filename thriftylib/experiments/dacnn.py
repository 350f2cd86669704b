"""DACNN's plot, its comparison with pruning, and what its code hints at, as grids of runs.

The authors' recipe could not be read: every ``paper`` grid here is trained by ``dacnn-reading``, which we inferred, the
same for every network, and no page may call it the paper's. Names are the plot's: DACNN14 is the VGG layout, DACNN18,
24 and 34 the ResNet layout; (REG) has regulators, (MIX) partly shared kernels. DACNN14 and DACNN14(MIX) are as their
files were released. Batch norms have initial weights drawn between 0 and 1, the default of PyTorch 1.1, current on 20
June 2019, when the files were released; no file names a version (inferred). The small networks under our own recipes
have ones, since their records came first. The 8x8 digits of the smoke grids can be halved three times, so there the
last stages do not pool, and a tiny ResNet stands in for the baselines.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from thriftylib.experiments import dacnn_recipes as recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.spec import Data, Named, Recipe, Run

if TYPE_CHECKING:
    import pandas

experiment = partial(register, paper="dacnn")
SMALL_LAYERS = (3, 5, 7, 9, 11)
KERNELS: dict[str, dict[str, Any]] = {  # of the small networks
    "shared with norm": {"shared": True, "norm": "shared"},
    "shared": {"shared": True, "norm": "free"},
    "unshared": {"shared": False, "norm": "free"},
}
MIX = {"sharing": "mix"}
POINTS: dict[str, tuple[str, str, dict[str, Any]]] = {  # the plot's: family and network with its options
    "DACNN14": ("plain", "dacnn", {"depth": 14, "order": "conv-relu-bn"}),  # as released; the others: conv-BN-ReLU
    "DACNN18": ("plain", "dacnn", {"depth": 18}),
    "DACNN34": ("plain", "dacnn", {"depth": 34}),
    # Inferred: a regulator per layer, the number that the plotted parameters of the plain nets need.
    "DACNN18(REG)": ("REG", "dacnn", {"depth": 18, "regulators": "depth"}),
    "DACNN24(REG)": ("REG", "dacnn", {"depth": 24, "regulators": "depth"}),
    "DACNN34(REG)": ("REG", "dacnn", {"depth": 34, "regulators": "depth"}),
    "DACNN14(MIX)": ("MIX", "dacnn", {"depth": 14, **MIX, "bare_fifth": True}),  # as released
    "DACNN18(MIX)": ("MIX", "dacnn", {"depth": 18, **MIX}),
    "DACNN34(MIX)": ("MIX", "dacnn", {"depth": 34, **MIX}),
    "DACNN18(MIX,REG)": ("MIX,REG", "dacnn", {"depth": 18, **MIX, "regulators": "per-block"}),
    "DACNN34(MIX,REG)": ("MIX,REG", "dacnn", {"depth": 34, **MIX, "regulators": "per-block"}),
    "VGG": ("baseline", "vgg16-bn", {}),
    "ResNet18": ("baseline", "resnet18", {}),
    "ResNet34": ("baseline", "resnet34", {}),
}
STAND_IN = {"tiny ResNet": ("baseline", "tiny-resnet", {"width": 4, "blocks": 1})}  # for a baseline on the 8x8 digits
HEADLINES = ("DACNN14", "DACNN18", "DACNN18(REG)", "DACNN14(MIX)", "DACNN18(MIX)")  # on the plot's own data set


def configuration(
    preset: str,
    options: dict[str, Any],
    data: str = "cifar100",
    network: str = "dacnn",
    recipe: Recipe | None = None,
    *,
    headline: bool = False,
    **labels: str | int,
) -> Configuration:
    """A run from seed 0 with the preset's recipe, unless ``recipe`` is given; in ``smoke`` 2 to 4 channels wide."""
    if network not in ("tiny-resnet", "dacnn-small") or preset == "paper":
        options = {**options, "norm_init": "uniform"}
    if preset == "smoke":
        data = "digits"
        if network == "dacnn":
            stages = 5 if options["depth"] == 14 else 4
            width = [2, 2, 3, 4, 4][:stages] if options.get("sharing") == "mix" else 4
            options = {**options, "width": width, "pools": 3}
    svhn = data == "svhn"
    by_preset = {
        "smoke": recipes.SMOKE,
        "fast": recipes.FAST_SVHN if svhn else recipes.FAST,
        "paper": recipes.INFERRED_SVHN if svhn else recipes.INFERRED,
    }
    run = Run(network=Named(name=network, options=options), data=Data(name=data), recipe=recipe or by_preset[preset])
    return Configuration(run, labels, headline)


def _points(preset: str, data: str, *names: str) -> list[Configuration]:
    """Points of the plot on ``data``, with the number of parameters that the plot seems to count."""
    grid = []
    for name in names:
        family, network, options = (POINTS | STAND_IN)[name]
        headline = preset != "smoke" and data == "cifar100" and name in HEADLINES
        plain = configuration(preset, options, data, network, headline=headline, net=name, family=family)
        grid.append(replace(plain, labels={**plain.labels, "kernel_parameters": plain.run.cost.kernel_parameters}))
    return grid


@experiment(
    name="dacnn-scatter",
    title="Test error against parameters, CIFAR-100",
    source="figure: test error against parameters (result_1.png of the authors' repository)",
)
def scatter(preset: str) -> list[Configuration]:
    """What accuracy does one kernel for all layers cost, and what do regulators and partial sharing regain?

    paper: the plot's fourteen points, recipe dacnn-reading (inferred, 350 epochs), one for all networks. The plot does
    not name its data set: CIFAR-100 is inferred. Expected by the plot: plain sharing gains nothing from depth beyond
    18 (38.64 against 38.87 % error), with regulators depth helps (35.39, 34.86, 33.88), DACNN14(MIX) about equals VGG
    (30.54 against 30.20), DACNN34(MIX,REG) beats ResNet18 (26.66 against 27.31). Its baselines are about 3 points worse
    than public results of a stronger recipe: look for the order and the gaps, not for the errors themselves.
    ``kernel_parameters`` leaves out batch norms and biases of convolutions, as the plotted parameters do.
    """
    tiny = ("tiny ResNet", "DACNN14", "DACNN18", "DACNN18(REG)", "DACNN14(MIX)", "DACNN18(MIX,REG)")
    return _points(preset, "cifar100", *(tiny if preset == "smoke" else POINTS))


@experiment(
    name="dacnn-pruning",
    title="Comparison with pruning, CIFAR-10",
    source="table: comparison with pruning (result_2.png of the authors' repository)",
)
def pruning(preset: str) -> list[Configuration]:
    """How many points do DACNN18 and DACNN18(MIX,REG) lose against ResNet18, and how many parameters do they save?

    paper: the three networks on CIFAR-10, recipe dacnn-reading. Base network, data set and recipe are not on the table:
    all are inferred. Expected: a loss of 0.79 points with 49.6 % fewer parameters, and of 10.2 points with 98.5 %
    fewer. No absolute accuracy is known. The baselines' rows are quoted, not rerun.
    """
    return _points(preset, "cifar10", "tiny ResNet" if preset == "smoke" else "ResNet18", "DACNN18(MIX,REG)", "DACNN18")


@experiment(
    name="dacnn-svhn", title="SVHN", source="abstract: tested on CIFAR-10, CIFAR-100 and SVHN; no readable number"
)
def svhn(preset: str) -> list[Configuration]:
    """Does the order of the networks on CIFAR-100 hold for house numbers?

    paper: recipe dacnn-reading without flips, train split only (inferred). Ours alone: no number of the paper could be
    read for SVHN.
    """
    if preset == "smoke":
        return _points(preset, "svhn", "tiny ResNet", "DACNN14", "DACNN18(REG)", "DACNN18(MIX,REG)")
    return _points(preset, "svhn", *HEADLINES[:4], "DACNN18(MIX,REG)", "VGG", "ResNet18")


@experiment(
    name="dacnn-depth-sweep",
    title="Depth of small networks, shared against unshared, CIFAR-100",
    source="authors' code, small_nets.py; no published numbers",
)
def depth_sweep(preset: str) -> list[Configuration]:
    """How much does depth gain where one kernel is used again, against kernels of their own at the same width?

    paper: 3 to 11 convolutions of 128 channels, recipe dacnn-reading (inferred). In the authors' code the shared unit
    includes its batch norm ("shared with norm"); beside it is ours, the kernel alone shared ("shared"), so that what
    the kernel costs is not confused with what the batch norm costs. fast: the same nets with our recipe for a GPU, and
    nets of 32 channels with our recipe dacnn-cpu of 4 epochs: ours in width and length, at a size that a CPU finishes.
    """
    sizes, depths = {"smoke": {4: None}, "fast": {128: None, 32: recipes.CPU}, "paper": {128: None}}, SMALL_LAYERS
    if preset == "smoke":
        depths = (3, 7, 11)
    return [
        configuration(
            preset,
            {"layers": n, "width": width, **options} | ({"pools": min(n - 1, 3)} if preset == "smoke" else {}),
            network="dacnn-small",
            recipe=recipe,
            layers=n,
            kernels=kernels,
            width=width,
        )
        for width, recipe in sizes[preset].items()
        for kernels, options in KERNELS.items()
        for n in depths
    ]


@experiment(
    name="dacnn-norm",
    title="Batch norm: one per use, or shared with the kernel, CIFAR-100",
    source="authors' code, header of resnet_Fix_BN.py; no published numbers",
)
def norm(preset: str) -> list[Configuration]:
    """Must each use of the shared kernel have a batch norm of its own?

    paper: plain DACNN14 (as released), 18 and 34 with free batch norms (the authors'), one affine map per kernel with
    statistics of each use, and one batch norm per kernel; recipe dacnn-reading (inferred).
    """
    return [
        configuration(preset, {**POINTS[f"DACNN{depth}"][2], "norm": norm}, depth=depth, norm=norm)
        for depth in ((14, 18) if preset == "smoke" else (14, 18, 34))
        for norm in ("free", "affine", "shared")
    ]


@experiment(
    name="dacnn-regulators",
    title="Regulators against depth, CIFAR-100",
    source="figures of the authors' repository (result_1.png, sharing_techniques.png); released code for the rotation",
)
def regulators(preset: str) -> list[Configuration]:
    """Do regulators make depth useful again, how many are needed, and does rotating the channels do as well for free?

    paper: recipe dacnn-reading (inferred). How many regulators a plain network of the paper has, and where they are, we
    infer from its parameters: one per layer ("depth"). Beside it are none, one or two per block and one per
    convolution, and the rotation of the channels that the released code performs in their place. Expected by the plot:
    without regulators nothing from depth 18 to 34, with them 1.5 points.
    """
    plain, mix = ("none", "depth", "rotation"), ("none", "per-block", "rotation")
    if preset == "paper":
        plain = ("none", "per-block", "two-per-block", "per-layer", "depth", "rotation")
    grid = [("plain", depth, kind) for depth in (18, 24, 34) for kind in plain]
    grid += [("mix", depth, kind) for depth in (18, 34) for kind in mix]
    if preset == "smoke":
        grid = [("plain", depth, kind) for depth in (18, 24) for kind in plain] + [("mix", 18, "per-block")]
    return [
        configuration(
            preset,
            {"depth": depth, "sharing": sharing} | ({"swap": True} if kind == "rotation" else {"regulators": kind}),
            sharing=sharing,
            depth=depth,
            regulators=kind,
        )
        for sharing, depth, kind in grid
    ]


@experiment(
    name="dacnn-small-statistics",
    title="Small networks with one kernel, evaluated with other batch-norm statistics, CIFAR-100",
    source="ours: why the released small networks, which share the batch norm too, evaluate near chance",
)
def statistics(preset: str) -> list[Configuration]:
    """Do the networks that share their batch norm fail by their weights, or by the statistics that they keep?

    Ours, no claim. The depth sweep's networks that use one kernel, with and without a shared batch norm, are evaluated
    by their running statistics, by those of each test batch, and by statistics of each use, re-estimated over the
    training images. Nothing is trained for it: each run starts from a trained network of the depth sweep, which is
    beside it and has the recipe that it has there (paper: dacnn-reading, inferred).
    """
    parents = [parent for parent in depth_sweep.grid(preset) if parent.labels["kernels"] != "unshared"]
    grid = [replace(parent, labels={**parent.labels, "task": "trained"}) for parent in parents]
    method = Named(name="norm-statistics")
    for each in parents:
        changes = {"recipe": None, "method": method, "parent": each.run.configuration}
        grid.append(Configuration(each.run.model_copy(update=changes), {**each.labels, "task": "measured"}))
    return grid


def depth_costs() -> pandas.DataFrame:
    """What plain networks of 128 channels cost in closed form, their kernel shared and not: no training.

    The small networks of 3 to 11 convolutions, then DACNN14 to DACNN34, each use with a batch norm of its own.

    Returns:
        Columns source (counted), net, kernels (shared, unshared), uses (convolutions of one shape, the stem left out),
        kernel, body and parameters (numbers in those convolutions, in all but the linear layer, in all), weight_bytes
        and activation_bytes (of one image).
    """
    import pandas

    nets = [(f"{n} convolutions", "dacnn-small", {"layers": n, "norm": "free"}) for n in SMALL_LAYERS]
    nets += [(f"DACNN{depth}", "dacnn", {"depth": depth}) for depth in (14, 18, 24, 34)]
    rows = []
    for net, network, options in nets:
        for kernels in ("shared", "unshared"):
            run = configuration("paper", {**options, "shared": kernels == "shared"}, network=network).run
            cost, layers = run.cost, options.get("layers") or options["depth"] - 1  # the stem included
            rows.append(
                {
                    "source": "counted",
                    "net": net,
                    "kernels": kernels,
                    "uses": layers - 1,
                    "kernel": cost.part("trunk conv").parameters,
                    "body": cost.parameters - cost.part("head").parameters,
                    "parameters": cost.parameters,
                    "weight_bytes": cost.weight_bytes(),
                    "activation_bytes": cost.activation_bytes(),
                }
            )
    return pandas.DataFrame(rows)
