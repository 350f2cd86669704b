"""ThriftyNets' figures and abstract as grids of runs.

The body text of the paper was not publicly readable, so figures are named by what they show. Where a network or recipe
behind a number is inferred, the experiment says READING.

Names: T ``iterations``, f ``filters``, h ``history``; the pooling ``period`` is T/5 where nothing else is said. "40K"
is the widest network with at most 40,000 parameters. The 8x8 digits of the smoke grids can be halved three times.
"""

from __future__ import annotations

from typing import Any

from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.spec import Data, Named, Recipe, Run

PAPER = "thriftynet"
SIZES = (32, 64, 96, 128, 160, 192, 256)  # f of the CIFAR-10 size figure
SVHN_BUDGETS = (2_000, 5_000, 8_000, 10_000, 15_000, 20_000, 40_000)
DEPTHS = (20, 30, 40)  # T of both size figures
MACS_DEPTHS = (10, 15, 20, 30, 40, 45, 50)  # READING: the depths whose MACs are the columns of the MACs figure
ABSTRACT_DEPTHS = (20, 25, 30, 35, 40, 45, 50)  # READING: depths whose 40K networks the abstract may mean
DEPTHS_OF_TEN = (20, 30, 40, 50)
BUDGET = 40_000
# Our own choice: the positions behind the paper's irregular points are not known. T = 20, from early to late pooling.
IRREGULAR = ([0, 1, 2, 3, 19], [1, 3, 5, 7, 19], [2, 5, 8, 11, 19], [5, 9, 13, 16, 19], [7, 11, 15, 17, 19])


def configuration(
    options: dict[str, Any], data: str, recipe: Recipe, network: str = "thriftynet", headline: bool = False, **labels
) -> Configuration:
    """One configuration from seed 0; whatever else is given is a label."""
    run = Run(network=Named(name=network, options=options), data=Data(name=data), recipe=recipe)
    return Configuration(run, labels, headline)


def tiny(
    recipe: Recipe = recipes.SMOKE, network: str = "thriftynet", options: dict[str, Any] | None = None, **labels
) -> Configuration:
    """A smoke run on digits: 8 filters, 4 iterations, 2 poolings, a history of 3, unless ``options`` say otherwise."""
    small = {"filters": 8, "iterations": 4, "pool": 2, "history": 3} if network == "thriftynet" else {}
    merged = small | (options or {})
    if merged.get("n_params"):
        del merged["filters"]
    return configuration(merged, "digits", recipe, network, **labels)


def forty_k(iterations: int, history: int, **options: Any) -> dict[str, Any]:
    """The options of the 40K network of that depth and history."""
    return {"n_params": BUDGET, "iterations": iterations, "history": history, **options}


@register(
    name="thriftynet-size-cifar10",
    paper=PAPER,
    title="Accuracy against parameters, CIFAR-10",
    source="figure: CIFAR-10 accuracy against parameters (arXiv version)",
)
def size_cifar10(preset: str) -> list[Configuration]:
    """How does accuracy grow with width at depth 20, 30 and 40?

    paper: f in 32..256 at each depth, h = 5, schedule A. The plotted runs predate the fix of the history bug (READING
    from the dates), so each point is trained as it was then and beside it with the fixed code.
    """
    if preset == "smoke":
        return [
            tiny(options={"filters": f, "iterations": T}, filters=f, iterations=T, code="fixed")
            for T in (4, 5)
            for f in (8, 12, 16)
        ]
    recipe = recipes.A if preset == "paper" else recipes.FAST
    return [
        configuration(
            {"filters": f, "iterations": T, "history": 5, "history_bug": code == "released"},
            "cifar10",
            recipe,
            filters=f,
            iterations=T,
            code=code,
        )
        for code in ("released", "fixed")
        for T in DEPTHS
        for f in SIZES
    ]


@register(
    name="thriftynet-size-svhn",
    paper=PAPER,
    title="Accuracy against parameters, SVHN",
    source="figure: SVHN accuracy against parameters (arXiv version)",
)
def size_svhn(preset: str) -> list[Configuration]:
    """How small can a network for house numbers be?

    paper: the widest network within each budget from 2K to 40K at depth 20, 30 and 40, h = 5, schedule B, no flip,
    train split only, after the history fix.
    """
    if preset == "smoke":
        return [
            tiny(options={"n_params": n, "iterations": T}, budget=n, iterations=T)
            for T in (4, 5)
            for n in (400, 600, 1_000)
        ]
    recipe = recipes.B_SVHN if preset == "paper" else recipes.FAST_SVHN
    return [
        configuration({"n_params": n, "iterations": T, "history": 5}, "svhn", recipe, budget=n, iterations=T)
        for T in DEPTHS
        for n in SVHN_BUDGETS
    ]


@register(
    name="thriftynet-depth-macs",
    paper=PAPER,
    title="Accuracy against MACs, CIFAR-10",
    source="figure: CIFAR-10 accuracy against MMACs, regular and irregular pooling (arXiv version)",
)
def depth_macs(preset: str) -> list[Configuration]:
    """What do MACs buy at a fixed 40K parameters?

    paper: regular pooling at seven depths, schedule B; whether h is 1 or 5 is not stated, so both. Irregular pooling at
    T = 20 with positions of our own (the paper's are not known). The figure plots five runs per depth.
    """
    if preset == "smoke":
        regular = [tiny(options={"iterations": T}, pooling="regular", iterations=T, history=3) for T in (4, 5, 6)]
        irregular = [
            tiny(
                options={"iterations": 5, "pool": pool}, pooling="irregular", iterations=5, history=3, pools=_text(pool)
            )
            for pool in ([0, 1], [1, 3], [2, 4])
        ]
        return regular + irregular
    recipe = recipes.B if preset == "paper" else recipes.FAST
    regular = [
        configuration(forty_k(T, h), "cifar10", recipe, pooling="regular", iterations=T, history=h)
        for h in ((5, 1) if preset == "paper" else (5,))
        for T in MACS_DEPTHS
    ]
    irregular = [
        configuration(
            forty_k(20, 5, pool=pool),
            "cifar10",
            recipe,
            pooling="irregular",
            iterations=20,
            history=5,
            pools=_text(pool),
        )
        for pool in IRREGULAR
    ]
    return regular + irregular


