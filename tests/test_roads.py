"""The roads to a small network: what each paper's runs started from, and what they save and gain against it."""

from __future__ import annotations

import math

import made_up
import pandas as pd
import pytest

from thriftylib import figures
from thriftylib.authoring import check
from thriftylib.errors import SpecError
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.intervals import student
from thriftylib.evidence.records import Kept
from thriftylib.experiments import EXPERIMENTS
from thriftylib.experiments.base import TAKEN, road
from thriftylib.paths import claims_dir
from thriftylib.running.roads import roads

CLAIMS = load_claims(claims_dir())


def one(experiment, preset="paper", **labels):
    """The run of an experiment's grid that has these labels."""
    (run,) = (
        each.run
        for each in EXPERIMENTS[experiment].configurations(preset)
        if all(each.labels.get(name) == value for name, value in labels.items())
    )
    return run


def records(run, *accuracies, **more):
    return [
        made_up.from_series(run.with_seed(seed), [0.0] * (run.epochs - 1) + [value], **more)
        for seed, value in enumerate(accuracies)
    ]


def recorded(found):
    """The rows of these records, without the claims."""
    frame = roads(found, CLAIMS)
    return frame[frame["source"] == "reproduced"]


SHARED = one("dacnn-depth-sweep", "fast", layers=5, width=32, kernels="shared")
UNSHARED = one("dacnn-depth-sweep", "fast", layers=5, width=32, kernels="unshared")


@pytest.mark.parametrize(
    ("of", "start"),
    [
        (one("dacnn-scatter", net="DACNN14(MIX)"), one("dacnn-scatter", net="VGG")),
        (one("dacnn-scatter", net="DACNN34"), one("dacnn-scatter", net="ResNet34")),
        (SHARED, UNSHARED),
        (
            one("expandnets-table-a", model="CK+FC", dataset="cifar100"),
            one("expandnets-table-a", model="SmallNet", dataset="cifar100"),
        ),
        (one("expandnets-rate", model="CL", rate=8.0), one("expandnets-rate", model="SmallNet")),
        (
            one("thriftynet-protocol", aspect="reference"),
            one("thriftynet-protocol", variant="un-factorised, same width"),
        ),
        (
            one("less-is-more-table", network="LeNet", training="with constraint"),
            one("less-is-more-table", network="LeNet", training="without constraint"),
        ),
        (
            one("less-is-more-strength", network="LeNet", layers="all hidden", strength=0.02),
            one("less-is-more-strength", network="LeNet", layers="first linear", strength=0.0),
        ),
    ],
)
def test_a_run_started_from_the_ordinary_network_of_its_grid(of, start):
    papers = [each.paper for each in EXPERIMENTS.values() if of in [c.run for c in each.configurations("recorded")]]
    ordinary = next(TAKEN[paper][1] for paper in papers if TAKEN[paper][1](of))
    assert ordinary(of).id == start.id != of.id
    assert ordinary(start).id == start.id


def test_a_start_from_other_weights_and_a_measurement_are_on_no_road():
    child = next(c.run for c in EXPERIMENTS["expandnets-init"].configurations("paper") if c.run.parent)
    measured = next(c.run for c in EXPERIMENTS["dacnn-small-statistics"].configurations("fast") if not c.run.recipe)
    assert TAKEN["expandnets"][1](child) is TAKEN["dacnn"][1](measured) is None


def test_an_unknown_road_is_refused():
    with pytest.raises(SpecError, match="paper p: unknown road 'prunes'; did you mean 'prune'"):
        road("prunes", paper="p")
    assert "p" not in TAKEN


def test_savings_and_gains_are_against_the_start():
    found = recorded([*records(SHARED, 30, 31, 32), *records(UNSHARED, 40, 41, 42)])
    small, start = (found.loc[found["run"] == run.id].squeeze() for run in (SHARED, UNSHARED))
    assert (small["road"], start["road"], small["source"]) == ("share", "ordinary", "reproduced")
    assert (small["n"], small["accuracy"], small["gain"]) == (3, 31, -10)
    assert small["started_from"] == start["network"] == "dacnn-small: layers 5, unshared, width 32"
    assert small["parameters"] == SHARED.cost.parameters
    saved = 100 * (1 - SHARED.cost.parameters / UNSHARED.cost.parameters)
    assert small["parameters_saved"] == pytest.approx(saved)
    assert small["macs_saved"] == 0
    assert small["high"] - small["accuracy"] == pytest.approx(student(2) / math.sqrt(3))
    assert small["gain_high"] - small["gain"] == pytest.approx(student(4) * math.sqrt(2 / 3))
    assert pd.isna(start["gain"])


