"""The verdict rule on made-up records, on both sides of each threshold; tables and numbers made from it."""

from __future__ import annotations

import math
import statistics

import pytest
from made_up import OPTIONS, claim, from_series, record, run
from scipy import stats

from thriftylib.errors import RecordError
from thriftylib.evidence import verdicts
from thriftylib.evidence.bench import BenchRecord
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.counts import Count
from thriftylib.evidence.numbers import Evidence, lookup
from thriftylib.evidence.outcomes import STATUSES, Verdict
from thriftylib.evidence.sheets import Sheet, Unread, load_claims
from thriftylib.evidence.tables import RECORDS, SCOREBOARD, command, records_frame, scoreboard
from thriftylib.evidence.verdicts import judge
from thriftylib.paths import claims_dir

SPREAD = (-0.2, 0.0, 0.2, -0.1, 0.1)  # mean 0
NUDGE = 1e-6


def seeds(*best: float, final: float = 0.0, **more) -> list:
    """A record per seed with these best accuracies."""
    return [record(run(seed, **more), best=value, final=final) for seed, value in enumerate(best)]


def around(centre: float, spread=SPREAD) -> list:
    return seeds(*(centre + step for step in spread))


def status(stated: Claim, records: list) -> str:
    return judge(stated, records).status


def tolerance(ours, theirs_sd: float | None, theirs_n: int) -> float:
    """The rule once more, from scipy.stats."""
    n, s = len(ours), statistics.stdev(ours)
    if theirs_sd is None:
        return stats.t.ppf(0.975, n - 1) * s * math.sqrt(1 / n + 1 / theirs_n)
    variance = ((n - 1) * s**2 + (theirs_n - 1) * theirs_sd**2) / (n + theirs_n - 2)
    return stats.t.ppf(0.975, n + theirs_n - 2) * math.sqrt(variance * (1 / n + 1 / theirs_n))


# --- enough seeds


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("error", ["exact", 0.3])
@pytest.mark.parametrize(("theirs_n", "theirs_sd"), [(None, None), (2, None), (5, None), (5, 0.4), (2, 0.01)])
def test_reproduced_up_to_the_tolerance_and_not_beyond(side, error, theirs_n, theirs_sd):
    stated = claim(error=error, runs=theirs_n, spread=theirs_sd)
    room = tolerance(SPREAD, theirs_sd, theirs_n or 1) + stated.reading_error
    inside, outside = around(90 + side * (room - NUDGE)), around(90 + side * (room + NUDGE))
    assert status(stated, inside) == "reproduced"
    assert status(stated, outside) == "partly"
    assert judge(stated, inside).tolerance == pytest.approx(room)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("error", ["exact", 0.3])
def test_partly_up_to_a_point_and_not_beyond(side, error):
    stated = claim(error=error)
    edge = 1 + stated.reading_error
    assert status(stated, around(90 + side * (edge - NUDGE))) == "partly"
    assert status(stated, around(90 + side * (edge + NUDGE))) == "not reproduced"


def test_the_papers_runs_give_its_spread_where_none_is_stated():
    stated = claim(runs=2, values=[89.8, 90.2])
    assert judge(stated, around(90)).tolerance == pytest.approx(tolerance(SPREAD, math.sqrt(0.08), 2))


def test_seeds_that_agree_exactly():
    assert status(claim(), seeds(90.0, 90.0)) == "reproduced"
    assert status(claim(), seeds(90.5, 90.5)) == "partly"
    assert status(claim(), seeds(91.5, 91.5)) == "not reproduced"


def test_enough_seeds_know_their_mean_to_a_point():
    half = math.sqrt(2) / stats.t.ppf(0.975, 1) / math.sqrt(2)  # of two seeds: t s / sqrt(2) = 1
    assert status(claim(), seeds(90 + half - NUDGE, 90 - half + NUDGE)) == "reproduced"
    assert status(claim(), seeds(90 + half + NUDGE, 90 - half - NUDGE)) == "consistent"


# --- too few seeds


@pytest.mark.parametrize("error", ["exact", 0.3])
@pytest.mark.parametrize(
    ("more", "room"), [({}, 1.0), ({"runs": 5, "spread": 0.4}, 1.0), ({"runs": 5, "spread": 0.8}, 1.6)]
)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_single_seed_is_consistent_or_at_odds(error, more, room, side):
    stated = claim(error=error, **more)
    room += stated.reading_error
    assert status(stated, seeds(90 + side * (room - NUDGE))) == "consistent"
    assert status(stated, seeds(90 + side * (room + NUDGE))) == "at odds"
    assert judge(stated, seeds(90.0)).sd is None


