"""ThriftyNets beyond the published figures, as grids of runs: depth, history, data augmentation, the protocol audit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.experiments.base import Configuration
from thriftylib.experiments.thriftynet import configuration, experiment


@experiment(
    name="thriftynet-depth",
    title="Depth, CIFAR-10",
    source="authors' bench scripts of June 2020 (T from 10 to 50, h of 1, 5 and T/5); no published numbers",
)
def depth(preset: str) -> list[Configuration]:
    """Does iterating longer help at a fixed 40K parameters, and does it need a longer history?

    paper: T from 10 to 50 in steps of 5 with h = 1, 5 and T/5, schedule B.
    """
    depths, histories = (range(4, 7), (1, 3)) if preset == "smoke" else (range(10, 55, 5), (1, 5))
    grid = [(T, h, str(h)) for h in histories for T in depths]
    if preset == "paper":
        grid += [(T, T // 5, "T/5") for T in depths if T // 5 not in histories]  # the others are there already
    return [configuration(preset, iterations=T, history=h, rule=rule) for T, h, rule in grid]


@experiment(
    name="thriftynet-history",
    title="Length of the history, CIFAR-10",
    source="authors' bench scripts of March 2020 (h from 1 to 30); no published numbers",
)
def history(preset: str) -> list[Configuration]:
    """How many past states should an iteration add up?

    paper: h from 1 to 30 at T = 30, 40K, schedule B. A control of ours: the authors' script used a classic convolution
    with f = 64 and the schedule and initial values of March; here everything but h is as in the 40K networks of July.
    """
    T, lengths = 30, (*range(1, 11), 15, 20, 25, 30)
    if preset != "paper":
        T, lengths = (5, (1, 2, 3, 5)) if preset == "smoke" else (30, (1, 2, 3, 5, 10, 30))
    return [configuration(preset, {"iterations": T}, history=h) for h in lengths]


@experiment(
    name="thriftynet-augmentation",
    title="Data augmentation, CIFAR-10",
    source="section 4.1, impact of data augmentation; authors' bench script of 3 July 2020",
)
def augmentation(preset: str) -> list[Configuration]:
    """Which data augmentation suits a network this small?

    paper: the 40K network of T = 20 with none, AutoAugment, cutout, cutmix or mixup beside crop and flip, schedule C.
    ``autoaugment-released`` rotates, solarises, shifts and shears as the authors' code does, and ``cutout-defect``
    draws its squares so. The paper's numbers are not publicly readable.
    """
    extras = recipes.EXTRA_AUGMENTATIONS
    if preset == "smoke":  # 8x8 pixels, and AutoAugment's policy is for colours
        extras = {
            name: extra | ({"cutout": 2} if "cutout" in extra else {})
            for name, extra in extras.items()
            if "autoaugment" not in extra
        }
    grid = []
    for name, extra in extras.items():
        plain = configuration(preset, paper=recipes.C, augmentation=name)
        recipe = recipes.augmented(plain.run.recipe, name, extra)
        grid.append(replace(plain, run=plain.run.model_copy(update={"recipe": recipe})))
    return grid


@experiment(
    name="thriftynet-protocol", title="Protocol audit, CIFAR-10", source="authors' code and logs, March to July 2020"
)
def protocol(preset: str) -> list[Configuration]:
    """Which of the choices behind the numbers matter, one changed at a time?

    The reference is the 40K network (mb1, T = 20, h = 5, fixed code) with schedule B. Best against last epoch reads the
    same records twice. Schedule A lets the test loss steer the learning rate; C has its 200 epochs and no look at the
    test set. Beside them are two networks of the authors' logs with the schedules of their days: one batch norm for all
    iterations, which trained and evaluated badly, and vanillaC10, a classic convolution with relu and h = 1. The
    un-factorised control and the authors' own baselines, tiny ResNet and tiny DenseNet, have no published numbers.
    """
    size, width = ({"n_params": 500}, 12) if preset == "smoke" else ({}, 172)
    own = {"shared": False, "history": 1}  # the authors' un-factorised network: a convolution for each iteration
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("reference", "40K", {}),
        ("history bug", "as released", {"history_bug": True}),
        ("batch norm", "shared", {"norm": "shared"}),
        ("batch norm", "no affine", {"norm_affine": False}),
        *(("activation", name, {"activation": name}) for name in ("relu", "leaky", "swish", "retanh")),
        *(("convolution", mode, {"conv": mode}) for mode in ("classic", "mb2", "mb4")),
        ("alpha", "newest", {"alpha_main": "newest"}),
        ("alpha", "0.5 everywhere", {"alpha_init": "half"}),
        ("alpha", "1.0 everywhere", {"alpha_init": "one"}),
        ("recursion", "plain", {"recursion": "plain", "history": 1}),
        ("sharing", "un-factorised, same parameters", own),
        ("sharing", "un-factorised, same width", own | {"filters": width, "n_params": None}),
    ]
    rows = [(aspect, variant, "thriftynet", size | options, recipes.B) for aspect, variant, options in changes]
    rows += [("baseline", "tiny-resnet", "tiny-resnet", {}, recipes.B)]
    if preset != "smoke":
        rows += [("baseline", "tiny-densenet", "tiny-densenet", {}, recipes.B)]
    if preset == "paper":
        logged = {"filters": 64, "conv": "classic"}
        bug = {"iterations": 30, "history": 5, "history_bug": True, "norm": "shared"}
        # That day one coefficient served both terms: with the batch norm, the plain recursion.
        vanilla = {"iterations": 14, "history": 1, "pool": 3, "activation": "relu", "recursion": "plain"}
        rows += [
            ("schedule", "plateau on test loss", "thriftynet", {}, recipes.A),
            ("schedule", "steps, 200 epochs", "thriftynet", {}, recipes.C),
            ("authors' log", "shared batch norm", "thriftynet", logged | bug, recipes.SHARED_NORM),
            ("authors' log", "vanillaC10", "thriftynet", logged | vanilla, recipes.VANILLA),
        ]
    return [
        configuration(preset, options, "cifar10", recipe, network, aspect=aspect, variant=variant)
        for aspect, variant, network, options, recipe in rows
    ]