def test_two_seeds_have_no_interval_and_a_start_without_record_no_gain():
    other = one("dacnn-depth-sweep", "fast", layers=7, width=32, kernels="shared")
    found = recorded([*records(SHARED, 30, 31), *records(UNSHARED, 40, 41, 42), *records(other, 35)]).set_index("run")
    assert found.loc[SHARED.id, ["low", "gain_low"]].isna().all()
    assert pd.isna(found.loc[other.id, "gain"])
    assert found.loc[other.id, "parameters_saved"] > 0


def test_the_kept_network_is_what_counts():
    pruned = one("less-is-more-table", network="LeNet", training="with constraint")
    free = one("less-is-more-table", network="LeNet", training="without constraint")
    counts = {"weight_bytes": 1, "activation_bytes": 1, "ptflops_macs": 1, "test_loss": 0.1}
    kept = Kept(parameters=43_108, macs=1000, test_accuracy=98.0, shapes=None, **counts)
    found = (
        recorded([*records(pruned, 98.0, kept=kept, seconds=1000.0), *records(free, 99.0, seconds=1000.0)])
        .set_index("run")
        .loc[pruned.id]
    )
    assert (found["road"], found["dataset"], found["parameters"], found["macs"]) == ("prune", "MNIST", 43_108, 1000)
    assert found["parameters_saved"] == pytest.approx(90, abs=0.01)


def test_one_road_alone_has_no_panel():
    assert recorded(records(SHARED, 30)).empty


def test_claims_are_marked_and_where_their_network_is():
    start = one("dacnn-scatter", net="ResNet18")
    found = roads([*records(SHARED, 30), *records(UNSHARED, 40)], CLAIMS)
    claimed = found[found["source"] == "claimed"].set_index("network")
    row = claimed.loc["dacnn: DACNN18, plain"]
    assert (row["accuracy"], row["start"]) == (CLAIMS["dacnn/scatter/dacnn18"].value, start.id)
    assert row["gain"] == pytest.approx(row["accuracy"] - CLAIMS["dacnn/scatter/resnet18"].value)
    assert claimed[["low", "high", "best"]].isna().all(axis=None)


def test_what_saves_nothing_is_drawn_beside_its_start_and_the_key_says_what_is_what():
    found = recorded([*records(SHARED, 30, 31, 32), *records(UNSHARED, 40, 41, 42)])
    for x, is_beside in (("parameters", False), ("macs", True)):
        (axes,) = figures.road_points(found, x=x, title="A title")
        (line,) = axes.texts  # an annotation without text, from the start to what was made of it
        end = axes.transData.transform(line.xy)
        moved = line.xycoords.transform(line.xy)[0] - end[0]
        assert (moved > 1) == is_beside
        (legend,) = axes.figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == ["ordinary network", "share", "dacnn", "another recipe"]
        assert {line.get_xdata()[0] for line in axes.lines} == set(found[x])
    assert "−10.00" in figures.road_table(found).data


def test_nothing_recorded_is_said():
    (axes,) = figures.road_points(recorded([]), x="parameters", title="A title")
    assert axes.get_title("left") == "nothing recorded yet"


def test_check_finds_a_road_on_which_all_is_ordinary(monkeypatch):
    monkeypatch.setitem(TAKEN, "dacnn", ("share", lambda run: run))
    assert [f.text for f in check._check_road(check.Paper("dacnn"))] == [
        "road 'share': every run is ordinary; must tell which are not"
    ]
    start = UNSHARED.with_seed(1)
    monkeypatch.setitem(TAKEN, "dacnn", ("share", lambda run: start))
    assert any("must have its data, recipe and seed" in f.text for f in check._check_road(check.Paper("dacnn")))


@pytest.mark.parametrize("paper", TAKEN)
def test_every_paper_keeps_the_rules(paper):
    assert list(check._check_road(check.Paper(paper))) == []