def test_wide_scatter_decides_nothing():
    assert status(claim(), seeds(80.0, 100.0)) == "consistent"
    assert status(claim(), seeds(40.0, 80.0)) == "at odds"
    assert judge(claim(), seeds(40.0, 80.0)).tolerance == 1.0


@pytest.mark.parametrize("bound", ["equals", "at least", "more than", "at most"])
@pytest.mark.parametrize("best", [0.0, 50.0, 89.0, 90.0, 91.0, 100.0])
@pytest.mark.parametrize("statistic", ["best epoch of one run", "best epoch of the best run"])
def test_a_single_seed_never_decides(bound, best, statistic):
    assert status(claim(bound=bound, statistic=statistic), seeds(best)) in ("consistent", "at odds")


# --- bounds


@pytest.mark.parametrize(("bound", "side"), [("at least", 1), ("more than", 1), ("at most", -1)])
def test_bounds_are_judged_on_one_side(bound, side):
    half = stats.t.ppf(0.95, 4) * statistics.stdev(SPREAD) / math.sqrt(5)
    stated = claim(bound=bound)
    assert status(stated, around(90 + side * (half + NUDGE))) == "reproduced"
    assert status(stated, around(90 + side * (half - NUDGE))) == "consistent"
    assert status(stated, around(90 + side * NUDGE)) == "consistent"
    assert status(stated, around(90 - side * NUDGE)) == "at odds"
    assert status(stated, around(90 - side * (half - NUDGE))) == "at odds"
    assert status(stated, around(90 - side * (half + NUDGE))) == "not reproduced"
    assert status(stated, around(90 + side * 9)) == "reproduced"


def test_the_bound_itself():
    assert status(claim(bound="at least"), seeds(90.0, 90.0)) == "reproduced"
    assert status(claim(bound="at most"), seeds(90.0, 90.0)) == "reproduced"
    assert status(claim(bound="more than"), seeds(90.0, 90.0)) == "not reproduced"
    assert status(claim(bound="more than"), seeds(90.0)) == "at odds"
    assert status(claim(bound="at least"), seeds(90.0)) == "consistent"
    assert status(claim(bound="at least", error=0.3), seeds(89.71, 89.71)) == "reproduced"
    assert status(claim(bound="at least", error=0.3), seeds(89.69, 89.69)) == "not reproduced"


def test_the_best_of_several_runs():
    stated = claim(bound="more than", statistic="best epoch of the best run")
    assert status(stated, seeds(80.0, 90.01)) == "reproduced"
    assert judge(stated, seeds(80.0, 90.01)).ours == 90.01
    assert status(stated, seeds(*[90.0] * 4)) == "at odds"
    assert status(stated, seeds(*[90.0] * 5)) == "not reproduced"
    assert status(stated, seeds(*[90.0] * 4, 90.01)) == "reproduced"


def test_the_best_of_several_runs_is_taken_over_configurations_and_recipes():
    setting = {
        "network": "made-up",
        "dataset": "cifar10",
        "recipes": {"paper-recipe": 3, "second": 4},
        "any_of": [{"filters": 32}, {"filters": 64}],
    }
    stated = claim(bound="more than", statistic="best epoch of the best run", setting=setting)
    records = [
        record(run(0), best=88.0),
        record(run(0, options={**OPTIONS, "filters": 64}), best=91.0),
        record(run(0, recipe="second", epochs=4), best=89.0),
        record(run(0, options={**OPTIONS, "filters": 96}), best=99.0),
    ]
    verdict = judge(stated, records)
    assert (verdict.status, verdict.ours, verdict.n) == ("reproduced", 91.0, 3)
    assert verdict.recipe == "paper-recipe and second"


# --- which records count


def test_nothing_recorded():
    verdict = judge(claim(), [])
    assert verdict == Verdict(
        claim="made-up/group/one", status="not run", reason="No record of this network with the recipe paper-recipe."
    )
    others = [
        record(run(options={**OPTIONS, "filters": 33})),
        record(run(data={"name": "cifar10", "train_images": 1000})),
        record(run(data={"name": "cifar100"})),
    ]
    assert judge(claim(), others) == verdict


def test_not_testable():
    verdict = judge(claim(not_testable="the GPU is not named", setting=None), seeds(90.0, 90.0))
    assert (verdict.status, verdict.reason, verdict.ours) == ("not testable", "The GPU is not named.", None)


