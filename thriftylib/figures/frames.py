"""From an experiment's table, records and claims to the points that a figure draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.records import Record


def points(
    table: pd.DataFrame,
    claims: Mapping[str, Claim],
    *,
    x: str,
    series: str,
    keep: Sequence[str] = (),
    variant: str | None = None,
    single_runs: bool = False,
    protocol: str = "best",
    is_reading: bool = False,
) -> pd.DataFrame:
    """The points of a figure, claimed ones first, from an experiment's table (``experiments.collect``).

    Args:
        x: the column of the x axis; ``mmacs`` is the authors' count of MACs in millions. Where the paper states it for
            the same network, a claimed point stands where the paper has it.
        series: what a line is called, such as ``"T = {iterations}"``; any column may be named.
        keep: further columns for the figure.
        variant: a label that sets runs of the paper's recipe apart from those that answer its claims, such as ``code``.
        single_runs: draw each run of a claim where the paper shows them, not their mean.
        protocol: which epoch's test accuracy is ours: the ``best``, as the papers draw it, or the ``final`` one.
        is_reading: the paper's recipe is not known, so that every run is told by its recipe's own name.

    Returns:
        Columns source, series, ``x``, x_error, ``keep``, accuracy, error (percent), recipe, seed and run.
    """
    table = table.assign(mmacs=table["ptflops_macs"] / 1e6)
    table = table.assign(series=[series.format(**row) for row in table.to_dict("records")])
    stated = [_is_of(claims.get(key), name) for key, name in zip(table["claim"], table["experiment"], strict=True)]
    claimed = []
    for row in table[stated].drop_duplicates("claim").to_dict("records"):
        claim = claims[row["claim"]]
        place, x_error = _place(claim, claims, x, row[x])
        same = {key: row[key] for key in keep} | {
            "source": "claimed",
            "series": row["series"],
            x: place,
            "x_error": x_error,
        }
        for value in claim.values if single_runs and claim.values else (claim.value,):
            claimed.append({**same, "accuracy": value, "error": claim.reading_error})
    ours = pd.DataFrame(
        {
            "source": table["status"].map({"missing": "wanted"}).fillna("ours"),
            **{key: table[key] for key in dict.fromkeys(("series", x, *keep))},
            "accuracy": table[f"{protocol}_accuracy"],
            "recipe": table["recipe"]
            if is_reading
            else [
                _recipe(row, bool(is_stated), variant)
                for row, is_stated in zip(table.to_dict("records"), stated, strict=True)
            ],
            "seed": table["seed"],
            "run": table["run"],
        }
    )
    columns = list(
        dict.fromkeys(("source", "series", x, "x_error", *keep, "accuracy", "error", "recipe", "seed", "run"))
    )
    return stack(pd.DataFrame(claimed, columns=columns), ours)


def claimed_at(claims: Mapping[str, Claim], group: str, *, x: str, series: str) -> pd.DataFrame:
    """The claims of a group (``paper/group``) whose networks are not known, where the figure has them."""
    chosen = [claim for key, claim in claims.items() if key.startswith(f"{group}/") and claim.at is not None]
    rows = [
        {"source": "claimed", "series": series, x: claim.at, "accuracy": claim.value, "error": claim.reading_error}
        for claim in chosen
    ]
    return pd.DataFrame(rows, columns=["source", "series", x, "accuracy", "error"])


def differences(
    table: pd.DataFrame, *, aspect: str, variant: str, reference: str, protocol: str = "best"
) -> pd.DataFrame:
    """Each variant against the reference, pair by pair: same preset, same seed. One row per pair and change.

    ``aspect`` and ``variant`` are labels of the table; ``reference`` is the aspect of the runs that all others are
    compared with. Before them stands what the same reference runs lose when the last epoch counts, not the best.

    Returns:
        Columns change, preset, seed, reference and changed (accuracies in percent), difference (points).
    """
    column = f"{protocol}_accuracy"
    own = table[table[aspect] == reference]
    ends = own.assign(change="last epoch, not best", reference=own["best_accuracy"], changed=own["final_accuracy"])
    names = table[aspect] + ": " + table[variant]
    others = table[table[aspect] != reference].assign(change=names, changed=table[column])
    base = own[["preset", "seed", column]].rename(columns={column: "reference"})
    rows = pd.concat([ends, others.merge(base, on=["preset", "seed"], how="left")], ignore_index=True)
    rows = rows.assign(difference=rows["changed"] - rows["reference"])
    return rows[["change", "preset", "seed", "reference", "changed", "difference"]]


def front_points(
    records: Sequence[Record], table: pd.DataFrame, claims: Mapping[str, Claim], dataset: str
) -> pd.DataFrame:
    """All that is recorded for a data set, seeds averaged, and the figures' claims with their number of parameters.

    ``table`` holds the rows of all experiments (``experiments.collect``), which say how many parameters a claim's
    network has. Runs on a part of the data set are left out.

    Returns:
        Columns source, family, recipe, parameters, accuracy (percent, best epoch), final (percent, last epoch) and n.
    """
    columns = ["source", "family", "recipe", "parameters", "accuracy", "final", "n"]
    claimed = [
        ("claimed", claim.setting.network, "paper", row.parameters, claim.value, None, claim.runs)
        for row in table.drop_duplicates("claim").itertuples()
        if _is_of(claim := claims.get(row.claim), row.experiment) and claim.setting.dataset == dataset
    ]
    groups: dict[str, list[Record]] = {}
    for record in records:
        data = record.run.data
        is_whole = data.name == dataset and not (data.train_images or data.test_images)
        if is_whole and record.best_accuracy is not None and record.final_accuracy is not None:
            groups.setdefault(record.run.configuration, []).append(record)
    ours = []
    for some in groups.values():
        first, ends = some[0], [(record.best_accuracy, record.final_accuracy) for record in some]
        best, final = (fmean(values) for values in zip(*ends, strict=True))
        ours.append(
            ("ours", first.run.network.name, first.run.recipe_name, first.counted.parameters, best, final, len(some))
        )
    ours.sort(key=lambda row: (row[3], row[1], row[2], row[4]))
    return stack(pd.DataFrame(claimed, columns=columns), pd.DataFrame(ours, columns=columns))


def stack(*frames: pd.DataFrame) -> pd.DataFrame:
    """Frames one below the other, the columns of the first, where an empty frame says nothing about types."""
    columns = list(frames[0].columns)
    there = [frame.dropna(axis="columns", how="all") for frame in frames if len(frame)]
    return pd.concat(there, ignore_index=True).reindex(columns=columns) if there else frames[0]


def _is_of(claim: Claim | None, experiment: str) -> bool:
    return claim is not None and claim.experiment == experiment and claim.mark == "FIGURE"


def _place(claim: Claim, claims: Mapping[str, Claim], x: str, ours: float) -> tuple[float, float]:
    """Where the paper has a point on the x axis, with its reading error; else where our count puts it."""
    quantity = {"mmacs": "ptflops_macs"}.get(x, x)
    for other in claims.values():
        side = other.setting if other.quantity == quantity else None
        if side and (side.network, side.options) == (claim.setting.network, claim.setting.options):
            return other.value, other.reading_error
    return ours, 0.0


def _recipe(row: Mapping[str, object], is_stated: bool, variant: str | None) -> str:
    if row["preset"] != "paper" or row["recipe"].endswith("-epochs"):
        length = row["recipe"].rsplit("-", 2)[1] if row["recipe"].endswith("-epochs") else ""
        return f"{row['preset']}, {length} epochs" if length else str(row["preset"])
    return f"{row[variant]} {variant}" if variant and not is_stated else "paper"
