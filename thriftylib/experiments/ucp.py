"""UCP's narrow networks trained from scratch, scores of our own that choose them, and a control that the paper lacks.

``paper`` grids have the authors' recipe. Width lists are recovered from the history of the authors' code, where some
widths were set by hand; the lists' names say which. The authors normalise CIFAR-100 by the constants of CIFAR-10, we by
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from thriftylib.experiments.base import Configuration, register, road
from thriftylib.experiments.recipes import CIFAR, for_digits, like, run_of
from thriftylib.schedules import OneCycle, Steps
from thriftylib.spec import Data, Named, Recipe, Run

if TYPE_CHECKING:
    import pandas

experiment = partial(register, paper="ucp")

AUTHORS = Recipe(  # of the baseline, the network with excitation blocks and the retrained one alike
    name="ucp",
    epochs=160,
    batch_size=64,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule=Steps(milestones=(80, 120), factor=0.1),
    augment=CIFAR,
)
FAST = like(AUTHORS, "ucp-fast", epochs=30, schedule=OneCycle(warmup=0.2))  # minutes on a GPU
SHORT = like(FAST, "ucp-short", epochs=3)  # minutes on one thread of a CPU
TUNED = like(SHORT, "ucp-short-tuned", epochs=2, learning_rate=0.02)  # fine-tuning: shorter, and gentler
AUTHORS_TUNED = like(AUTHORS, "ucp-tuned", epochs=80, learning_rate=0.01, schedule=Steps(milestones=(40, 60)))
SMOKE = for_digits(FAST, "ucp-smoke", epochs=2)
RECIPES = {"smoke": SMOKE, "fast": FAST, "paper": AUTHORS}

VGG: dict[tuple[int, str], dict[str, str]] = {  # depth and data; by multiplier the channels of each convolution
    (19, "cifar100"): {
        "1 - 1e-8, layers halved by hand": "35 64 128 128 128 128 128 128 256 129 235 394 256 6 230 104",
        "0.999, layers halved by hand": "40 64 128 128 256 256 256 256 256 133 195 256 256 256 256 256",
    },
    (16, "cifar10"): {  # no list is kept: the rule on the scores that are; their eleventh layer was halved before
        "0.99": "25 64 128 128 256 256 256 246 222 512 256 512 504",
        "0.999": "25 64 128 128 256 255 251 242 218 512 256 512 383",
        "0.9999": "24 64 128 128 256 234 212 242 218 512 256 512 298",
        "1 - 1e-8": "23 64 39 128 256 70 131 242 218 328 256 383 281",
    },
    (16, "svhn"): {  # of an experiment that is not in the paper
        "0.9999": "34 33 62 68 123 131 157 282 332 479 313 512 418",
        "1 - 1e-8": "34 33 62 67 123 131 143 265 291 333 274 274 322",
        "1.0001": "33 33 62 67 123 131 110 243 250 14 241 256 56",
    },
}
WHOLE = (16, 32, 64)
UNIFORM: dict[str, dict[str, Sequence[int]]] = {  # channels of each stage; "first": inner ones of its first block
    "16/32/32, outer": {"outer": (16, 32, 32)},
    "8/16/32, outer": {"outer": (8, 16, 32)},
    "16/32/32, outer and inner": {"outer": (16, 32, 32), "inner": (16, 32, 32)},
    "16/32/32, inner but the first": {"inner": (16, 32, 32), "first": WHOLE},
    "8/16/32, inner but the first": {"inner": (8, 16, 32), "first": WHOLE},
}
RESNET_50 = {  # of depth 50, CIFAR-10: inner channels of each block, but the first of a stage stays whole
    "0.999": "16 16 16 14 16 14 16 14 32 18 32 17 32 32 32 32 36 32 37 36 64 33 13 38",
    "1 - 1e-6": "11 12 16 14 12 14 12 14 32 17 32 17 32 32 32 32 36 32 37 36 41 33 13 38",
}
IMAGENET = {  # inner channels of each block of torchvision's networks
    18: {"0.9": "57 57 109 97 185 159 381 326", "1.1": "30 32 43 80 102 110 189 229"},
    34: {
        "0.99": "49 44 39 89 90 79 85 161 139 155 153 256 256 290 364 267",
        "1.1, nine raised by hand": "30 43 26 38 59 20 70 96 121 95 80 100 128 182 141 182",
    },
}
MULTIPLIERS = (0.9, 0.99, 0.999, 0.9999, 0.999999, 0.99999999, 1.000001, 1.0001, 1.01, 1.1)
SKIP = {16: [1, 3, 4, 10], 19: [1, 2, 3, 4, 5, 6, 12]}  # convolutions of a VGG that the authors' scripts leave whole


def numbers(text: str) -> list[int]:
    """``"35 64"`` -> [35, 64]."""
    return [int(number) for number in text.split()]


def resnet_options(blocks: int, name: str) -> dict[str, Any]:
    """A ResNet of 6 ``blocks`` + 2 layers with widths of one of these names, or with "all" channels."""
    widths = {"outer": WHOLE, "inner": WHOLE, **UNIFORM.get(name, {})}
    first = widths.get("first", widths["inner"])
    inner = [
        width for pair in zip(first, widths["inner"], strict=True) for width in [pair[0]] + [pair[1]] * (blocks - 1)
    ]
    if name in RESNET_50:
        inner = [width if i % blocks else inner[i] for i, width in enumerate(numbers(RESNET_50[name]))]
    return {"blocks": blocks, "outer": list(widths["outer"]), "inner": inner}


@road("prune", paper="ucp")
def ordinary(run: Run) -> Run | None:
    """The whole network, trained alike; None of scored networks and of fine-tuned ones."""
    options = run.network.options
    if run.recipe in (None, TUNED, AUTHORS_TUNED) or options.get("excited") not in (False, "no"):
        return None
    if run.parent or run.recipe in (SHORT, SMOKE):  # its widths are whole: what is removed is the method's doing
        return run.model_copy(update={"method": None, "parent": None})
    whole = {name: value for name, value in options.items() if name not in ("convs", "inner", "outer")}
    return Run.model_validate({**run.model_dump(), "network": {"name": run.network.name, "options": whole}})


@experiment(
    title="VGG-19 on CIFAR-100 and VGG-16 on CIFAR-10 with the recovered widths",
    source="abstract (VGG-19); widths from the history of the authors' code",
)
def vgg(preset: str) -> list[Configuration]:
    """What does a VGG lose or gain when it is trained from scratch with the widths that UCP gave it?

    paper: whole and narrow networks by one recipe. Claimed: 0.54 points more with 82 % fewer parameters on CIFAR-100;
    that this is the list "1 - 1e-8" is inferred from its counts. VGG-16's accuracies are not known to us.
    """
    grid = []
    for (depth, data), lists in VGG.items():
        for place, (name, widths) in enumerate({"all": "", **lists}.items()):
            options = {"depth": depth} | ({"convs": numbers(widths)} if widths else {})
            if preset == "smoke":
                options = {"depth": depth, "convs": [5 - place] * (13 if depth == 16 else 16), "pools": 3}
            run = run_of(preset, "ucp-vgg", options, data, **RECIPES)
            labels = {"network": f"VGG-{depth}", "dataset": run.data.name, "widths": name}
            grid += [Configuration(run, labels, headline=depth == 19 and place < 2)]
    return grid[:5] if preset == "smoke" else grid


@experiment(
    title="ResNet-56 and ResNet-110 with uniform widths, CIFAR-10",
    source="authors' code: stage widths in the pruning scripts and the model file",
)
def resnet(preset: str) -> list[Configuration]:
    """What do ResNets lose or gain with one width a stage, and where are the channels best removed?

    paper: the widths of stages are constants: no score has a part in these networks. ResNet-50 has widths by block. No
    accuracy is known to us. "No gradient" is an audit: the authors' shortcuts between stages read ``.data``.
    """
    grid = []
    for blocks in (1,) if preset == "smoke" else (8, 9, 18):
        for name in ("all", *(RESNET_50 if blocks == 8 else ("all, no gradient in shortcuts", *UNIFORM))):
            options = resnet_options(blocks, name)
            options |= {"shortcut_gradient": False} if "gradient" in name else {}
            if preset == "smoke":
                options |= {key: [width // 4 for width in options[key]] for key in ("outer", "inner")}
            run = run_of(preset, "ucp-resnet", options, "cifar10", **RECIPES)
            grid += [Configuration(run, {"network": f"ResNet-{6 * blocks + 2}", "widths": name})]
    return grid[:5] if preset == "smoke" else grid  # with one block a stage, the rest are the same networks again


def child(parent: Run, recipe: Recipe, **method: Any) -> Run:
    """The narrow network that comes from a scored one; ``method``: options of the method ucp."""
    options = {name: value for name, value in parent.network.options.items() if name != "excited"}
    values = {"network": Named(name=parent.network.name, options=options), "recipe": recipe}
    values |= {"method": Named(name="ucp", options=method), "parent": parent.configuration}
    return Run.model_validate({**parent.model_dump(), **values})


def scored_again(parent: Run, **method: Any) -> Run:
    """The scores of a trained network once more, measured in another way; trains nothing."""
    values = {"method": Named(name="ucp-scores", options=method), "recipe": None, "parent": parent.configuration}
    return Run.model_validate({**parent.model_dump(), **values})


@experiment(
    title="The threshold, from light to heavy: VGG-16 on CIFAR-10 and VGG-19 on CIFAR-100",
    source="abstract: light pruning beats the original; multipliers from the authors' code",
)
def threshold(preset: str) -> list[Configuration]:
    """How do accuracy and size follow the threshold, with scores of our own?

    paper: a network with excitation blocks is trained and scored; each of the authors' ten multipliers gives a narrow
    one, trained from scratch without them. Layers of their skip lists stay whole, and so do those whose scores all tie.
    The scores are measured again on test images, and in training mode.
    """
    grid = []
    for depth, data in ((16, "cifar10"), (19, "cifar100"))[: 1 if preset == "smoke" else 2]:
        tiny = {"convs": [8] * 13, "pools": 3} if preset == "smoke" else {}
        whole = run_of(preset, "ucp-vgg", {"depth": depth, **tiny}, data, **RECIPES)
        options, method = {"depth": depth, "excited": True, **tiny}, Named(name="ucp-scores")
        scored = run_of(preset, "ucp-vgg", options, data, **RECIPES, method=method)
        runs = {"all": whole, "scored": scored, "scored, test images": scored_again(scored, split="test")}
        runs["scored, test images, training mode"] = scored_again(scored, split="test", mode="training")
        for multiplier in (0.99, 1.01) if preset == "smoke" else MULTIPLIERS:
            runs[f"{multiplier:.9g}"] = child(scored, whole.recipe, multiplier=multiplier, skip=SKIP[depth])
        labels = {"network": f"VGG-{depth}", "dataset": whole.data.name}
        grid += [Configuration(run, {**labels, "widths": name}) for name, run in runs.items()]
    return grid


CONTROL: dict[str, tuple[Recipe, Recipe, str, dict[str, Any]]] = {  # recipe, that of fine-tuning, data, network
    "smoke": (SMOKE, SMOKE, "digits", {"blocks": 1, "outer": [4, 4, 8]}),
    "fast": (SHORT, TUNED, "cifar10", {"blocks": 3, "outer": [8, 16, 32]}),
    "paper": (AUTHORS, AUTHORS_TUNED, "cifar10", {"blocks": 9, "outer": [16, 32, 64]}),
}
ARMS: dict[str, dict[str, Any]] = {  # how each narrow network of the control comes from the scored one
    "score": {},
    "random": {"widths": "shuffled"},
    "uniform": {"widths": "uniform"},
    "reversed": {"widths": "reversed"},
    "magnitude": {"widths": "magnitude"},
    "random-parameters": {"widths": "shuffled", "budget": "parameters"},
    "uniform-parameters": {"widths": "uniform", "budget": "parameters"},
}


@experiment(
    title="Control: does the score matter when the narrow network is trained from scratch?, CIFAR-10",
    source="ours: the paper has no such control",
)
def control(preset: str) -> list[Configuration]:
    """Does the score matter at all when the narrow network is trained from scratch?

    Ours. Trained from scratch, a score acts through the widths alone. So inner widths by the threshold (1 - 1e-8, tied
    layers whole) meet others of the same MACs: the same kept shares dealt to other layers at random or in the opposite
    order, one share for all, or by kernel norms; two of them also at the same parameters; and, at their own cost,
    widths by another training's scores. At given widths (half) scores, chance and kernel norms choose the channels that
    are fine-tuned. fast: ResNet-20 of half width, 3 epochs, minutes on one CPU thread. paper: ResNet-56.
    """
    recipe, tuned, data, options = CONTROL[preset]

    def run_on(recipe: Recipe | None, excited: str = "no", **method: Any) -> Run:
        network = Named(name="ucp-resnet", options={**options, "excited": excited})
        scores = Named(name="ucp-scores", options=method) if excited != "no" else None
        return Run(network=network, data=Data(name=data), recipe=recipe, method=scores)

    multiplier, scored, again = 0.99999999, run_on(recipe, "inner"), run_on(recipe, "inner", redraws=1)
    runs = {"unpruned": run_on(recipe), "scored": scored, "untrained": run_on(None, "inner", mode="training")}
    runs |= {"scored-test": scored_again(scored, split="test")}
    runs |= {"scored-authors": scored_again(scored, split="test", mode="training")}
    runs |= {arm: child(scored, recipe, multiplier=multiplier, **method) for arm, method in ARMS.items()}
    runs |= {"scored-output": run_on(recipe, "output"), "scored-again": again}
    half = {"multiplier": multiplier, "keep": [max(1, width // 2) for width in scored.network.options["inner"]]}
    runs["other-scores"] = child(again, recipe, multiplier=multiplier)
    runs["half-retrained"] = child(scored, recipe, **half)
    for channels in ("scores", "random", "magnitude"):
        runs[f"half-tuned-{channels}"] = child(scored, tuned, **half, channels=channels, weights="parent")
    return [Configuration(run, {"arm": arm}) for arm, run in runs.items()]


def counts() -> pandas.DataFrame:
    """The networks of known widths, built on no device: parameters, the authors' FLOPs and our MACs (both in millions).

    Returns:
        Columns network, images, widths, parameters, flops, macs.
    """
    import pandas
    import torch

    from thriftylib.papers.networks_narrowable import imagenet_resnet
    from thriftylib.training.counting import count, early_ptflops

    grid = [each for part in (vgg, resnet) for each in part.configurations("paper")]
    with torch.device("meta"):
        built = [(e.labels["network"], e.run.data.name, e.labels["widths"], e.run.build(), (3, 32, 32)) for e in grid]
    for depth, lists in IMAGENET.items():
        for name, widths in {"all": "", **lists}.items():
            network = imagenet_resnet(depth, numbers(widths))
            built += [(f"ResNet-{depth}", "ImageNet, 224x224", name, network, (3, 224, 224))]
    rows = [(*n, count(x, s).parameters, early_ptflops(x, s) / 1e6, count(x, s).macs / 1e6) for *n, x, s in built]
    return pandas.DataFrame(rows, columns=["network", "images", "widths", "parameters", "flops", "macs"])
