"""Check that a claim refers to what exists: a name misspelt would leave it "not run" for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from thriftylib.datasets.facts import dataset_info
from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.counts import count_claims, load_counts
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.options import MethodOptions, NetworkOptions, find, suggest
from thriftylib.paths import results_dir
from thriftylib.spec import Recipe, Run


def check_claim(claim: Claim) -> list[str]:
    """What is wrong with a claim's references: names, option values, counts, and a configuration that answers it."""
    try:
        if claim.experiment is not None:
            experiment(claim.experiment)
        if claim.not_testable is not None:
            return []
        if faults := [fault for side in claim.sides for fault in _wrong_names(side)]:
            return faults
        if not claim.is_counted:
            return list(_unanswered(claim))
        if claim.mark != "COUNTED" and any(count not in _counts(results_dir()) for count in count_claims([claim])):
            return ["is not counted in data/results/counts.json as it is now; run thrifty cost --record"]
    except SpecError as error:
        return [str(error)]
    return []


@cache
def recipes() -> dict[str, Recipe]:
    """The recipes of all experiments by name, of a name the first."""
    grids = (each for shown in EXPERIMENTS.values() for each in shown.configurations("recorded"))
    named = [each.run.recipe for each in grids if each.run.recipe]
    return {recipe.name: recipe for recipe in reversed(named)}


_counts = cache(load_counts)


def _wrong_names(side: Setting) -> Iterator[str]:
    for name, epochs in side.recipes.items():
        if name not in recipes():
            yield f"unknown recipe {name!r}" + suggest(name, recipes())
        elif epochs != recipes()[name].epochs:
            yield f"recipe {name} has {recipes()[name].epochs} epochs, not {epochs}"
    dataset_info(side.dataset, to_count=True)
    asked = [(find(NetworkOptions, side.network), side.options | choice) for choice in side.any_of or [{}]]
    asked += [(find(MethodOptions, side.method), side.method_options)] if side.method else []
    for kind, options in asked:
        stored = kind.model_validate(options).model_dump(mode="json")
        for name, value in options.items():
            if json.dumps(stored.get(name, value)) != json.dumps(value):  # 8 is no 8.0
                yield f"{name} = {value!r}: must be {stored[name]!r}, as runs have it"


def _unanswered(claim: Claim) -> Iterator[str]:
    grid = experiment(claim.experiment).configurations("paper")
    for side in claim.sides:
        if not any(claim.id in each.claims and side.fits(each.run) for each in grid):
            nearest = min((_differences(side, each.run) for each in grid), key=len, default=["there is none"])
            yield f"no configuration of {claim.experiment} (paper) answers it; in the nearest {', '.join(nearest)}"


def _differences(side: Setting, run: Run) -> list[str]:
    """In what a run differs from a setting."""
    method = run.method.options if run.method else {}
    pairs: dict[str, tuple[Any, Any]] = {
        "network": (run.network.name, side.network),
        "dataset": (run.data.name, side.dataset),
        **{name: (getattr(run.data, name), getattr(side, name)) for name in ("label_noise", "scaling", "pixels")},
        "method": (run.method and run.method.name, side.method),
        "derived": (run.parent is not None, side.derived),
        "recipe": (run.recipe_name, run.recipe_name if side.has_recipe(run) else list(side.recipes)),
    }
    options = side.options | (side.any_of or [{}])[side.alternative(run)]
    pairs |= {key: (run.network.options.get(key), value) for key, value in options.items()}
    pairs |= {key: (method.get(key), value) for key, value in side.method_options.items()}
    return [f"{key} is {has!r} and not {wanted!r}" for key, (has, wanted) in pairs.items() if has != wanted]
