"""ThriftyNets beyond the published figures, as grids of runs: depth, history, data augmentation, the protocol audit."""

from __future__ import annotations

from typing import Any

from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.thriftynet import PAPER, configuration, forty_k, tiny
from thriftylib.experiments.thriftynet_recipes import EXTRA_AUGMENTATIONS, augmented
from thriftylib.spec import Recipe

HISTORIES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30)  # the authors' bench of March 2020


@register(
    name="thriftynet-depth",
    paper=PAPER,
    title="Depth, CIFAR-10",
    source="authors' bench scripts of June 2020 (T from 10 to 50, h of 1, 5 and T/5); no published numbers",
)
def depth(preset: str) -> list[Configuration]:
    """Does iterating longer help at a fixed 40K parameters, and does it need a longer history?

    paper: T from 10 to 50 in steps of 5 with h = 1, 5 and T/5, schedule B.
    """
    if preset == "smoke":
        return [
            tiny(options={"iterations": T, "history": h}, iterations=T, history=h, rule=str(h))
            for h in (1, 3)
            for T in (4, 5, 6)
        ]
    recipe = recipes.B if preset == "paper" else recipes.FAST
    rules = ("1", "5", "T/5") if preset == "paper" else ("1", "5")
    grid = [(rule, T, T // 5 if rule == "T/5" else int(rule)) for rule in rules for T in range(10, 55, 5)]
    return [
        configuration(forty_k(T, h), "cifar10", recipe, iterations=T, history=h, rule=rule)
        for rule, T, h in grid
        if rule != "T/5" or h not in (1, 5)  # the point that another rule has already
    ]


@register(
    name="thriftynet-history",
    paper=PAPER,
    title="Length of the history, CIFAR-10",
    source="authors' bench scripts of March 2020 (h from 1 to 30); no published numbers",
)
def history(preset: str) -> list[Configuration]:
    """How many past states should an iteration add up?

    paper: h from 1 to 30 at T = 30, 40K, schedule B. A control of ours: the authors' script used a classic convolution
    with f = 64 and the schedule and initial values of March; here everything but h is as in the 40K networks of July.
    """
    if preset == "smoke":
        return [tiny(options={"iterations": 5, "history": h}, history=h) for h in (1, 2, 3, 5)]
    recipe, lengths = (recipes.B, HISTORIES) if preset == "paper" else (recipes.FAST, (1, 2, 3, 5, 10, 30))
    return [configuration(forty_k(30, h), "cifar10", recipe, history=h) for h in lengths]


@register(
    name="thriftynet-augmentation",
    paper=PAPER,
    title="Data augmentation, CIFAR-10",
    source="section 4.1, impact of data augmentation; authors' bench script of 3 July 2020",
)
def augmentation(preset: str) -> list[Configuration]:
    """Which data augmentation suits a network this small?

    paper: the 40K network of T = 20 with none, AutoAugment, cutout, cutmix or mixup beside crop and flip, schedule C.
    ``autoaugment-released`` rotates, solarises, shifts and shears as the authors' code does, and ``cutout-defect``
    draws its squares so. The paper's numbers are not publicly readable.
    """
    if preset == "smoke":  # AutoAugment's policy is for colours
        return [
            tiny(augmented(recipes.SMOKE, extra, **size), augmentation=extra)
            for extra, size in _SMOKE_AUGMENTATIONS.items()
        ]
    recipe = recipes.C if preset == "paper" else recipes.FAST
    return [
        configuration(forty_k(20, 5), "cifar10", augmented(recipe, extra), augmentation=extra)
        for extra in EXTRA_AUGMENTATIONS
    ]


_SMOKE_AUGMENTATIONS: dict[str, dict[str, int]] = {
    "none": {},
    "cutout": {"cutout": 2},
    "cutout-defect": {"cutout": 2},
    "cutmix": {},
    "mixup": {},
}


@register(
    name="thriftynet-protocol",
    paper=PAPER,
    title="Protocol audit, CIFAR-10",
    source="authors' code and logs, March to July 2020",
)
def protocol(preset: str) -> list[Configuration]:
    """Which of the choices behind the numbers matter, one changed at a time?

    The reference is the 40K network (mb1, T = 20, h = 5, fixed code) with schedule B. Best against last epoch reads the
    same records twice. Schedule A lets the test loss steer the rate; C has its 200 epochs and no look at the test set.
    Beside them stand two networks of the authors' logs with the schedules of their days: one batch norm for all
    iterations, which trained and evaluated badly, and vanillaC10, a classic convolution with relu and h = 1. The
    un-factorised control and the authors' own baselines, tiny ResNet and tiny DenseNet, have no published numbers.
    """
    if preset == "smoke":
        small = [
            tiny(options={"n_params": 500} | options, aspect=aspect, variant=variant)
            for aspect, variant, options in _changes(width=12)
        ]
        return [*small, tiny(network="tiny-resnet", aspect="baseline", variant="tiny-resnet")]
    recipe = recipes.B if preset == "paper" else recipes.FAST
    audit = [
        configuration(
            forty_k(20, 5) | options,
            "cifar10",
            recipe,
            aspect=aspect,
            variant=variant,
        )
        for aspect, variant, options in _changes(width=172)
    ]
    audit += [
        configuration({}, "cifar10", recipe, network, aspect="baseline", variant=network)
        for network in ("tiny-resnet", "tiny-densenet")
    ]
    if preset == "paper":
        audit += [
            configuration(forty_k(20, 5), "cifar10", recipes.A, aspect="schedule", variant="plateau on test loss"),
            configuration(forty_k(20, 5), "cifar10", recipes.C, aspect="schedule", variant="steps, 200 epochs"),
            *(
                configuration(options, "cifar10", recipe, aspect="authors' log", variant=variant)
                for variant, (options, recipe) in LOGGED.items()
            ),
        ]
    return audit


# Networks of the authors' logs and the recipes of their days. Both have 64 filters in a classic convolution.
LOGGED: dict[str, tuple[dict[str, Any], Recipe]] = {
    "shared batch norm": (
        {"filters": 64, "conv": "classic", "iterations": 30, "history": 5, "history_bug": True, "norm": "shared"},
        recipes.SHARED_NORM,
    ),
    "vanillaC10": (  # that day one coefficient served both terms: with the batch norm, the plain recursion
        {
            **{"filters": 64, "conv": "classic", "iterations": 14, "pool": 3, "history": 1},
            **{"activation": "relu", "recursion": "plain"},
        },
        recipes.VANILLA,
    ),
}


def _changes(width: int) -> list[tuple[str, str, dict[str, Any]]]:
    """(aspect, variant, changed options) of the reference, which has ``width`` filters, and of each change to it."""
    own = {"shared": False, "history": 1}  # the authors' un-factorised network: a convolution for each iteration
    return [
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
