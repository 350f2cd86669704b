"""An experiment: one figure, table or statement of a paper as a grid of runs. No torch until a grid is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import getdoc

from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Claim, matches
from thriftylib.evidence.claims_files import load_claims
from thriftylib.options import suggest
from thriftylib.paths import claims_dir
from thriftylib.spec import Recipe, Run

Where = Mapping[str, Sequence[str | int | float]]
"""The values of labels to keep, such as ``{"filters": (32, 64)}``."""

PRESETS = ("recorded", "smoke", "fast", "paper")
"""recorded: train nothing, show what is committed; smoke: digits, seconds; fast: our recipe; paper: the authors'."""


@dataclass(frozen=True)
class Configuration:
    """One point of a figure: a run from seed 0, the labels it is plotted by, and the claims that it answers.

    ``headline`` marks the runs that the rest of a paper stands on: a plan counts their claims double.
    """

    run: Run
    labels: Mapping[str, str | int | float] = field(default_factory=dict)
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
        return list(_configurations(self.name, preset))

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

    Raises:
        SpecError: no such label, or no configuration has such a value.
    """
    configurations = chosen.configurations(preset)
    for label, values in (where or {}).items():
        known = {key for configuration in configurations for key in configuration.labels}
        if label not in known:
            raise SpecError(f"experiment {chosen.name} has no label {label!r}" + suggest(label, known))
        there = list(
            dict.fromkeys(
                configuration.labels[label] for configuration in configurations if label in configuration.labels
            )
        )
        configurations = [
            configuration for configuration in configurations if configuration.labels.get(label) in values
        ]
        if not configurations:
            raise SpecError(f"{label} = {list(values)}: experiment {chosen.name} ({preset}) has {there}")
    if epochs is None:
        return configurations
    family = {configuration.run.id: configuration.run for configuration in chosen.configurations(preset)}
    return [
        replace(configuration, run=_shortened(configuration.run, epochs, family), claims=())
        for configuration in configurations
    ]


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
    if preset == "recorded":
        return _configurations(name, "paper") + _configurations(name, "fast")
    claims = _claims()
    return tuple(
        replace(configuration, claims=tuple(claim.id for claim in claims if matches(claim, configuration.run)))
        for configuration in EXPERIMENTS[name].grid(preset)
    )


@cache
def _claims() -> tuple[Claim, ...]:
    """The claims that a training can answer; counts need none."""
    return tuple(claim for claim in load_claims(claims_dir()).values() if not claim.is_counted)
