"""From an experiment's table, records and claims to the tidy frames that figures draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.intervals import Estimate, Side, subtract
from thriftylib.evidence.records import Record

_GAINS = ["source", "panel", "row", "recipe", "difference", "low", "high", "n", "claim"]


def accuracies(
    table: pd.DataFrame,
    claims: Mapping[str, Claim],
    *,
    x: str | None = None,
    keep: Sequence[str] = (),
    variant: str | None = None,
    single_runs: bool = False,
    protocol: str = "best",
    by_recipe: bool = False,
    **names: str,
) -> pd.DataFrame:
    """Claimed accuracies, then one row per run, from an experiment's table (``experiments.collect``).

    Args:
        x: the column of the x axis; ``mmacs`` is the authors' count of MACs in millions. Where the paper states it for
            the same network, a claimed point is where the paper has it.
        keep: further columns for the figure.
        variant: a label that sets runs of the paper's recipe apart from those that answer its claims, such as ``code``.
        single_runs: claimed are each run of a claim where the paper shows them, not their mean.
        protocol: which epoch's test accuracy is reproduced: the ``best``, as the papers draw it, or the ``final`` one.
        by_recipe: every run has its recipe's own name; else ``paper`` for those of the paper's, and the preset's name.
        names: columns that hold texts of others, such as ``series="T = {iterations}"``.

    Returns:
        Columns source (claimed, reproduced or pending), ``names``, ``x``, ``keep``, accuracy (percent), recipe,
        seed and run; of claimed ones ``error``, how far they may be off, and without an x axis ``spread``, as stated;
        and the id of the claim that is shown or answered.
    """
    table = _named(table.assign(mmacs=table["ptflops_macs"] / 1e6) if x == "mmacs" else table, names)
    hidden = ("AUTHORS' LOG",) if x else ()
    own = [_own(*pair, claims, hidden) for pair in zip(table["claim"], table["experiment"], strict=True)]
    places, error = [*names, *([x] if x else []), *keep], "error" if x else "spread"
    claimed = []
    for row, claim in zip(table[places].to_dict("records"), own, strict=True):
        if claim and claim.id not in {each["claim"] for each in claimed}:
            same = {**row, "claim": claim.id, error: claim.reading_error if x else claim.stated_spread}
            if x:
                same[x] = _stated_place(claim, claims, x, row[x])
            values = claim.values if single_runs and claim.values else (claim.value,)
            claimed += [{**same, "source": "claimed", "accuracy": value} for value in values]
    recipes = table["recipe"]
    if not by_recipe:
        rows = zip(table.to_dict("records"), own, strict=True)
        recipes = [_recipe(row, claim is not None, variant) for row, claim in rows]
    source = table["status"].map({"missing": "pending"}).fillna("reproduced")
    shown = {"accuracy": table[f"{protocol}_accuracy"], "claim": [claim.id if claim else None for claim in own]}
    runs = table.assign(source=source, recipe=recipes, **shown)
    columns = list(dict.fromkeys(["source", *places, "accuracy", error, "recipe", "seed", "run", "claim"]))
    return from_experiments(stack(pd.DataFrame(claimed, columns=columns), runs.reindex(columns=columns)), table)


def claimed_at(claims: Mapping[str, Claim], group: str, *, x: str, series: str) -> pd.DataFrame:
    """The claims of a group (``paper/group``) whose networks are not known, where the figure has them."""
    chosen = [claim for key, claim in claims.items() if key.startswith(f"{group}/") and claim.at is not None]
    rows = [("claimed", series, claim.at, claim.value, claim.reading_error, claim.id) for claim in chosen]
    return pd.DataFrame(rows, columns=["source", "series", x, "accuracy", "error", "claim"])


def gains(
    table: pd.DataFrame,
    claims: Mapping[str, Claim],
    *,
    row: str,
    panel: str,
    against: Mapping[str, str],
    by: Sequence[str] = (),
    protocol: str = "best",
) -> pd.DataFrame:
    """Each row's difference from its reference, with the 90 % interval of ``evidence.intervals``.

    Args:
        row, panel: what rows and panels of the figure are called, such as ``"{model}"``; any column may be named.
        against: the labels of the reference rows, such as ``{"model": "SmallNet"}``, of the same recipe.
        by: the labels in which a row and its reference agree.
        protocol: which epoch's test accuracy is compared: the ``best``, or the ``final`` one.

    Returns:
        Columns source, panel, row, recipe, difference (points), low, high (its interval), n, runs of the side that
        has fewer, and the row's claim. A claimed interval is that of the two spreads which the paper states.
    """
    table = _named(table, {"row": row, "panel": panel})
    is_reference = np.logical_and.reduce([table[label] == value for label, value in against.items()])
    references = dict(iter(table[is_reference].groupby(["recipe", *by])))
    found, claimed = [], {}
    for key, some in table[~is_reference].groupby(["recipe", *by, "panel", "row"], sort=False):
        sides = some, references[key[: 1 + len(by)]]
        place = {"panel": key[-2], "row": key[-1]}
        column = f"{protocol}_accuracy"
        runs = [side.dropna(subset=[column]).set_index("seed")[column].to_dict() for side in sides]
        measured = {"source": "reproduced", **_interval(subtract(*runs))} if all(runs) else {"source": "pending"}
        one, other = (_own(*side[["claim", "experiment"]].iloc[0], claims) for side in sides)
        place["claim"] = one.id if one else None
        found.append({**place, "recipe": key[0], **measured})
        if one and other:
            claimed[key[-2:]] = {**place, "source": "claimed", **_interval(_stated(one, other))}
    frame = pd.DataFrame([*claimed.values(), *found], columns=_GAINS)
    return from_experiments(frame.astype(dict.fromkeys(("difference", "low", "high", "n"), float)), table)


def differences(
    table: pd.DataFrame, *, aspect: str, variant: str, reference: str, protocol: str = "best"
) -> pd.DataFrame:
    """Each variant against the reference, pair by pair: same preset, same seed. One row per pair and change.

    ``aspect`` and ``variant`` are labels of the table; ``reference`` is the aspect of the runs that all others are
    compared with. Before them is what the same reference runs lose when the last epoch counts, not the best.

    Returns:
        Columns source (reproduced or pending), change, preset, seed, reference and changed (accuracies in percent),
        difference (points).
    """
    column = f"{protocol}_accuracy"
    own = table[table[aspect] == reference]
    ends = own.assign(change="last epoch, not best", reference=own["best_accuracy"], changed=own["final_accuracy"])
    names = table[aspect] + ": " + table[variant]
    others = table[table[aspect] != reference].assign(change=names, changed=table[column])
    base = own[["preset", "seed", column]].rename(columns={column: "reference"})
    rows = pd.concat([ends, others.merge(base, on=["preset", "seed"], how="left")], ignore_index=True)
    rows = rows.assign(difference=rows["changed"] - rows["reference"])
    rows["source"] = np.where(rows["difference"].isna(), "pending", "reproduced")
    columns = ["source", "change", "preset", "seed", "reference", "changed", "difference"]
    return from_experiments(rows[columns], table)


def measured_lists(
    records: Sequence[Record], table: pd.DataFrame, *, prefix: str, keep: Sequence[str] = ()
) -> pd.DataFrame:
    """Every number of the lists that the runs of a table measured under names that begin with ``prefix``.

    Returns:
        Columns ``keep`` of the table, seed, name (without the prefix), place in the list from 0, value, and tied:
        whether all numbers of the list are equal.
    """
    by_id = {record.id: record for record in records}
    columns = [*keep, "seed", "name", "place", "value", "tied"]
    rows = [
        (*(row[label] for label in keep), row["seed"], name.removeprefix(prefix), place, value, len(set(values)) == 1)
        for row in table.drop_duplicates("run").to_dict("records")
        if row["run"] in by_id
        for name, values in by_id[row["run"]].measured.items()
        if name.startswith(prefix) and isinstance(values, tuple | list)
        for place, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=columns)


def stack(*frames: pd.DataFrame) -> pd.DataFrame:
    """Frames one below the other, the columns of the first, where an empty frame says nothing about types."""
    columns = list(frames[0].columns)
    there = [frame.dropna(axis="columns", how="all") for frame in frames if len(frame)]
    stacked = pd.concat(there, ignore_index=True).reindex(columns=columns) if there else frames[0].copy()
    names = [name for frame in frames for name in frame.attrs.get("experiments", ())]
    stacked.attrs = {"experiments": tuple(dict.fromkeys(names))} if names else {}
    return stacked


def from_experiments(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The same frame, whose attribute ``experiments`` names those of the table that it was made from."""
    frame.attrs = {"experiments": tuple(dict.fromkeys(table["experiment"]))} if "experiment" in table else {}
    return frame


