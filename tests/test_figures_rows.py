"""Figures of a table's rows: claimed and ours side by side, paired differences, and fans of cosines."""

from __future__ import annotations

import made_up
import numpy as np
import pandas as pd
import pytest
from drawing import assert_texts_lie_inside

from thriftylib import figures

NOTE = "A note that names the recipe for what it is."
TABLE_CLAIMS = {
    f"made-up/rows/{row.lower()}": made_up.claim(
        id=f"made-up/rows/{row.lower()}", value=value, error=0.005, experiment="table",
        statistic="mean over runs of the best epoch", runs=5, spread=0.3, population_spread=True,
    )
    for row, value in (("SmallNet", 70.0), ("CK", 72.0))
}  # fmt: skip
ROWS = ("SmallNet", "CL", "CK")


def table(seeds: int, recipes: tuple[str, ...] = ("authors",), also: tuple[str, ...] = ("fast",)) -> pd.DataFrame:
    """A table as ``experiments.collect`` gives it: SmallNet 70, CL 70.5 and CK 72 plus a tenth for each seed."""
    rows = []
    for recipe in (*recipes, *also):
        for size in (3, 7):
            for row, accuracy in zip(ROWS, (70.0, 70.5, 72.0), strict=True):
                key = f"made-up/rows/{row.lower()}"
                same = {"experiment": "table", "recipe": recipe, "model": row, "size": size}
                same["claim"] = key if key in TABLE_CLAIMS and size == 7 and recipe == "authors" else None
                done = [(seed, accuracy + seed / 10, "complete") for seed in range(seeds)] if recipe in recipes else []
                for seed, found, status in done or [(0, np.nan, "missing")]:
                    rows.append({**same, "seed": seed, "best_accuracy": found, "status": status, "run": f"{seed}{row}"})
    return pd.DataFrame(rows)


def rows(frame: pd.DataFrame, claims=TABLE_CLAIMS) -> pd.DataFrame:
    return figures.table_rows(frame, claims, row="{model}", panel="size {size}")


def gains(frame: pd.DataFrame, claims=TABLE_CLAIMS) -> pd.DataFrame:
    return figures.table_gains(
        frame, claims, row="{model}", panel="size {size}", against={"model": "SmallNet"}, by=("size",)
    )


def cosines(epochs: int) -> pd.DataFrame:
    run = made_up.run(epochs=epochs)
    names = ("min", "5", "25", "50", "75", "95", "max")
    series = {f"cosine_{name}": [place / 8 - 0.2] * epochs for place, name in enumerate(names)}
    record = made_up.from_series(run, [50.0] * epochs, series=series)
    frame = pd.DataFrame({"model": ["SmallNet", "CK"], "run": [run.id, "0" * 12]})
    return figures.gradient_cosines([record], frame, row="{model}")


def accuracy_picture(frame: pd.DataFrame):
    return figures.accuracy_by_row(frame, title="A title", note=NOTE)


def gain_picture(frame: pd.DataFrame):
    return figures.gain_by_row(frame, title="A title", note=NOTE, xlabel="gain over SmallNet (points)")


PICTURES = {
    "accuracy, nothing run": lambda: accuracy_picture(rows(table(0, (), ("authors",)))),
    "accuracy, nothing at all": lambda: accuracy_picture(rows(table(0, (), ("authors",)), {})),
    "accuracy": lambda: accuracy_picture(rows(table(3))),
    "accuracy, one seed": lambda: accuracy_picture(rows(table(1, ("authors", "fast"), ()))),
    "gain, nothing run": lambda: gain_picture(gains(table(0, (), ("authors",)))),
    "gain, nothing at all": lambda: gain_picture(gains(table(0, (), ("authors",)), {})),
    "gain": lambda: gain_picture(gains(table(5, ("authors", "fast"), ()))),
    "cosines": lambda: figures.cosine_fans(cosines(5), title="A title", note=NOTE),
    "cosines, nothing run": lambda: figures.cosine_fans(
        cosines(5).query("source == 'wanted'"), title="A title", note=NOTE
    ),
}
every = pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)