def test_what_a_verdict_tells():
    records = seeds(89.95, 90.05, final=88.0)
    verdict = judge(claim(), list(reversed(records)))
    assert verdict.ours == pytest.approx(90.0)
    assert verdict.sd == pytest.approx(math.sqrt(0.005))
    assert (verdict.n, verdict.seeds, verdict.records) == (2, (0, 1), tuple(one.id for one in records))
    assert (verdict.best, verdict.final) == (pytest.approx(90.0), 88.0)
    assert (verdict.seconds, verdict.device, verdict.recipe) == (200.0, "a CPU", "paper-recipe")
    assert "90.00 +- 0.07 % over 2 seeds" in verdict.reason
    assert verdict.reason.endswith(".")


def test_the_claims_statistic_decides():
    records = seeds(95.0, 95.0, final=90.0)
    last = claim(statistic="last epoch of one run")
    assert judge(last, records).ours == 90.0
    assert status(last, records) == "reproduced"
    assert status(claim(), records) == "not reproduced"
    assert judge(claim(quantity="train_accuracy", statistic="last epoch of one run"), records).ours == 50.0


def test_one_configuration_is_judged_the_one_with_most_seeds():
    few = [record(run(0, options={**OPTIONS, "more": 1}), best=10.0)]
    verdict = judge(claim(), [*few, *seeds(90.0, 90.0)])
    assert (verdict.status, verdict.n) == ("reproduced", 2)
    assert "1 other fitting configuration with fewer runs left out" in verdict.reason


def test_a_record_given_twice():
    with pytest.raises(RecordError, match="given twice"):
        judge(claim(), seeds(90.0) * 2)


def test_a_diverged_run_counts():
    diverged = from_series(run(1), [10.0, 12.0], status="diverged")
    verdict = judge(claim(), [*seeds(90.0), diverged])
    assert verdict.ours == pytest.approx(51.0)
    assert "1 of 2 diverged" in verdict.reason
    assert verdict.status == "at odds"
    at_once = from_series(run(1), [], status="diverged")
    assert judge(claim(), [at_once]).ours == 10.0  # chance level
    assert judge(claim(), [at_once]).final is None


# --- another recipe


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ([89.0 + NUDGE], "partly"),
        ([89.0 - NUDGE], "not run"),
        ([99.0], "partly"),
        ([90.0, 90.0], "partly"),
        ([99.0, 99.0], "partly"),
        ([89.9, 89.9], "not run"),
    ],
)
def test_another_recipe_never_reproduces(best, expected):
    verdict = judge(claim(), seeds(*best, recipe="fast"))
    assert verdict.status == expected
    assert verdict.ours == pytest.approx(statistics.fmean(best))
    assert verdict.recipe == "fast"
    assert "another recipe, fast (3 epochs)," in verdict.reason


def test_a_shortened_recipe_of_the_same_name_is_another_one():
    verdict = judge(claim(), seeds(90.0, 90.0, epochs=2))
    assert verdict.status == "partly"
    assert "paper-recipe (2 epochs)" in verdict.reason


def test_the_own_recipe_comes_first():
    verdict = judge(claim(), [*seeds(50.0), *seeds(90.0, 90.0, 90.0, recipe="fast")])
    assert (verdict.status, verdict.ours) == ("at odds", 50.0)


def test_the_best_of_other_recipes_is_shown():
    records = [*seeds(70.0, recipe="fast"), *seeds(80.0, recipe="slow")]
    assert judge(claim(), records).ours == 80.0
    assert judge(claim(bound="at most", value=60.0), records).ours == 70.0
    assert judge(claim(), [*records, *seeds(89.5, recipe="middle")]).status == "partly"


@pytest.mark.parametrize(("bound", "best", "expected"), [("at most", 91.0, "not run"), ("at most", 89.0, "partly")])
def test_bounds_with_another_recipe(bound, best, expected):
    assert status(claim(bound=bound), seeds(best, recipe="fast")) == expected


# --- counts


def count(**more) -> Count:
    fields = {"network": "made-up", "dataset": "cifar10", "asked": {"n_params": 40_000}, "options": OPTIONS}
    fields |= {"parameters": 3042, "kernel_parameters": 3000, "macs": 1, "ptflops_macs": 7_546_000, "weight_bytes": 4}
    return Count(**{**fields, **more})


