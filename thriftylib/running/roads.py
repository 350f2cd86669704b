"""The papers' roads to a small network: each record and claim beside the ordinary network that it started from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from thriftylib.evidence.claims import SEEDS, Claim
from thriftylib.evidence.intervals import Estimate, estimate, subtract
from thriftylib.evidence.quantities import QUANTITIES
from thriftylib.evidence.records import Record
from thriftylib.experiments.base import EXPERIMENTS, ROADS, TAKEN, Configuration, Experiment
from thriftylib.running.collect import claim_of
from thriftylib.spec import Pixels

if TYPE_CHECKING:
    import pandas

ORDINARY = "ordinary"
_TEXTS = ("source", "dataset", "road", "paper", "network", "recipe", "preset", "started_from", "run", "start")
_NUMBERS = (
    *("n", "parameters", "macs", "accuracy", "low", "high", "best"),
    *("parameters_saved", "macs_saved", "gain", "gain_low", "gain_high"),
)


def roads(
    records: Iterable[Record], claims: Mapping[str, Claim], presets: Sequence[str] = ("paper", "fast")
) -> pandas.DataFrame:
    """One row per recorded network and recipe of the papers that take a road, and per test accuracy that they claim.

    Left out are data sets on which records show no two roads, nor one beside an ordinary network; runs on wrong labels
    or changed pixels; and claims of a pruned network whose size is neither stated nor recorded.

    Returns:
        Columns source (claimed, reproduced), dataset, road (``ORDINARY`` or one of ``ROADS``; categorical), paper,
        network, recipe, preset, the name of the network that it started_from, run and start (configurations of both);
        n (runs), parameters and macs (means over the kept networks), accuracy (percent, mean of the last epoch;
        claimed: as stated) with its 90 % interval low to high, best (the best epoch's mean), and against the start
        parameters_saved and macs_saved (percent) and the gain (points) from gain_low to gain_high. An interval needs
        three runs, of a gain on both sides.
    """
    import pandas

    found: dict[str, dict[int, Record]] = {}
    for record in records:
        if record.final_accuracy is not None:
            found.setdefault(record.run.configuration, {})[record.run.seed] = record
    names, reproduced, claimed = {}, {}, {}
    for shown, preset, each in _configurations(presets):
        run, start, runs = each.run, TAKEN[shown.paper][1](each.run), found.get(each.run.id, {})
        if start is None or run.data.label_noise or run.data.pixels != Pixels():
            continue
        names.setdefault(run.id, _name(each))
        road = ORDINARY if start.id == run.id else TAKEN[shown.paper][0]
        row = {
            "dataset": run.data.info.title,
            "road": road,
            "paper": shown.paper,
            "recipe": run.recipe_name,
            "preset": preset,
        }
        row |= {"run": run.id, "start": start.id, "_start": start}
        if runs and run.id not in reproduced:
            reproduced[run.id] = {**row, "source": "reproduced", **_means(runs)}
        claim = _own_claim(each, shown, claims)
        if claim and claim.id not in claimed and (place := _place(claim, each, claims, runs, road)):
            claimed[claim.id] = {**row, "source": "claimed", "n": claim.runs, "accuracy": claim.value, **place}
    stated = {row["run"]: row for row in claimed.values()}
    rows = [
        {**row, "network": names[row["run"]], **_against(row, sides.get(row["start"]), names)}
        for sides in (stated, reproduced)
        for row in sides.values()
    ]
    frame = pandas.DataFrame(rows, columns=[*_TEXTS, *_NUMBERS]).astype(dict.fromkeys(_NUMBERS, float))
    kinds = frame[frame["source"] == "reproduced"].groupby("dataset")["road"].nunique()
    frame = frame[frame["dataset"].isin(kinds.index[kinds > 1])]
    frame["road"] = pandas.Categorical(frame["road"], (ORDINARY, *ROADS))
    return frame.sort_values(
        ["dataset", "road", "paper", "recipe", "parameters", "network", "source"], ignore_index=True
    )


def _configurations(presets: Sequence[str]) -> Iterator[tuple[Experiment, str, Configuration]]:
    for shown, preset in product(EXPERIMENTS.values(), presets):
        for each in shown.configurations(preset) if shown.paper in TAKEN else ():
            yield shown, preset, each


def _name(each: Configuration) -> str:
    """The network with the labels that its paper's figures have, without what has a column of its own."""
    shown = {"dataset", *(row.name for row in QUANTITIES.values() if row.better)}
    labels = {name: value for name, value in each.labels.items() if name not in shown}
    texts = (value if isinstance(value, str) else f"{name} {value:g}" for name, value in labels.items())
    return f"{each.run.network.name}: {', '.join(dict.fromkeys(texts))}"


def _means(runs: Mapping[int, Record]) -> dict[str, Any]:
    values = {seed: record.final_accuracy for seed, record in runs.items()}
    best = statistics.fmean(record.best_accuracy for record in runs.values())
    ends = _interval("", estimate(list(values.values())))
    return {
        "n": len(runs),
        "values": values,
        "best": best,
        "accuracy": statistics.fmean(values.values()),
        **ends,
        **_kept(runs),
    }


def _kept(runs: Mapping[int, Record]) -> dict[str, float]:
    counts = [record.counted for record in runs.values()]
    return {name: statistics.fmean(getattr(each, name) for each in counts) for name in ("parameters", "macs")}


def _own_claim(each: Configuration, shown: Experiment, claims: Mapping[str, Claim]) -> Claim | None:
    """The test accuracy that the experiment's own figure states of one network; no log, no second-hand number."""
    claim = claim_of(each, shown, claims)
    if claim is None or claim.experiment != shown.name or claim.setting.any_of:
        return None
    return None if claim.mark in ("AUTHORS' LOG", "SECOND-HAND") else claim


def _place(
    claim: Claim, each: Configuration, claims: Mapping[str, Claim], runs: Mapping[int, Record], road: str
) -> dict[str, float]:
    """Parameters and MACs of a claimed network: in closed form; of a pruned one as stated, else as our runs left it."""
    if road != "prune" or each.run.method is None:
        return {name: getattr(each.run.cost, name) for name in ("parameters", "macs")}
    kept = {"kept_parameters": ("parameters", 1.0), "kept_macs": ("macs", 1e6)}
    same = [other for other in claims.values() if other.quantity in kept and other.setting == claim.setting]
    stated = {kept[other.quantity][0]: other.value * kept[other.quantity][1] for other in same}
    return (_kept(runs) if runs else {}) | stated


def _against(row: Mapping[str, Any], base: Mapping[str, Any] | None, names: Mapping[str, str]) -> dict[str, Any]:
    """What a network saves and gains against the one that it started from."""
    if row["road"] == ORDINARY:
        return {"started_from": ""}
    start = row["_start"]
    against = {"started_from": names.get(start.id, f"{start.network.name}, not recorded")}
    for name in ("parameters", "macs"):
        if name in row:
            against[f"{name}_saved"] = 100 - 100 * row[name] / getattr(start.cost, name)
    if base and "values" in row:
        found = subtract(row["values"], base["values"])
        against |= {"gain": found.mean, **_interval("gain_", found)}
    elif base:
        against["gain"] = row["accuracy"] - base["accuracy"]
    return against


def _interval(prefix: str, found: Estimate) -> dict[str, float]:
    if found.n < SEEDS:
        return {}
    return {f"{prefix}low": found.mean - found.half, f"{prefix}high": found.mean + found.half}
