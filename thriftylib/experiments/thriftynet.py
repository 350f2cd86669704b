"""ThriftyNets' figures and abstract, and controls beyond them, as grids of runs.

The body text of the paper was not publicly readable, so figures are named by what they show. Where a network or recipe
behind a number is inferred, the experiment says so.

Names: T ``iterations``, f ``filters``, h ``history``; the pooling ``period`` is T/5 where nothing else is said. "40K"
is the widest network with at most 40,000 parameters. The 8x8 digits of the smoke grids can be halved three times.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.recipes import choose
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.spec import Data, Named, Recipe, Run

experiment = partial(register, paper="thriftynet")
TINY = {"iterations": 4, "pool": 2, "history": 3}  # for the digits
OPTIONS = {"budget": "n_params", "period": "pool"}  # labels that are options under another name
MACS_DEPTHS = (10, 15, 20, 30, 40, 45, 50)  # inferred: the depths whose MACs are the columns of the MACs figure
ABSTRACT_DEPTHS = (20, 25, 30, 35, 40, 45, 50)  # inferred: depths whose 40K networks the abstract may mean
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
    data, recipe = choose(preset, data, smoke=recipes.SMOKE, fast=recipes.FAST, paper=paper)
    named = {OPTIONS.get(label, label): value for label, value in labels.items()}
    options = {name: value for name, value in named.items() if name in ThriftyNetOptions.model_fields} | (options or {})
    if network == "thriftynet":
        size = {"filters": 8} if preset == "smoke" else {"n_params": 40_000}
        size = {} if options.keys() & {"filters", "n_params"} else size
        options = (TINY if preset == "smoke" else {}) | size | options
    run = Run(network=Named(name=network, options=options), data=Data(name=data), recipe=recipe)
    return Configuration(run, labels, headline)


@experiment(
    name="thriftynet-size-cifar10",
    title="Accuracy against parameters, CIFAR-10",
    source="figure: CIFAR-10 accuracy against parameters (arXiv version)",
)
def size_cifar10(preset: str) -> list[Configuration]:
    """How does accuracy grow with width at depth 20, 30 and 40?

    paper: f in 32..256 at each depth, h = 5, schedule A. The plotted runs predate the fix of the history bug (inferred
    from the dates), so each point is trained as it was then and beside it with the fixed code.
    """
    codes, depths, widths = ("released", "fixed"), (20, 30, 40), (32, 64, 96, 128, 160, 192, 256)
    if preset == "smoke":
        codes, depths, widths = ("fixed",), (4, 5), (8, 12, 16)
    return [
        configuration(preset, {"history_bug": c == "released"}, paper=recipes.A, filters=f, iterations=T, code=c)
        for c in codes
        for T in depths
        for f in widths
    ]


@experiment(
    name="thriftynet-size-svhn",
    title="Accuracy against parameters, SVHN",
    source="figure: SVHN accuracy against parameters (arXiv version)",
)
def size_svhn(preset: str) -> list[Configuration]:
    """How small can a network for house numbers be?

    paper: the widest network within each budget from 2K to 40K at depth 20, 30 and 40, h = 5, schedule B, no flip,
    train split only, after the history fix.
    """
    depths, budgets = (20, 30, 40), (2_000, 5_000, 8_000, 10_000, 15_000, 20_000, 40_000)
    if preset == "smoke":
        depths, budgets = (4, 5), (400, 600, 1_000)
    return [configuration(preset, data="svhn", budget=n, iterations=T) for T in depths for n in budgets]


@experiment(
    name="thriftynet-depth-macs",
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
    name="thriftynet-downsampling",
    title="Accuracy against the number of downsamplings, CIFAR-10",
    source="figure: CIFAR-10 accuracy against the number of downsamplings (arXiv version); authors' logs of May 2020",
)
def downsampling(preset: str) -> list[Configuration]:
    """How often should a network of 30 iterations halve its maps?

    paper: period 40, 15, 10, 7 and 6 at 40K and 60K, h = 5, schedule A, with the history bug that these runs certainly
    had. ``paper_label`` is what the figure calls a point: its "3" (period 7) really pools four times, like its "4",
    whose fifth pool, after the last iteration, merges with the global one. Without any (label 0, not plotted) training
    failed at times.
    """
    T, budgets, periods = 30, (40_000, 60_000), (40, 15, 10, 7, 6)
    if preset == "smoke":
        T, budgets, periods = 6, (500, 800), (7, 6, 3, 2)
    options = {"iterations": T, "history_bug": preset == "paper"}
    points = [
        {"budget": n, "period": p, "paper_label": label, "poolings": (T - 1) // p, "iterations": T}
        for n in budgets
        for label, p in enumerate(periods)
    ]
    return [configuration(preset, options, paper=recipes.A, **point) for point in points]


@experiment(
    name="thriftynet-abstract",
    title="The abstract's three numbers",
    source="abstracts of the arXiv and the MDPI version",
)
def abstract(preset: str) -> list[Configuration]:
    """Does a ThriftyNet reach the accuracy that the abstract states within the parameters that it states?

    Which networks the abstract means is not publicly readable, so each candidate is inferred. CIFAR-10: the 40K
    networks of the depth bench, T from 20 to 50 with h of 5 and 1, schedule B; that of T = 20 also with schedule A; and
    the network of May 2020 whose log shows 91.01 %, T = 30 with the history bug, schedule A. CIFAR-100: the widest
    single blocks below 600K, schedule B, and the two-block network of April 2020, with the history bug of that time,
    schedule A. ImageNet: the widest single block within 4.15M, at 32x32 pixels instead of 224x224, so not comparable.
    fast: only h = 5, at four depths.
    """
    cifar10 = partial(configuration, preset, statement="CIFAR-10")
    cifar100 = partial(configuration, preset, data="cifar100", statement="CIFAR-100")
    blocks = partial(cifar100, network="block-thriftynet", paper=recipes.A, candidate="two blocks")
    if preset == "smoke":
        small = {"filters": [8, 12], "iterations": [3, 3], "pool": [[2], [2]], "history": 3}
        single = cifar100({"n_params": 1_000}, candidate="single block")
        return [cifar10(candidate="T=4"), single, blocks(small)]
    depths, histories = (ABSTRACT_DEPTHS, (5, 1)) if preset == "paper" else ((20, 30, 40, 50), (5,))
    grid = [cifar10({"iterations": T, "history": h}, candidate=f"T={T}, h={h}") for h in histories for T in depths]
    grid += [cifar100({"n_params": 600_000, "conv": c}, candidate=f"single block, {c}") for c in ("mb1", "classic")]
    grid += [blocks({"history_bug": True})]
    if preset == "fast":
        return grid
    logged = {"iterations": 30, "history_bug": True}
    imagenet = {"data": "imagenet32", "paper": recipes.IMAGENET, "statement": "ImageNet"}
    return [
        cifar10(paper=recipes.A, headline=True, candidate="T=20, h=5"),
        cifar10(logged, paper=recipes.A, candidate="T=30, h=5, history bug"),
        *grid,
        configuration(preset, {"n_params": 4_150_000}, **imagenet, candidate="single block at 32x32"),
    ]