def counted(**more) -> Claim:
    setting = {"network": "made-up", "dataset": "cifar10", "options": {"filters": 32}}
    fields = {"quantity": "parameters", "unit": "", "statistic": "count", "setting": setting, "value": 3042}
    return claim(**{**fields, **more})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "reproduced"),
        ({"value": 3043}, "not reproduced"),
        ({"value": 3043, "error": 0.9}, "not reproduced"),
        ({"value": 3043, "error": 1.0}, "reproduced"),
        ({"value": 3043, "bound": "at most"}, "reproduced"),
        ({"value": 3041, "bound": "at most"}, "not reproduced"),
        ({"value": 3042, "bound": "more than"}, "not reproduced"),
        ({"value": 3042, "bound": "at least"}, "reproduced"),
        ({"quantity": "ptflops_macs", "unit": "MMAC", "value": 7.5, "error": 0.05}, "reproduced"),
        ({"quantity": "ptflops_macs", "unit": "MMAC", "value": 7.6, "error": 0.05}, "not reproduced"),
        ({"quantity": "kernel_parameters", "value": 3000}, "reproduced"),
        ({"quantity": "filters", "value": 32}, "reproduced"),
        ({"quantity": "filters", "value": 33}, "not reproduced"),
        ({"setting": {"network": "made-up", "dataset": "cifar10", "options": {"n_params": 40_000}}}, "reproduced"),
        ({"setting": {"network": "made-up", "dataset": "cifar10", "options": {"n_params": 50_000}}}, "not run"),
        ({"setting": {"network": "made-up", "dataset": "cifar100"}}, "not run"),
    ],
)
def test_counts(more, expected):
    verdict = judge(counted(**more), [], [count()])
    assert verdict.status == expected
    assert (verdict.ours is None) == (expected == "not run")


def test_prune_ratios():
    def half(**more) -> Claim:
        against = {"network": "made-up", "dataset": "cifar10", "options": {"filters": 64}}
        stated = {"quantity": "prune_ratio", "unit": "%", "value": 25.0, "error": 0.05, "against": against}
        return counted(**{**stated, **more})

    both = [count(), count(asked={}, options={**OPTIONS, "filters": 64}, parameters=9, kernel_parameters=4000)]
    assert judge(half(), [], both).status == "reproduced"
    assert judge(half(), [], both).ours == 25.0
    assert judge(half(value=25.1), [], both).status == "not reproduced"
    assert judge(half(), [], both[:1]).status == "not run"
    assert command(half()) == (
        "thrifty cost made-up filters=32 classes=10 && thrifty cost made-up filters=64 classes=10"
    )


def test_ambiguous_counts():
    with pytest.raises(RecordError, match="networks of different parameters"):
        judge(counted(), [], [count(), count(parameters=5)])


# --- tables

CLAIMS = {
    one.id: one
    for one in (
        claim(),
        claim(id="made-up/group/two", value=95.0, runs=2, values=[94.9, 95.1], error=0.01),
        claim(id="made-up/group/three", not_testable="unknown", setting=None, experiment=None),
        counted(id="made-up/group/four"),
    )
}


def test_scoreboard():
    frame = scoreboard(CLAIMS, seeds(89.95, 90.05, final=88.0), [count()])
    assert list(frame.columns) == list(SCOREBOARD)
    assert list(frame["id"]) == list(CLAIMS)
    assert list(frame["verdict"]) == ["reproduced", "not reproduced", "not testable", "reproduced"]
    first, second, third, fourth = frame.to_dict("records")
    assert (first["claimed"], first["error"], first["n"], first["cost"], first["seconds"]) == (90, 0, 2, 100, 200)
    assert first["command"] == "thrifty train made-up-experiment --preset paper --only made-up/group/one"
    assert (first["final"], first["seeds"]) == (88.0, "0,1")
    assert (second["claimed_spread"], second["claimed_n"]) == (pytest.approx(math.sqrt(0.02)), 2)
    assert second["difference"] == pytest.approx(-5.0)
    assert third["command"] == ""
    assert math.isnan(third["ours"])
    assert fourth["command"] == "thrifty cost made-up filters=32 classes=10"


def test_scoreboard_of_nothing():
    assert list(scoreboard({}, []).columns) == list(SCOREBOARD)
    frame = scoreboard(CLAIMS, [])
    assert frame["ours"].dtype == float
    assert set(frame["verdict"]) == {"not run", "not testable"}


def test_every_testable_claim_of_the_papers_has_a_command():
    for stated in load_claims(claims_dir()).values():
        assert bool(command(stated)) == (stated.not_testable is None), stated.id


def test_records_frame():
    records = [*seeds(90.0, 91.0), record(run(options={"pool": [1, 2]}))]
    frame = records_frame(records)
    assert list(frame.columns[: len(RECORDS)]) == list(RECORDS)
    assert len(frame) == 3
    assert list(frame["best"]) == [90.0, 91.0, 90.0]
    assert frame["configuration"].nunique() == 2
    assert list(frame["options.pool"]) == [4, 4, "[1,2]"]
    assert list(records_frame([]).columns) == list(RECORDS)


