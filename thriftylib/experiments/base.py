"""An experiment: one figure, table or statement of a paper as a grid of runs. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import getdoc

from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Claim, matches
from thriftylib.evidence.claims_files import Loaded, load_claims
from thriftylib.options import suggest
from thriftylib.paths import claims_dir
from thriftylib.spec import Recipe, Run

Label = str | int | float
Where = Mapping[str, Sequence[Label]]
"""The values of labels to keep, such as ``{"filters": (32, 64)}``."""

PRESETS = ("recorded", "smoke", "fast", "paper")
"""recorded: train nothing, show what is committed; smoke: digits, seconds; fast: our recipe; paper: the paper's."""


@dataclass(frozen=True)
class Configuration:
    """One point of a figure: a run from seed 0, the labels it is plotted by, and the claims that it answers.

    ``headline`` marks the runs that the rest of a paper rests on: a plan counts their claims double.
    """

    run: Run
    labels: Mapping[str, Label] = field(default_factory=dict)
    headline: bool = False
    claims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """One figure, table or statement of a paper.

    ``source`` says where the paper has it, ``question`` what it asks and how; ``grid`` gives the configurations of
    the presets that train (smoke, fast, paper).
    """

    name: str
    paper: str
    title: str
    source: str
    question: str
    grid: Callable[[str], list[Configuration]]

    def configurations(self, preset: str) -> list[Configuration]:
        """The grid of a preset, each with the claims that its run answers; ``recorded``: paper and fast together.

        Raises:
            SpecError: no such preset.
        """
        if preset not in PRESETS:
            raise SpecError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
        if preset != "recorded":
            return list(_configurations(self.name, preset))
        paper = _configurations(self.name, "paper")
        known = {configuration.run.id for configuration in paper}
        return [*paper, *(each for each in _configurations(self.name, "fast") if each.run.id not in known)]

    def runs(self, preset: str, seeds: list[int]) -> list[Run]:
        """Every run of a preset: seed by seed, so that a training cut short has the whole figure once."""
        return [configuration.run.with_seed(seed) for seed in seeds for configuration in self.configurations(preset)]


EXPERIMENTS: dict[str, Experiment] = {}
"""Every experiment by its name, in the order of the papers' modules."""


def register(
    *, name: str | None = None, paper: str, title: str, source: str
) -> Callable[[Callable[[str], list[Configuration]]], Experiment]:
    """Make a grid function an experiment; the function's docstring is the experiment's question.

    Without a ``name``, the paper's ``depth_macs`` is the experiment "<paper>-depth-macs".
    """

    def decorate(grid: Callable[[str], list[Configuration]]) -> Experiment:
        known_as = name or f"{paper}-{grid.__name__}".replace("_", "-")
        EXPERIMENTS[known_as] = Experiment(known_as, paper, title, source, getdoc(grid) or "", grid)
        return EXPERIMENTS[known_as]

    return decorate


ROADS = ("prune", "share", "over-parameterise")
"""The roads to a small network: channels or neurons removed; kernels used again; more weights while training alone."""

Ordinary = Callable[[Run], Run | None]
TAKEN: dict[str, tuple[str, Ordinary]] = {}
"""The road that each paper takes, and from which run each of its runs started: see :func:`road`."""


def road(word: str, *, paper: str) -> Callable[[Ordinary], Ordinary]:
    """Say which of ``ROADS`` a paper takes, by a function that gives the ordinary network that a run started from.

    The function takes a run of the paper's grids and returns the same run of the ordinary network, with its data,
    recipe and seed; the run itself where its network is ordinary; None where it is neither, as an intermediate one is.

    Raises:
        SpecError: no such road; names the known ones.
    """
    if word not in ROADS:
        raise SpecError(f"paper {paper}: unknown road {word!r}" + suggest(word, ROADS))

    def decorate(ordinary: Ordinary) -> Ordinary:
        TAKEN[paper] = word, ordinary
        return ordinary

    return decorate


def experiment(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        SpecError: no such experiment; names the known ones.
    """
    if name not in EXPERIMENTS:
        raise SpecError(f"unknown experiment {name!r}" + suggest(name, EXPERIMENTS))
    return EXPERIMENTS[name]


def select(
    chosen: Experiment, preset: str, where: Where | None = None, epochs: int | None = None
) -> list[Configuration]:
    """The configurations of a preset that ``where`` keeps, with ``epochs`` in place of the recipe's own.

    What its method cannot do in so many epochs is left out.

    Raises:
        SpecError: no such label, or no configuration has such a value.
    """
    kept = chosen.configurations(preset)
    family = {each.run.id: each.run for each in kept} if epochs is not None else {}
    for label, values in (where or {}).items():
        if label not in (known := {name for each in kept for name in each.labels}):
            raise SpecError(f"experiment {chosen.name} has no label {label!r}" + suggest(label, known))
        there = list(dict.fromkeys(each.labels[label] for each in kept if label in each.labels))
        kept = [each for each in kept if each.labels.get(label) in values]
        if not kept:
            raise SpecError(f"{label} = {list(values)}: experiment {chosen.name} ({preset}) has {there}")
    if epochs is None:
        return kept
    changed = [replace(each, run=_shortened(each.run, epochs, family), claims=()) for each in kept]
    return [each for each in changed if _can_be(each.run)]


def _can_be(run: Run) -> bool:
    """Whether a run of changed length still can be: its method may have a phase that would begin after the end."""
    try:
        return bool(Run.model_validate(run.model_dump()))
    except SpecError:
        return False


def _shortened(run: Run, epochs: int, family: Mapping[str, Run]) -> Run:
    """Another length is another recipe: it must not pass for the one that a claim names. So it is for the parent."""
    changed = recipe = run.recipe
    if recipe is not None:
        name = f"{recipe.name}-{epochs}-epochs"
        changed = Recipe.model_validate({**recipe.model_dump(), "epochs": epochs, "name": name})
    parent = _shortened(family[run.parent], epochs, family).id if run.parent else None
    return run.model_copy(update={"recipe": changed, "parent": parent})


@cache
def _configurations(name: str, preset: str) -> tuple[Configuration, ...]:
    def answered(run: Run) -> tuple[str, ...]:
        asking = _claims().get((run.network.name, run.data.name, run.recipe and run.recipe.name), ())
        return tuple(claim.id for claim in asking if matches(claim, run))

    return tuple(replace(each, claims=answered(each.run)) for each in EXPERIMENTS[name].grid(preset))


@cache
def known_claims() -> Loaded[Claim]:
    """Every claim by its id, read once."""
    return load_claims(claims_dir())


@cache
def _claims() -> Mapping[tuple[str, str, str | None], list[Claim]]:
    """The claims that a training can answer, by network, data set and recipe (None: measure only) of their sides."""
    found: dict[tuple[str, str, str | None], list[Claim]] = {}
    for claim in known_claims().values():
        sides = () if claim.is_counted else claim.sides
        kinds = [(side.network, side.dataset, recipe) for side in sides for recipe in side.recipes or (None,)]
        for kind in dict.fromkeys(kinds):
            found.setdefault(kind, []).append(claim)
    return found
