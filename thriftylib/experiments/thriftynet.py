"""ThriftyNets' figures and abstract, then controls beyond them, as grids of runs.

The body text of the paper is unavailable to us, so figures are named by what they show; what is inferred is said.

Names: T ``iterations``, f ``filters``, h ``history``; the pooling ``period`` is T/5 where nothing else is said.
"40K" is the widest network with at most 40,000 parameters.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.experiments.base import Configuration, register, road
from thriftylib.experiments.recipes import augmented, changed, run_of
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.spec import Recipe, Run

experiment = partial(register, paper="thriftynet")
TINY = {"iterations": 4, "pool": 2, "history": 3}  # for the digits
OPTIONS = {"budget": "n_params", "period": "pool"}  # labels that are options under another name
MACS_DEPTHS = (10, 15, 20, 30, 40, 45, 50)  # inferred: the depths whose MACs are the columns of the MACs figure
ABSTRACT_DEPTHS = (20, 25, 30, 35, 40, 45, 50)  # inferred: depths whose 40K networks the abstract may mean
UNSHARED = {"shared": False, "history": 1}  # the authors' un-factorised network: a convolution for each iteration
# Our own choice: the positions behind the paper's irregular points are not known. T = 20, from early to late pooling.
IRREGULAR = ([0, 1, 2, 3, 19], [1, 3, 5, 7, 19], [2, 5, 8, 11, 19], [5, 9, 13, 16, 19], [7, 11, 15, 17, 19])


def configuration(
    preset: str,
    options: dict[str, Any] | None = None,
    data: str = "cifar10",
    paper: Recipe = recipes.B,
    network: str = "thriftynet",
    *,
    headline: bool = False,
    **labels: str | int,
) -> Configuration:
    """A run from seed 0 of the 40K network (smoke: of one of 8 filters), as ``options`` and labels change it.

    ``paper`` is the recipe of the preset paper; the other presets have ours.
    """
    named = {OPTIONS.get(label, label): value for label, value in labels.items()}
    options = {name: value for name, value in named.items() if name in ThriftyNetOptions.model_fields} | (options or {})
    if network == "thriftynet":
        size = {"filters": 8} if preset == "smoke" else {"n_params": 40_000}
        size = {} if options.keys() & {"filters", "n_params"} else size
        options = (TINY if preset == "smoke" else {}) | size | options
    run = run_of(preset, network, options, data, smoke=recipes.SMOKE, fast=recipes.FAST, paper=paper)
    return Configuration(run, labels, headline)


@road("share", paper="thriftynet")
def ordinary(run: Run) -> Run | None:
    """The authors' un-factorised network of the same width: a convolution for each iteration, no history."""
    is_shared = run.network.options.get("shared")  # else it is that network, or a baseline
    return changed(run, "network", **UNSHARED, history_bug=False) if is_shared else run


@experiment(
    title="Accuracy against parameters, CIFAR-10", source="figure: CIFAR-10 accuracy against parameters (arXiv version)"
)
def size_cifar10(preset: str) -> list[Configuration]:
    """How does accuracy grow with width at depth 20, 30 and 40?

    paper: h = 5, schedule A. The plotted runs predate the fix of the history bug (inferred from the dates), so each
    point is trained as it was then and beside it with the fixed code.
    """
    codes, depths, widths = ("released", "fixed"), (20, 30, 40), (32, 64, 96, 128, 160, 192, 256)
    if preset == "smoke":
        codes, depths, widths = ("fixed",), (4, 5), (8, 12, 16)
    return [
        configuration(preset, {"history_bug": c == "released"}, paper=recipes.A, filters=f, iterations=T, code=c)
        for c, T, f in product(codes, depths, widths)
    ]


@experiment(
    title="Accuracy against parameters, SVHN", source="figure: SVHN accuracy against parameters (arXiv version)"
)
def size_svhn(preset: str) -> list[Configuration]:
    """How small can a network for house numbers be?

    paper: the widest network within each budget, h = 5, schedule B, no flip, train split only, after the history fix.
    """
    depths, budgets = (20, 30, 40), (2_000, 5_000, 8_000, 10_000, 15_000, 20_000, 40_000)
    if preset == "smoke":
        depths, budgets = (4, 5), (400, 600, 1_000)
    return [configuration(preset, data="svhn", budget=n, iterations=T) for T in depths for n in budgets]