# --- numbers by key

EVIDENCE = Evidence(
    sheets={
        "made-up": Sheet(
            paper="made-up",
            title="Made up",
            claims=CLAIMS,
            counted={},
            unread=(Unread(paper="made-up", figure="a", what="b", why="c"),),
        )
    },
    records=seeds(89.95, 90.05, final=88.0),
    counts=[count()],
    bench={
        "train": BenchRecord(
            name="train",
            what="training",
            baseline="authors",
            variants={
                name: {"what": "a way", "precision": "fp32", "images_per_second": [speed], "peak_bytes": peak}
                for name, speed, peak in (("authors", 1000.0, 2**21), ("fp32", 2540.0, 2**20), ("bf16", 1.0, None))
            },
            device="a CPU",
            threads=1,
            versions={"torch": "2.11"},
            commit=None,
            date="2026-01-31",
        )
    },
)
FIRST = EVIDENCE.records[0].id


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("claim:made-up/group/one:value", "90"),
        ("claim:made-up/group/one:error", "0"),
        ("claim:made-up/group/one:ours", "90.00"),
        ("claim:made-up/group/one:sd", "0.07"),
        ("claim:made-up/group/one:n", "2"),
        ("claim:made-up/group/one:final", "88.00"),
        ("claim:made-up/group/one:verdict", "reproduced"),
        ("claim:made-up/group/one:seconds", "200"),
        ("claim:made-up/group/two:difference", "-5.00"),
        ("claim:made-up/group/two:error", "0.01"),
        ("claim:made-up/group/two:runs", "2"),
        ("claim:made-up/group/four:value", "3,042"),
        ("claim:made-up/group/four:ours", "3,042"),
        ("claim:made-up/group/three:verdict", "not testable"),
        (f"record:{FIRST}:best", "89.95"),
        (f"record:{FIRST}:best_epoch", "1"),
        (f"record:{FIRST}:parameters", "3,042"),
        (f"record:{FIRST}:minutes", "1.7"),
        ("count:scoreboard:reproduced", "2"),
        ("count:scoreboard:not run", "0"),
        ("count:scoreboard:claims", "4"),
        ("count:scoreboard:tested", "3"),
        ("count:records:all", "2"),
        ("count:unread:all", "1"),
        ("bench:train:fp32:ratio", "2.5"),
        ("bench:train:fp32:memory_ratio", "0.50"),
        ("bench:train:fp32:images_per_second", "2,540"),
        ("bench:train:authors:peak_mib", "2"),
    ],
)
def test_lookup(key, text):
    assert lookup(key, EVIDENCE) == text


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("claims:made-up/group/one:value", "unknown kind 'claims'; did you mean 'claim'?"),
        ("claim:made-up/group/on:value", "unknown claim 'made-up/group/on'; did you mean made-up/group/one"),
        ("claim:made-up/group/one:valeu", "unknown field 'valeu'; did you mean 'value'?"),
        ("claim:made-up/group/one", "must be of the form claim:<claim id>:<field>"),
        ("claim:made-up/group/one:", "must be of the form"),
        ("claim", "must be of the form"),
        ("", "unknown kind ''"),
        ("claim:made-up/group/three:ours", "nothing is recorded for it yet"),
        ("record:0123456789ab:best", "unknown record '0123456789ab'"),
        ("count:scoreboard:done", "unknown field 'done'"),
        ("count:scores:all", "unknown count 'scores'"),
        ("bench:train:fp16:ratio", "unknown variant of bench train 'fp16'"),
        ("bench:train:bf16:memory_ratio", "nothing is recorded for it yet"),
        ("bench:eval:fp32:ratio", "unknown bench 'eval'"),
        ("bench:train:fp32", "must be of the form"),
    ],
)
def test_lookup_of_an_unknown_key(key, fault):
    with pytest.raises(RecordError) as caught:
        lookup(key, EVIDENCE)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lookup_reads_the_committed_evidence():
    assert lookup("claim:thriftynet/size-cifar10/t20-f32:value") == "75.07"
    assert int(lookup("count:scoreboard:claims")) == len(load_claims(claims_dir()))


def test_the_docstring_tells_the_constants_and_every_word():
    text = " ".join(verdicts.__doc__.split())
    assert all(f"*{word}*" in text for word in STATUSES)
    assert "t(0.975, v) S / sqrt(n) is at most 1." in text
    assert verdicts.CLOSE == 1.0
    assert "not reproduced from five runs on" in text
    assert verdicts.MAXIMUM_RUNS == 5
