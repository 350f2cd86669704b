"""The plan: what is missing, by verdicts per hour of this machine, in an order that never changes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import run as made_up_run

from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.records import load_records
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.experiments.base import Configuration
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running.estimates import Conditions, Estimate, Estimator
from thriftylib.running.folders import OutputFolders
from thriftylib.running.plan import Pending, Plan, fraction_done, plan
from thriftylib.running.worth import Ledger, RunKey
from thriftylib.training.engine import train

GPU = Conditions("NVIDIA H200")
XEON = Conditions("Intel(R) Xeon(R) Processor (CPU)", threads=2, precision="fp32", cores=2)
THRIFTYNETS = tuple(name for name, shown in EXPERIMENTS.items() if shown.paper == "thriftynet")
MINUTE = 60.0


@pytest.fixture(scope="module")
def committed():
    return {record.id: record for record in load_records(results_dir() / "runs")}


def make(presets=("paper",), seeds=(0,), records=None, names=tuple(EXPERIMENTS), conditions=GPU, **more) -> Plan:
    records = records or {}
    estimator = Estimator(conditions, records.values())
    claims = load_claims(claims_dir())
    return plan(names, presets, seeds, estimator=estimator, records=records, claims=claims, **more)


@pytest.fixture(scope="module")
def whole(committed) -> Plan:
    """All that is missing on two cores."""
    return make(seeds=range(5), records=committed, conditions=XEON)


def test_on_two_cores_25_minutes_get_runs_that_end_within_them(committed):
    """Seen: one run of 26 hours, and nothing said about what was left out."""
    made = make(seeds=range(5), records=committed, conditions=XEON, longest=25 * MINUTE)
    chosen = made.within(25 * MINUTE)
    assert chosen
    assert all(one.estimate.seconds <= 25 * MINUTE for one in made.runs)
    assert chosen[-1].end <= 25 * MINUTE
    assert len(made.too_long) > 1000
    longer = {one.key for one in made.too_long if one.estimate.seconds > 25 * MINUTE}
    assert longer
    assert all(one.parent in longer for one in made.too_long if one.key not in longer)


def test_long_headlines_do_not_come_before_many_verdicts_in_little_time(whole):
    """Seen: headlines of 890 hours before runs that give ten verdicts in minutes."""
    runs = whole.runs
    seconds = [one.estimate.seconds for one in runs]
    headline = next(i for i, one in enumerate(runs) if one.run.network.name == "dacnn")
    assert headline > 10
    assert max(seconds[:10]) < 10 * 3600 < seconds[headline]


def test_both_sides_of_a_difference_are_planned_together():
    """A claim's last missing side comes right after the others: nobody waits for it behind other claims' runs."""
    made = make(seeds=range(3), names=("expandnets-table-a",), conditions=XEON)
    first = made.runs[:6]
    assert len({one.key.configuration for one in first}) == 2
    assert [one.run.seed for one in first] == [0, 0, 1, 1, 2, 2]
    assert sum(slot.words.strong for slot in made.within(None)[:6]) > 0


def test_every_missing_run_is_there_once_and_names_its_experiments():
    pending = make(presets=("paper", "fast"), seeds=(0, 1)).runs
    runs = {
        configuration.run.with_seed(seed).id
        for shown in EXPERIMENTS.values()
        for configuration in shown.configurations("recorded")
        for seed in (0, 1)
    }
    assert len(pending) == len(runs)
    assert {one.run.id for one in pending} == runs
    for one in pending:
        for name in one.experiments:
            assert one.run.with_seed(0) in [
                configuration.run for configuration in experiment(name).configurations(one.preset)
            ]


def test_the_order_does_not_change(whole, committed):
    again = make(seeds=range(5), records=committed, conditions=XEON)
    assert [one.run.id for one in again.runs] == [one.run.id for one in whole.runs]


def test_a_recorded_run_is_not_planned(whole, committed):
    assert not {one.run.id for one in whole.runs} & committed.keys()


def test_runs_that_answer_no_claim_come_last_the_shortest_first():
    runs = make(names=THRIFTYNETS).runs
    asked = [bool(one.configuration.claims) for one in runs]
    assert asked == sorted(asked, reverse=True)
    assert not asked[-1]
    last = [one.estimate.seconds for one in runs if not one.configuration.claims]
    assert last == sorted(last)


def test_claims_come_before_controls_that_take_as_long():
    runs = make(names=("thriftynet-depth", "thriftynet-depth-macs")).runs
    of = {one.run.network.options["history"]: i for i, one in reversed(list(enumerate(runs)))}
    assert of[5] < of[2]


def test_where_and_presets_choose():
    runs = make(presets=("smoke",), names=("thriftynet-size-cifar10",), where={"filters": [8]}).runs
    assert {one.run.network.options["filters"] for one in runs} == {8}
    assert {one.preset for one in runs} == {"smoke"}


def test_a_child_is_left_out_with_its_parent():
    names = ("expandnets-init",)
    everything = make(names=names, conditions=XEON).runs
    parents = {one.run.parent for one in everything if one.run.parent}
    slow = max(one.estimate.seconds for one in everything if one.key.configuration in parents)
    made = make(names=names, conditions=XEON, longest=0.99 * slow)
    planned = {one.key.configuration for one in made.runs}
    assert all(one.run.parent in planned for one in made.runs if one.run.parent)
    assert any(one.run.parent for one in made.too_long)


def test_a_checkpoint_leaves_the_rest(tmp_path):
    run = experiment("thriftynet-size-cifar10").configurations("smoke")[0].run
    folders = OutputFolders.below(tmp_path)
    assert fraction_done(run, folders) == 0
    long = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 2})})
    train(long, device="cpu", results=tmp_path, checkpoints=folders.checkpoints, budget=1e-9, progress=False)
    steps = math.ceil(long.data.training_images / long.recipe.batch_size)
    assert fraction_done(long, folders) == pytest.approx(1 / (2 * steps))
    folders.checkpoint(run).write_bytes(b"cut short")
    assert fraction_done(run, folders) == 0


def test_what_a_checkpoint_holds_is_not_estimated_again(monkeypatch, tmp_path):
    names = ("expandnets-table-b",)
    whole = make(names=names, conditions=XEON).runs[0]
    monkeypatch.setattr("thriftylib.running.plan.fraction_done", lambda run, folders: 0.75 * (run.id == whole.run.id))
    made = make(names=names, conditions=XEON, longest=whole.estimate.seconds / 2, folders=OutputFolders.below(tmp_path))
    (one,) = made.runs
    assert (one.run, one.done) == (whole.run, 0.75)
    assert one.estimate.seconds == pytest.approx(whole.estimate.seconds / 4)
    assert one.estimate.high == pytest.approx(whole.estimate.high / 4)


def pending_of(seconds: list[float], parents: dict[int, int]) -> list[Pending]:
    runs = [made_up_run(options={"filters": i + 1}) for i in range(len(seconds))]
    for child, parent in parents.items():
        runs[child] = runs[child].model_copy(update={"parent": runs[parent].configuration})
    return [
        Pending(run, RunKey(run.configuration, 0), Configuration(run), (), "paper", Estimate(took, took, took, "model"))
        for run, took in zip(runs, seconds, strict=True)
    ]


EMPTY = Ledger({}, {})


SECONDS = st.lists(st.floats(0.1, 100), max_size=12)


@settings(deadline=None)
@given(SECONDS, st.floats(0.1, 300), st.integers(1, 3), st.booleans())
def test_a_plan_never_exceeds_its_budget(seconds, budget, jobs, family):
    parents = {1: 0} if family and len(seconds) > 1 else {}
    runs = pending_of(seconds, parents)
    chosen = Plan(runs, [], EMPTY).within(budget, jobs)
    took = [slot.pending.estimate.seconds for slot in chosen]
    assert sum(took) <= jobs * budget * (1 + 1e-9)
    assert all(slot.end <= budget for slot in chosen)
    if jobs == 1:
        assert sum(took) <= budget * (1 + 1e-9)
        left = budget - sum(took)
        skipped = [one for one in runs if one not in [slot.pending for slot in chosen] and not one.run.parent]
        assert all(one.estimate.seconds > left for one in skipped)  # used until nothing fits
    there = [slot.pending for slot in chosen]
    if parents and runs[1] in there:
        ends = {slot.pending.run.id: slot.end for slot in chosen}
        assert ends[runs[1].run.id] >= ends[runs[0].run.id] + runs[1].estimate.seconds * (1 - 1e-9)


def test_a_run_that_does_not_fit_makes_way_for_the_next():
    runs = pending_of([10.0, 50.0, 20.0], {})
    assert [slot.pending for slot in Plan(runs, [], EMPTY).within(35.0)] == [runs[0], runs[2]]
    assert [slot.pending for slot in Plan(runs, [], EMPTY).within(None)] == runs


def test_the_words_are_those_of_the_chosen_runs_alone(whole):
    few = whole.within(3 * 3600)
    ledger = whole.ledger.copy()
    assert [slot.words for slot in few] == [ledger.add(slot.pending.key) for slot in few]


def test_twenty_seeds_take_no_more_than_twenty_times_one(committed, monkeypatch):
    """Ids are hashed once for each run; what is worth something does not grow beyond the seeds that a claim can use."""
    from thriftylib.running.plan import _Order
    from thriftylib.spec import Run

    counted = {"hashed": 0, "rated": 0}
    canonical, rate = Run.canonical, _Order._rate
    monkeypatch.setattr(Run, "canonical", lambda self: counted.update(hashed=counted["hashed"] + 1) or canonical(self))
    monkeypatch.setattr(_Order, "_rate", lambda *all: counted.update(rated=counted["rated"] + 1) or rate(*all))
    make(names=THRIFTYNETS, records=committed)  # grids are made once
    found = []
    for seeds in (5, 20):
        counted.update(hashed=0, rated=0)
        runs = len(make(names=THRIFTYNETS, seeds=range(seeds), records=committed).runs)
        found.append((runs, counted["hashed"], counted["rated"]))
    (few, hashed, rated), (many, hashed_many, rated_many) = found
    assert many > 3 * few
    assert hashed_many - hashed <= 2 * (many - few)
    assert rated_many <= 2 * rated
