"""The page of this machine's own runs: one figure, and a table that folds. No Sphinx here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape

import pandas as pd
from thrifty_assets import as_address

from thriftylib import figures
from thriftylib.evidence.records import Record
from thriftylib.experiments import EXPERIMENTS, PRESETS
from thriftylib.figures.display import SHOWN_WIDTH, as_png

NONE = (
    "<p><strong>This machine has no runs of its own yet.</strong> "
    "<code>make book</code> trains some before it renders the site.</p>"
)


def local_runs(records: Sequence[Record]) -> str:
    """The runs of this machine, or the plain statement that there are none."""
    if not records:
        return NONE
    frame = pd.DataFrame([_row(record) for record in records])
    is_smoke = frame["data"].eq("digits").all()
    told = (
        "All of them are smoke runs: tiny networks on 8x8 digits, a few epochs each. They show that this machine can "
        "train, record and render. <strong>They prove nothing about any claim.</strong>"
        if is_smoke
        else "These runs are this machine's own; the scoreboard shows committed records alone."
    )
    devices = ", ".join(sorted({record.device for record in records}))
    sums = f"{len(frame)} runs, {frame['seconds'].sum() / 60:,.1f} minutes on {devices}."
    return f"<p>{told}</p>{_figure(frame)}{_table(frame, sums)}"


@cache
def _experiments_of_runs() -> Mapping[str, str]:
    """The first experiment that has a run, by the id that the run has at seed 0."""
    found = [
        (each.run.id, name)
        for preset in PRESETS[1:]
        for name, experiment in EXPERIMENTS.items()
        for each in experiment.configurations(preset)
    ]
    return dict(reversed(found))


def _row(record: Record) -> dict[str, object]:
    experiment = _experiments_of_runs().get(record.run.with_seed(0).id, "by hand")
    return {
        "paper": EXPERIMENTS[experiment].paper.replace("_", " ") if experiment in EXPERIMENTS else experiment,
        "experiment": experiment,
        "network": record.run.network.name,
        "data": record.run.data.name,
        "parameters": record.counted.parameters,
        "epochs": record.epochs,
        "accuracy": record.final_accuracy,
        "seconds": record.seconds,
        "diverged": record.status == "diverged",
    }


def _figure(frame: pd.DataFrame) -> str:
    drawn = frame.dropna(subset="accuracy").sort_values("paper")
    if drawn.empty:  # runs that only measure
        return ""
    data = ", ".join(sorted(set(drawn["data"])))
    title, alt = (
        "This machine’s runs",
        f"Test accuracy against parameters of {len(drawn)} runs of this machine, on {data}.",
    )
    panels = figures.points(
        drawn, x="parameters", y="accuracy", hue="paper", facet="data", xscale="parameters", share=False, title=title,
        xlabel="parameters", ylabel="test accuracy (%)", caption="Last epoch.",
    )  # fmt: skip
    picture = as_address(as_png(panels[0].figure, {}), "image/png")
    image = f'<img class="figure" width="{SHOWN_WIDTH}" alt="{escape(alt)}" src="{picture}">'
    return f'<div class="table-scroll" tabindex="0">{image}</div>'


def _table(frame: pd.DataFrame, summary: str) -> str:
    """A row for each experiment, network and data set: what is common to its runs and the range of what is not."""
    rows = []
    for (experiment, network, data), some in frame.groupby(["experiment", "network", "data"], sort=True):
        diverged = some["diverged"].sum()
        runs = f"{len(some)}" + f", {diverged} diverged" * bool(diverged)
        ranges = (
            _range(some[name], form) for name, form in (("parameters", ",.0f"), ("epochs", ".0f"), ("accuracy", ".2f"))
        )
        rows.append((experiment, network, data, runs, *ranges, f"{some['seconds'].sum():.1f}"))
    heads = ("Experiment", "Network", "Data", "Runs", "Parameters", "Epochs", "Last epoch, %", "Seconds")
    table = figures.html_table(heads, rows, numbers=range(3, len(heads)))
    return f"<details><summary>{escape(summary)}</summary>{table}</details>"


def _range(values: pd.Series, form: str) -> str:
    known = values.dropna()
    ends = dict.fromkeys(format(value, form) for value in (known.min(), known.max())) if len(known) else ["–"]
    return " to ".join(ends)