def texts(panels) -> str:
    figure = panels[0].figure
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@every
@pytest.mark.filterwarnings("error")
def test_everything_written_lies_inside_the_picture(picture):
    panels = picture()
    figure = panels[0].figure
    labels = [label for axes in panels for label in (*axes.texts, *axes.get_yticklabels(), axes.title)]
    assert_texts_lie_inside(figure, labels)
    assert NOTE in texts(panels)


def test_rows_stand_in_the_tables_order_and_claims_only_where_the_experiment_has_them():
    frame = rows(table(2))
    claimed = frame[frame["source"] == "claimed"]
    assert list(claimed["row"]) == ["SmallNet", "CK"]
    assert set(claimed["panel"]) == {"size 7"}
    assert list(claimed["spread"]) == [0.3, 0.3]
    panels = accuracy_picture(frame)
    assert [axes.get_title(loc="left") for axes in panels] == ["size 3", "size 7"]
    assert [label.get_text() for label in panels[1].get_yticklabels()] == [*reversed(ROWS)]
    elsewhere = rows(table(2).assign(experiment="another"))
    assert "claimed" not in set(elsewhere["source"])


def test_claimed_and_ours_are_drawn_where_they_are():
    axes = accuracy_picture(rows(table(3)))[1]
    hollow = sorted(x for line in axes.lines if line.get_markerfacecolor() == "white" for x in line.get_xdata())
    filled = sorted(line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o")
    assert hollow == [70.0, 72.0]
    assert filled == pytest.approx([70.1, 70.6, 72.1])
    low, high = axes.get_xlim()
    assert high - low >= 2


def test_differences_are_those_of_independent_runs_of_a_recipe():
    found = gains(table(3)).query("source == 'ours' and recipe == 'authors'")
    assert list(found["difference"]) == pytest.approx([0.5, 2.0] * 2)
    welch = 2 * 2.131847 * 0.1 * np.sqrt(2 / 3)  # Student's t with 4 degrees of freedom; equal seeds are not paired
    assert list(found["high"] - found["low"]) == pytest.approx([welch] * 4, rel=1e-5)
    assert set(found["n"]) == {3.0}
    single = gains(table(1)).query("source == 'ours'")
    assert single["low"].isna().all()


def test_the_claimed_gain_has_the_interval_of_the_stated_spreads():
    found = gains(table(0, (), ("authors",))).query("source == 'claimed'")
    assert list(found["row"]) == ["CK"]
    assert float(found["difference"].iloc[0]) == pytest.approx(2.0)
    deviation = 0.3 * np.sqrt(5 / 4)
    half = 1.859548 * deviation * np.sqrt(2 / 5)  # Student's t with 8 degrees of freedom
    assert float(found["high"].iloc[0]) - 2.0 == pytest.approx(half, rel=1e-4)


def test_zero_is_always_on_the_axis_of_gains():
    panels = gain_picture(gains(table(2)))
    for axes in panels:
        low, high = axes.get_xlim()
        assert low < 0 < 2 < high


def test_what_is_not_run_is_said():
    assert "Ours: not run yet." in texts(PICTURES["accuracy, nothing run"]())
    assert "nothing claimed, nothing run yet" in texts(PICTURES["gain, nothing at all"]())
    assert "Rows recorded: authors 6 of 6, fast 0 of 6." in texts(PICTURES["accuracy"]())
    assert "not run yet" in texts(PICTURES["cosines"]())  # one of its two rows
    assert "one seed" in texts(PICTURES["accuracy, one seed"]())


def test_a_fan_holds_the_recorded_quantiles():
    frame = cosines(4)
    assert list(frame["source"]) == ["ours"] * 4 + ["wanted"]
    ours = frame[frame["source"] == "ours"]
    assert list(ours["epoch"]) == [0, 1, 2, 3]
    assert set(ours["cosine_min"]) == {-0.2}
    assert list(ours["cosine_max"]) == pytest.approx([0.55] * 4)
    panel = figures.cosine_fans(frame, title="A title", note=NOTE)[0]
    assert list(panel.lines[1].get_ydata()) == pytest.approx([3 / 8 - 0.2] * 4)  # the median