def _named(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    rows = table.to_dict("records")
    return table.assign(**{name: [text.format(**row) for row in rows] for name, text in names.items()})


def _own(key: str | None, experiment: str, claims: Mapping[str, Claim], hidden: Sequence[str] = ()) -> Claim | None:
    """The claim where it is this experiment's own, not another figure's, and not of a ``hidden`` mark."""
    found = claims.get(key)
    return found if found and found.experiment == experiment and found.mark not in hidden else None


def _stated_place(claim: Claim, claims: Mapping[str, Claim], x: str, counted: float) -> float:
    """Where the paper has a point on the x axis; else where our count puts it."""
    quantity = {"mmacs": "ptflops_macs"}.get(x, x)
    sides = [(other.setting, other.value) for other in claims.values() if other.quantity == quantity and other.setting]
    at = [
        value for side, value in sides if (side.network, side.options) == (claim.setting.network, claim.setting.options)
    ]
    return at[0] if at else counted


def _recipe(row: Mapping[str, object], is_stated: bool, variant: str | None) -> str:
    if row["preset"] != "paper" or row["recipe"].endswith("-epochs"):
        length = row["recipe"].rsplit("-", 2)[1] if row["recipe"].endswith("-epochs") else ""
        return f"{row['preset']}, {length} epochs" if length else str(row["preset"])
    return f"{row[variant]} {variant}" if variant and not is_stated else "paper"


def _stated(ours: Claim, theirs: Claim) -> Estimate:
    """The difference of two stated means, with the variances that the paper's spreads give."""
    spreads = [claim.known_spread for claim in (ours, theirs)]
    sides = tuple(Side(spread.deviation**2, spread.runs) for spread in spreads if spread)
    is_known = len(sides) == 2
    n = min(side.runs for side in sides) if is_known else 1
    return Estimate(ours.value - theirs.value, sides if is_known else (), n)


def _interval(found: Estimate) -> dict[str, float]:
    half = math.nan if found.half is None else found.half
    return {"difference": found.mean, "low": found.mean - half, "high": found.mean + half, "n": found.n}
