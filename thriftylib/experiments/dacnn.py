"""DACNN's plot, its comparison with pruning, and what its code hints at, as grids of runs.

The authors' recipe could not be read: every ``paper`` grid here is trained by ``dacnn-reading``, which is inferred, the
same for every network, and no page may call it the paper's. Names are the plot's: DACNN14 is the VGG layout, DACNN18,
24 and 34 the ResNet layout; (REG) has regulators, (MIX) partly shared kernels. DACNN14 and DACNN14(MIX) are as their
files were released. Batch norms are initialised between 0 and 1, the default of PyTorch 1.1, current when the files
were released, on 20 June 2019 (inferred: no file names a version); those of the small networks under our own recipes
with ones, since their records came first. On the 8x8 digits of the smoke grids the last stages do not pool, and a tiny
ResNet stands in for the baselines.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from thriftylib.experiments import dacnn_recipes as recipes
from thriftylib.experiments.base import Configuration, register, road
from thriftylib.experiments.recipes import changed, run_of
from thriftylib.spec import Named, Recipe, Run

if TYPE_CHECKING:
    import pandas

experiment = partial(register, paper="dacnn")
SMALL_LAYERS = (3, 5, 7, 9, 11)
KERNELS: dict[str, dict[str, Any]] = {  # of the small networks
    "shared with norm": {"shared": True, "norm": "shared"},
    "shared": {"shared": True, "norm": "free"},
    "unshared": {"shared": False, "norm": "free"},
}
POINTS: dict[str, tuple[str, str, dict[str, Any]]] = {  # the plot's: family and network with its options
    "DACNN14": ("plain", "dacnn", {"depth": 14, "order": "conv-relu-bn"}),  # as released; the others: conv-BN-ReLU
    "DACNN18": ("plain", "dacnn", {"depth": 18}),
    "DACNN34": ("plain", "dacnn", {"depth": 34}),
    # Inferred: a regulator per layer, the number that the plotted parameters of the plain nets need.
    **{f"DACNN{n}(REG)": ("REG", "dacnn", {"depth": n, "regulators": "depth"}) for n in (18, 24, 34)},
    "DACNN14(MIX)": ("MIX", "dacnn", {"depth": 14, "sharing": "mix", "bare_fifth": True}),  # as released
    **{f"DACNN{n}(MIX)": ("MIX", "dacnn", {"depth": n, "sharing": "mix"}) for n in (18, 34)},
    "DACNN18(MIX,REG)": ("MIX,REG", "dacnn", {"depth": 18, "sharing": "mix", "regulators": "per-block"}),
    "DACNN34(MIX,REG)": ("MIX,REG", "dacnn", {"depth": 34, "sharing": "mix", "regulators": "per-block"}),
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
    fast: Recipe = recipes.FAST,
    *,
    headline: bool = False,
    **labels: str | int,
) -> Configuration:
    """A run from seed 0 (smoke: 2 to 4 channels wide); ``fast`` is the recipe of that preset, the rest are labels."""
    if network not in ("tiny-resnet", "dacnn-small") or preset == "paper":
        options = {**options, "norm_init": "uniform"}
    if preset == "smoke" and network == "dacnn":
        widths = [2, 2, 3, 4, 4] if options["depth"] == 14 else [2, 2, 3, 4]
        options = {**options, "width": widths if options.get("sharing") == "mix" else 4, "pools": 3}
    run = run_of(preset, network, options, data, smoke=recipes.SMOKE, fast=fast, paper=recipes.INFERRED)
    return Configuration(run, labels, headline)


@road("share", paper="dacnn")
def ordinary(run: Run) -> Run | None:
    """VGG or the ResNet whose layout a DACNN has, and where there is none, the same network with kernels of its own."""
    name, options = run.network.name, run.network.options
    if run.recipe is None:
        return None
    base = {14: "VGG", 18: "ResNet18", 34: "ResNet34"}.get(options.get("depth")) if name == "dacnn" else None
    if base and run.data.name == "digits":
        base = "tiny ResNet"
    if base:
        _, network, own = (POINTS | STAND_IN)[base]
        own = own if base in STAND_IN else {**own, "norm_init": options["norm_init"]}
        return Run.model_validate({**run.model_dump(), "network": {"name": network, "options": own}})
    if not options.get("shared"):
        return run
    return changed(run, "network", **KERNELS["unshared"])


def _points(preset: str, data: str, *names: str) -> list[Configuration]:
    """Points of the plot on ``data``, with the number of parameters that the plot seems to count."""
    grid = []
    for name in names:
        family, network, options = (POINTS | STAND_IN)[name]
        headline = preset != "smoke" and data == "cifar100" and name in HEADLINES
        point = configuration(preset, options, data, network, headline=headline, net=name, family=family)
        grid.append(replace(point, labels={**point.labels, "kernel_parameters": point.run.cost.kernel_parameters}))
    return grid


@experiment(
    title="Test error against parameters, CIFAR-100",
    source="figure: test error against parameters (result_1.png of the authors' repository)",
)
def scatter(preset: str) -> list[Configuration]:
    """What accuracy does one kernel for all layers cost, and what do regulators and partial sharing regain?

    paper: the plot's points; recipe (350 epochs) and data set are inferred. Expected by the plot: plain sharing gains
    nothing beyond depth 18 (38.64 and 38.87 % error), with regulators depth helps (35.39, 34.86, 33.88), DACNN14(MIX)
    about equals VGG (30.54 and 30.20), DACNN34(MIX,REG) beats ResNet18 (26.66 and 27.31). Its baselines are 3 points
    worse than public ones: look for order and gaps. ``kernel_parameters`` are counted as the plot seems to count.
    """
    tiny = ("tiny ResNet", "DACNN14", "DACNN18", "DACNN18(REG)", "DACNN14(MIX)", "DACNN18(MIX,REG)")
    return _points(preset, "cifar100", *(tiny if preset == "smoke" else POINTS))


@experiment(
    title="Comparison with pruning, CIFAR-10",
    source="table: comparison with pruning (result_2.png of the authors' repository)",
)
def pruning(preset: str) -> list[Configuration]:
    """How many points do DACNN18 and DACNN18(MIX,REG) lose against ResNet18, and how many parameters do they save?

    paper: recipe, base network and data set, CIFAR-10, are inferred. Expected: a loss of 0.79 points with 49.6 % fewer
    parameters, and of 10.2 points with 98.5 % fewer. The table's pruned networks are quoted, not rerun.
    """
    return _points(preset, "cifar10", "tiny ResNet" if preset == "smoke" else "ResNet18", "DACNN18(MIX,REG)", "DACNN18")


@experiment(title="SVHN", source="abstract: tested on CIFAR-10, CIFAR-100 and SVHN; no readable number")
def svhn(preset: str) -> list[Configuration]:
    """Does the order of the networks on CIFAR-100 hold for house numbers?

    paper: recipe inferred, without flips, train split only. Ours alone: no number of the paper could be read for SVHN.
    """
    if preset == "smoke":
        return _points(preset, "svhn", "tiny ResNet", "DACNN14", "DACNN18(REG)", "DACNN18(MIX,REG)")
    return _points(preset, "svhn", *HEADLINES[:4], "DACNN18(MIX,REG)", "VGG", "ResNet18")


@experiment(
    title="Depth of small networks, shared against unshared, CIFAR-100",
    source="authors' code, small_nets.py; no published numbers",
)
def depth_sweep(preset: str) -> list[Configuration]:
    """How much does depth gain where one kernel is used again, against kernels of their own at the same width?

    paper: 128 channels, recipe inferred. In the authors' code the shared unit includes its batch norm ("shared with
    norm"); beside it is ours, the kernel alone shared ("shared"), so that the costs of both are distinguished. fast:
    these for a GPU, and nets of 32 channels with our recipe dacnn-cpu of 4 epochs, at a size that a CPU finishes.
    """
    widths = {"smoke": {4: recipes.FAST}, "fast": {128: recipes.FAST, 32: recipes.CPU}, "paper": {128: recipes.FAST}}
    depths = (3, 7, 11) if preset == "smoke" else SMALL_LAYERS
    grid = []
    for (width, fast), kernels, n in product(widths[preset].items(), KERNELS, depths):
        options = {"layers": n, "width": width, **KERNELS[kernels]}
        options |= {"pools": min(n - 1, 3)} if preset == "smoke" else {}
        labels = {"layers": n, "kernels": kernels, "width": width}
        grid.append(configuration(preset, options, network="dacnn-small", fast=fast, **labels))
    return grid


@experiment(
    title="Batch norm: one per use, or shared with the kernel, CIFAR-100",
    source="authors' code, header of resnet_Fix_BN.py; no published numbers",
)
def norm(preset: str) -> list[Configuration]:
    """Must each use of the shared kernel have a batch norm of its own?

    paper: plain nets with free batch norms (the authors'), one affine map per kernel with statistics of each use, and
    one batch norm per kernel (recipe inferred).
    """
    return [
        configuration(preset, {**POINTS[f"DACNN{depth}"][2], "norm": norm}, depth=depth, norm=norm)
        for depth in ((14, 18) if preset == "smoke" else (14, 18, 34))
        for norm in ("free", "affine", "shared")
    ]


@experiment(
    title="Regulators against depth, CIFAR-100",
    source="figures of the authors' repository (result_1.png, sharing_techniques.png); released code for the rotation",
)
def regulators(preset: str) -> list[Configuration]:
    """Do regulators make depth useful again, how many are needed, and does rotating the channels do as well for free?

    paper: recipe inferred; so is, from the parameters, that a plain network has a regulator per layer ("depth"). Beside
    it are none, one or two per block and one per convolution, and the rotation of the channels that the released code
    performs in their place. Expected by the plot: nothing from depth 18 to 34, with regulators 1.5 points.
    """
    plain, mix = ("none", "depth", "rotation"), ("none", "per-block", "rotation")
    if preset == "paper":
        plain = ("none", "per-block", "two-per-block", "per-layer", "depth", "rotation")
    grid = [("plain", depth, kind) for depth in (18, 24, 34) for kind in plain]
    grid += [("mix", depth, kind) for depth in (18, 34) for kind in mix]
    if preset == "smoke":
        grid = [("plain", depth, kind) for depth in (18, 24) for kind in plain] + [("mix", 18, "per-block")]
    points = [{"sharing": sharing, "depth": depth, "regulators": kind} for sharing, depth, kind in grid]
    rotation = {"regulators": "none", "swap": True}
    return [configuration(preset, p | (rotation if p["regulators"] == "rotation" else {}), **p) for p in points]


@experiment(
    title="Small networks with one kernel, evaluated with other batch-norm statistics, CIFAR-100",
    source="ours: why the released small networks, which share the batch norm too, evaluate near chance",
)
def small_statistics(preset: str) -> list[Configuration]:
    """Do the networks that share their batch norm fail by their weights, or by the statistics that they keep?

    Ours, no claim. The depth sweep's networks that use one kernel are evaluated by their running statistics, by those
    of each test batch, and by statistics of each use, re-estimated over the training images. Nothing is trained for it:
    each run starts from a trained network of the depth sweep beside it.
    """
    trained, measured = [], []
    for parent in depth_sweep.grid(preset):
        if parent.labels["kernels"] != "unshared":
            trained.append(Configuration(parent.run, {**parent.labels, "task": "trained"}))
            changes = {"recipe": None, "method": Named(name="norm-statistics"), "parent": parent.run.configuration}
            run = parent.run.model_copy(update=changes)
            measured.append(Configuration(run, {**parent.labels, "task": "measured"}))
    return trained + measured


def depth_costs() -> pandas.DataFrame:
    """What plain networks of 128 channels cost in closed form, each use with a batch norm of its own: no training.

    Returns:
        Columns source (counted), net, kernels (shared, unshared), uses (convolutions of one shape, the stem left out),
        kernel, body and parameters (numbers in those convolutions, in all but the linear layer, in all), weight_bytes
        and activation_bytes (of one image).
    """
    import pandas

    nets = [(f"{n} convolutions", "dacnn-small", {"layers": n, "norm": "free"}) for n in SMALL_LAYERS]
    nets += [(f"DACNN{depth}", "dacnn", {"depth": depth}) for depth in (14, 18, 24, 34)]
    rows = []
    for (net, network, options), kernels in product(nets, ("shared", "unshared")):
        cost = configuration("paper", {**options, "shared": kernels == "shared"}, network=network).run.cost
        uses = (options.get("layers") or options["depth"] - 1) - 1
        sizes = cost.part("trunk conv").parameters, cost.parameters - cost.part("head").parameters, cost.parameters
        rows.append(("counted", net, kernels, uses, *sizes, cost.weight_bytes(), cost.activation_bytes()))
    columns = ("source", "net", "kernels", "uses", "kernel", "body", "parameters", "weight_bytes", "activation_bytes")
    return pandas.DataFrame(rows, columns=columns)