@experiment(
    title="Accuracy against MACs, CIFAR-10",
    source="figure: CIFAR-10 accuracy against MMACs, regular and irregular pooling (arXiv version)",
)
def depth_macs(preset: str) -> list[Configuration]:
    """What do MACs buy at a fixed 40K parameters?

    paper: regular pooling at seven depths, schedule B; whether h is 1 or 5 is not stated, so both. Irregular pooling at
    T = 20 with positions of our own (the paper's are not known). The figure plots five runs per depth.
    """
    depths, histories = MACS_DEPTHS, (5, 1) if preset == "paper" else (5,)
    T, places = 20, IRREGULAR
    if preset == "smoke":
        depths, histories, T, places = (4, 5, 6), (3,), 5, ([0, 1], [1, 3], [2, 4])
    regular = [configuration(preset, pooling="regular", iterations=T, history=h) for h in histories for T in depths]
    how = {"pooling": "irregular", "iterations": T, "history": histories[0]}
    return regular + [configuration(preset, {"pool": p}, **how, pools=" ".join(map(str, p))) for p in places]


@experiment(
    title="Accuracy against the number of downsamplings, CIFAR-10",
    source="figure: CIFAR-10 accuracy against the number of downsamplings (arXiv version); authors' logs of May 2020",
)
def downsampling(preset: str) -> list[Configuration]:
    """How often should a network of 30 iterations halve its maps?

    paper: 40K and 60K, h = 5, schedule A, with the history bug that these runs certainly had. ``paper_label`` is what
    the figure calls a point: its "3" (period 7) really pools four times, like its "4", whose fifth pool, after the last
    iteration, merges with the global one. Without any (label 0, not plotted) training failed at times.
    """
    T, budgets, periods = 30, (40_000, 60_000), (40, 15, 10, 7, 6)
    if preset == "smoke":
        T, budgets, periods = 6, (500, 800), (7, 6, 3, 2)
    trained = partial(configuration, preset, {"history_bug": preset == "paper"}, paper=recipes.A)
    return [
        trained(budget=n, period=p, paper_label=label, poolings=(T - 1) // p, iterations=T)
        for n in budgets
        for label, p in enumerate(periods)
    ]


@experiment(title="The abstract's three numbers", source="abstracts of the arXiv and the MDPI version")
def abstract(preset: str) -> list[Configuration]:
    """Does a ThriftyNet reach the accuracy that the abstract states within the parameters that it states?

    Which networks it means was not available to us: each candidate is inferred. CIFAR-10: the depth bench's of 40K,
    schedule B (T = 20 also A), and that of the log with 91.01 %, of May 2020, with the history bug. CIFAR-100: the
    widest single blocks below 600K, and the two blocks of April 2020, schedule A with the bug. ImageNet: the widest
    block within 4.15M, at 32x32 pixels instead of 224x224, so not comparable.
    """
    cifar10 = partial(configuration, preset, statement="CIFAR-10")
    cifar100 = partial(configuration, preset, data="cifar100", statement="CIFAR-100")
    blocks = partial(cifar100, network="block-thriftynet", paper=recipes.A, candidate="two blocks")
    if preset == "smoke":
        small = {"filters": [8, 12], "iterations": [3, 3], "pool": [[2], [2]], "history": 3}
        return [cifar10(candidate="T=4"), cifar100({"n_params": 1_000}, candidate="single block"), blocks(small)]
    depths, histories = (ABSTRACT_DEPTHS, (5, 1)) if preset == "paper" else ((20, 30, 40, 50), (5,))
    grid = [cifar10({"iterations": T, "history": h}, candidate=f"T={T}, h={h}") for h in histories for T in depths]
    grid += [cifar100({"n_params": 600_000, "conv": c}, candidate=f"single block, {c}") for c in ("mb1", "classic")]
    grid += [blocks({"history_bug": True})]
    if preset == "fast":
        return grid
    imagenet = {"data": "imagenet32", "paper": recipes.IMAGENET, "statement": "ImageNet"}
    return [
        cifar10(paper=recipes.A, headline=True, candidate="T=20, h=5"),
        cifar10({"iterations": 30, "history_bug": True}, paper=recipes.A, candidate="T=30, h=5, history bug"),
        *grid,
        configuration(preset, {"n_params": 4_150_000}, **imagenet, candidate="single block at 32x32"),
    ]


@experiment(
    title="Depth, CIFAR-10",
    source="authors' bench scripts of June 2020 (T from 10 to 50, h of 1, 5 and T/5); no published numbers",
)
def depth(preset: str) -> list[Configuration]:
    """Does iterating longer help at a fixed 40K parameters, and does it need a longer history?

    paper: T from 10 to 50 in steps of 5 with h = 1, 5 and T/5, schedule B.
    """
    depths, histories = (range(4, 7), (1, 3)) if preset == "smoke" else (range(10, 55, 5), (1, 5))
    grid = [(T, h, str(h)) for h in histories for T in depths]
    grid += [(T, T // 5, "T/5") for T in depths if preset == "paper" and T // 5 not in histories]  # the rest is there
    return [configuration(preset, iterations=T, history=h, rule=rule) for T, h, rule in grid]


@experiment(
    title="Length of the history, CIFAR-10",
    source="authors' bench scripts of March 2020 (h from 1 to 30); no published numbers",
)
def history(preset: str) -> list[Configuration]:
    """How many past states should an iteration add up?

    paper: T = 30, 40K, schedule B. A control of ours: the authors' script used a classic convolution with f = 64 and
    the schedule and initial values of March; here everything but h is as in the 40K networks of July.
    """
    paper, fast = (*range(1, 11), 15, 20, 25, 30), (1, 2, 3, 5, 10, 30)
    T, lengths = {"smoke": (5, (1, 2, 3, 5)), "fast": (30, fast), "paper": (30, paper)}[preset]
    return [configuration(preset, {"iterations": T}, history=h) for h in lengths]


@experiment(
    title="Data augmentation, CIFAR-10",
    source="section 4.1, impact of data augmentation; authors' bench script of 3 July 2020",
)
def augmentation(preset: str) -> list[Configuration]:
    """Which data augmentation suits a network this small?

    paper: the 40K network of T = 20 with one more beside crop and flip, schedule C. ``autoaugment-released`` rotates,
    solarises, shifts and shears as the authors' code does, and ``cutout-defect`` draws its squares so. The paper's
    numbers were not available to us.
    """
    plain, grid = configuration(preset, paper=recipes.C).run, []
    for name, extra in recipes.EXTRA_AUGMENTATIONS.items():
        if preset == "smoke" and "autoaugment" in extra:  # its policy is for colours
            continue
        tiny = {"cutout": 2} if preset == "smoke" and "cutout" in extra else {}  # of 8x8 pixels
        recipe = augmented(plain.recipe, name, **extra | tiny) if extra else plain.recipe
        grid.append(Configuration(plain.model_copy(update={"recipe": recipe}), {"augmentation": name}))
    return grid


@experiment(title="Protocol audit, CIFAR-10", source="authors' code and logs, March to July 2020")
def protocol(preset: str) -> list[Configuration]:
    """Which of the choices behind the numbers matter, one changed at a time?

    The reference is the 40K network (mb1, T = 20, h = 5, fixed code) with schedule B. Schedule A lets the test loss
    steer the learning rate; C has its 200 epochs and no look at the test set. Beside them are two networks of the
    authors' logs with their own schedules, and, without published numbers, the un-factorised control and baselines.
    """
    size, width = ({"n_params": 500}, 12) if preset == "smoke" else ({}, 172)
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
        ("sharing", "un-factorised, same parameters", UNSHARED),
        ("sharing", "un-factorised, same width", UNSHARED | {"filters": width, "n_params": None}),
    ]
    audit = partial(configuration, preset)
    grid = [audit(size | options, aspect=aspect, variant=variant) for aspect, variant, options in changes]
    baselines = ("tiny-resnet", "tiny-densenet")[: 1 if preset == "smoke" else 2]
    grid += [audit(network=name, aspect="baseline", variant=name) for name in baselines]
    if preset != "paper":
        return grid
    classic = {"filters": 64, "conv": "classic"}
    bug = classic | {"iterations": 30, "history": 5, "history_bug": True, "norm": "shared"}  # trained badly
    # That day one coefficient served both terms: with the batch norm, the plain recursion.
    vanilla = classic | {"iterations": 14, "history": 1, "pool": 3, "activation": "relu", "recursion": "plain"}
    return [
        *grid,
        audit(paper=recipes.A, aspect="schedule", variant="plateau on test loss"),
        audit(paper=recipes.C, aspect="schedule", variant="steps, 200 epochs"),
        audit(bug, paper=recipes.SHARED_NORM, aspect="authors' log", variant="shared batch norm"),
        audit(vanilla, paper=recipes.VANILLA, aspect="authors' log", variant="vanillaC10"),
    ]
