"""Frames that figures draw: claimed and reproduced rows, differences with their intervals, curves, sizes by depth."""

from __future__ import annotations

import made_up
import numpy as np
import pandas as pd
import pytest

from thriftylib import figures
from thriftylib.experiments.dacnn import depth_costs

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
    return figures.accuracies(frame, claims, by_recipe=True, row="{model}", panel="size {size}")


def gains(frame: pd.DataFrame, claims=TABLE_CLAIMS) -> pd.DataFrame:
    return figures.gains(frame, claims, row="{model}", panel="size {size}", against={"model": "SmallNet"}, by=("size",))


def test_claims_stand_only_where_the_experiment_has_them():
    frame = rows(table(2))
    claimed = frame[frame["source"] == "claimed"]
    assert list(claimed["row"]) == ["SmallNet", "CK"]
    assert set(claimed["panel"]) == {"size 7"}
    assert list(claimed["spread"]) == [0.3, 0.3]
    assert list(dict.fromkeys(frame.loc[frame["source"] != "claimed", "row"])) == [*ROWS]
    elsewhere = rows(table(2).assign(experiment="another"))
    assert "claimed" not in set(elsewhere["source"])


def test_gains_are_those_of_the_epoch_that_is_asked_for():
    frame = table(2)
    frame["final_accuracy"] = frame["best_accuracy"] - frame["model"].eq("CK")
    how = {"row": "{model}", "panel": "all", "against": {"model": "SmallNet"}, "by": ("size",)}
    for protocol, ck in (("best", 2.0), ("final", 1.0)):
        found = figures.gains(frame, {}, protocol=protocol, **how).query("source == 'reproduced'")
        assert list(found["difference"]) == pytest.approx([0.5, ck] * 2)


def test_differences_are_those_of_independent_runs_of_a_recipe():
    found = gains(table(3)).query("source == 'reproduced' and recipe == 'authors'")
    assert list(found["difference"]) == pytest.approx([0.5, 2.0] * 2)
    welch = 2 * 2.131847 * 0.1 * np.sqrt(2 / 3)  # Student's t with 4 degrees of freedom; equal seeds are not paired
    assert list(found["high"] - found["low"]) == pytest.approx([welch] * 4, rel=1e-5)
    assert set(found["n"]) == {3.0}
    single = gains(table(1)).query("source == 'reproduced'")
    assert single["low"].isna().all()


def test_the_claimed_gain_has_the_interval_of_the_stated_spreads():
    found = gains(table(0, (), ("authors",))).query("source == 'claimed'")
    assert list(found["row"]) == ["CK"]
    assert float(found["difference"].iloc[0]) == pytest.approx(2.0)
    deviation = 0.3 * np.sqrt(5 / 4)
    half = 1.859548 * deviation * np.sqrt(2 / 5)  # Student's t with 8 degrees of freedom
    assert float(found["high"].iloc[0]) - 2.0 == pytest.approx(half, rel=1e-4)


def test_a_gain_is_pending_where_a_side_is_not_run():
    assert set(gains(table(0, (), ("authors",)), {})["source"]) == {"pending"}


def test_curves_of_the_longest_runs_hold_the_recorded_series():
    names = [f"cosine_{name}" for name in ("min", "50", "max")]
    run = made_up.run(epochs=4)
    series = {name: [place / 8] * 4 for place, name in enumerate(names)}
    record = made_up.from_series(run, [50.0] * 4, series=series)
    asked = pd.DataFrame({"model": ["SmallNet", "CK"], "run": [run.id, "0" * 12]})
    frame = figures.longest_curves([record], asked, row="model", series=names)
    assert list(frame["source"]) == ["reproduced"] * 4 + ["pending"]
    assert list(frame["row"]) == ["SmallNet"] * 4 + ["CK"]
    assert list(frame["epoch"].dropna()) == [0, 1, 2, 3]
    assert set(frame["cosine_max"].dropna()) == {2 / 8}


def test_the_shared_kernel_is_smaller_by_exactly_the_layers_that_use_it():
    frame = depth_costs()
    shared, unshared = (frame[frame["kernels"] == name].set_index("net") for name in ("shared", "unshared"))
    assert (unshared["kernel"] == shared["uses"] * shared["kernel"]).all()
    assert list(shared["uses"]) == [2, 4, 6, 8, 10, 12, 16, 22, 32]
    assert (shared["kernel"] == 9 * 128**2).all()
    assert (unshared["body"] < shared["uses"] * shared["body"]).all()  # stem and batch norms stay
    assert (unshared["activation_bytes"] == shared["activation_bytes"]).all()