@register(
    name="thriftynet-downsampling",
    paper=PAPER,
    title="Accuracy against the number of downsamplings, CIFAR-10",
    source="figure: CIFAR-10 accuracy against the number of downsamplings (arXiv version); authors' logs of May 2020",
)
def downsampling(preset: str) -> list[Configuration]:
    """How often should a network of 30 iterations halve its maps?

    paper: period 40, 15, 10, 7 and 6 at 40K and 60K, h = 5, schedule A, with the history bug that these runs certainly
    had. ``paper_label`` is what the figure calls a point: its "3" (period 7) really pools four times, like its "4",
    whose fifth pooling comes after the last iteration. Without any pooling (label 0, not plotted) training failed at
    times.
    """
    if preset == "smoke":
        return [
            tiny(
                options={"n_params": n, "iterations": 6, "pool": p},
                budget=n,
                period=p,
                paper_label=6 // p,
                poolings=_poolings(p, 6),
                iterations=6,
            )
            for n in (500, 800)
            for p in (7, 6, 3, 2)
        ]
    recipe, bug = (recipes.A, True) if preset == "paper" else (recipes.FAST, False)
    return [
        configuration(
            {"n_params": n, "iterations": 30, "history": 5, "history_bug": bug, "pool": p},
            "cifar10",
            recipe,
            budget=n,
            period=p,
            paper_label=label,
            poolings=_poolings(p, 30),
            iterations=30,
        )
        for n in (40_000, 60_000)
        for label, p in enumerate((40, 15, 10, 7, 6))
    ]


@register(
    name="thriftynet-abstract",
    paper=PAPER,
    title="The abstract's three numbers",
    source="abstracts of the arXiv and the MDPI version",
)
def abstract(preset: str) -> list[Configuration]:
    """Does a ThriftyNet reach the accuracy that the abstract states within the parameters that it states?

    Which networks the abstract means is not publicly readable, so each candidate is a READING: for CIFAR-10 the 40K
    networks of the depth bench, T from 20 to 50 with h of 5 and 1, schedule B; that of T = 20 also with schedule A; and
    the network of May 2020 whose log shows 91.01 %, T = 30 with the history bug, schedule A. For CIFAR-100 the widest
    single blocks below 600K, schedule B, and the two-block network of April 2020, with the history bug of that time,
    schedule A; for ImageNet the widest single block within 4.15M, at 32x32 pixels instead of 224x224, so not
    comparable. fast: only h = 5, at four depths.
    """
    if preset == "smoke":
        return [
            tiny(statement="CIFAR-10", candidate="T=4"),
            tiny(options={"n_params": 1_000}, statement="CIFAR-100", candidate="single block"),
            tiny(
                network="block-thriftynet",
                options={"filters": [8, 12], "iterations": [3, 3], "pool": [[2], [2]], "history": 3},
                statement="CIFAR-100",
                candidate="two blocks",
            ),
        ]
    recipe, april = (recipes.B, recipes.A) if preset == "paper" else (recipes.FAST, recipes.FAST)
    depths, histories = (ABSTRACT_DEPTHS, (5, 1)) if preset == "paper" else (DEPTHS_OF_TEN, (5,))
    cifar10 = [
        configuration(forty_k(T, h), "cifar10", recipe, statement="CIFAR-10", candidate=f"T={T}, h={h}")
        for h in histories
        for T in depths
    ]
    if preset == "paper":
        first = configuration(
            forty_k(20, 5), "cifar10", april, headline=True, statement="CIFAR-10", candidate="T=20, h=5"
        )
        bugged = forty_k(30, 5, history_bug=True)
        logged = configuration(bugged, "cifar10", april, statement="CIFAR-10", candidate="T=30, h=5, history bug")
        cifar10 = [first, logged, *cifar10]
    single = {"n_params": 600_000, "iterations": 20, "history": 5}
    cifar100 = [
        configuration(single, "cifar100", recipe, statement="CIFAR-100", candidate="single block, mb1"),
        configuration(
            single | {"conv": "classic"}, "cifar100", recipe, statement="CIFAR-100", candidate="single block, classic"
        ),
        configuration(
            {"history_bug": True}, "cifar100", april, "block-thriftynet", statement="CIFAR-100", candidate="two blocks"
        ),
    ]
    imagenet = [
        configuration(
            {"n_params": 4_150_000, "iterations": 20, "history": 5},
            "imagenet32",
            recipes.IMAGENET,
            statement="ImageNet",
            candidate="single block at 32x32",
        )
    ]
    return cifar10 + cifar100 + (imagenet if preset == "paper" else [])


def _poolings(period: int, iterations: int) -> int:
    """Effective ones: a pooling after the last iteration merges with the global max-pool."""
    return sum(t % period == period - 1 for t in range(iterations - 1))


def _text(pools: list[int]) -> str:
    return " ".join(map(str, pools))
