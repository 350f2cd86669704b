"""Claims that compare two networks: the interval's rule on both sides of each threshold, and what is shown of it."""

from __future__ import annotations

import math
import statistics

import pytest
from made_up import OPTIONS, claim, record, run
from scipy import stats

from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence import differences
from thriftylib.evidence.claims import Claim, matches
from thriftylib.evidence.differences import Difference, subtract
from thriftylib.evidence.numbers import Evidence, lookup
from thriftylib.evidence.outcomes import Verdict
from thriftylib.evidence.sheets import Sheet
from thriftylib.evidence.tables import command, scoreboard
from thriftylib.evidence.verdicts import judge

STEPS = (-0.2, 0.0, 0.2, -0.1, 0.1)  # mean 0
WIDE = {**OPTIONS, "filters": 64}
NUDGE = 1e-6
HALF = stats.t.ppf(0.975, 4) * statistics.stdev(STEPS) / math.sqrt(5)


def setting(options: dict, **more) -> dict:
    return {"network": "made-up", "dataset": "cifar10", "recipes": {"paper-recipe": 3}, "options": options, **more}


def difference(relation: str = "greater", **more) -> Claim:
    """The wide network less the narrow one."""
    fields = {
        "quantity": "test_accuracy_difference",
        "unit": "points",
        "value": 1.5,
        "relation": relation,
        "margin": 0.5 if relation in ("equal", "no gain") else None,
        "setting": setting(WIDE),
        "against": setting(OPTIONS),
    }
    return claim(**{**fields, **more})


def seeds(options: dict, best: dict[int, float], **more) -> list:
    return [record(run(seed, options=options, **more), best=value, final=1.0) for seed, value in best.items()]


def pairs(*gaps: float, **more) -> list:
    """A pair of records for each gap; the narrow network's accuracy differs from seed to seed."""
    narrow = {seed: 60.0 + 3 * seed for seed in range(len(gaps))}
    wide = {seed: narrow[seed] + gap for seed, gap in enumerate(gaps)}
    return seeds(WIDE, wide, **more) + seeds(OPTIONS, narrow, **more)


def around(centre: float, **more) -> list:
    return pairs(*(centre + step for step in STEPS), **more)


def status(stated: Claim, records: list) -> str:
    return judge(stated, records).status


# --- the interval


def test_the_interval_of_pairs_is_students():
    verdict = judge(difference(), around(1.0))
    assert verdict.interval == (pytest.approx(1.0 - HALF), pytest.approx(1.0 + HALF))
    assert (verdict.ours, verdict.n, verdict.sd) == (pytest.approx(1.0), 5, None)
    assert verdict.interval == pytest.approx(stats.ttest_1samp([1 + step for step in STEPS], 0).confidence_interval())


@pytest.mark.parametrize("shift", [0, 7])
def test_the_interval_of_unequal_seeds_is_welchs(shift):
    wide, narrow = [61.0, 62.5, 61.7, 62.2], [60.0, 60.9, 60.2]
    records = seeds(WIDE, dict(enumerate(wide))) + seeds(OPTIONS, {seed + shift: x for seed, x in enumerate(narrow)})
    verdict = judge(difference(), records)
    expected = stats.ttest_ind(wide, narrow, equal_var=False).confidence_interval()
    assert verdict.interval == pytest.approx((expected.low, expected.high))
    assert (verdict.n, verdict.status) == (3, "reproduced")
    assert "at least 3 runs of each side" in verdict.reason


def test_the_same_seeds_in_another_order_are_the_same_difference():
    ours, theirs = {0: 61.0, 1: 64.0, 2: 67.5}, {2: 66.0, 0: 60.0, 1: 63.0}
    assert subtract(ours, theirs) == Difference(pytest.approx(3.5 / 3), ((pytest.approx(1 / 12), 3),), 3, True)


def test_pairs_that_agree_exactly_have_no_width():
    verdict = judge(difference(), pairs(1.0, 1.0, 1.0))
    assert (verdict.status, verdict.interval) == ("reproduced", (pytest.approx(1.0), pytest.approx(1.0)))


# --- the words


@pytest.mark.parametrize(
    ("relation", "centre", "expected"),
    [
        ("greater", HALF + NUDGE, "reproduced"),
        ("greater", HALF - NUDGE, "consistent"),
        ("greater", NUDGE, "consistent"),
        ("greater", -NUDGE, "at odds"),
        ("greater", -HALF + NUDGE, "at odds"),
        ("greater", -HALF - NUDGE, "not reproduced"),
        ("no gain", -40.0, "reproduced"),
        ("no gain", 0.5 - HALF - NUDGE, "reproduced"),
        ("no gain", 0.5 - HALF + NUDGE, "consistent"),
        ("no gain", 0.5 + NUDGE, "at odds"),
        ("no gain", 0.5 + HALF + NUDGE, "not reproduced"),
        ("equal", 0.5 - HALF - NUDGE, "reproduced"),
        ("equal", -0.5 + HALF + NUDGE, "reproduced"),
        ("equal", 0.5 - HALF + NUDGE, "consistent"),
        ("equal", -0.5 + HALF - NUDGE, "consistent"),
        ("equal", 0.5 + NUDGE, "at odds"),
        ("equal", -0.5 - NUDGE, "at odds"),
        ("equal", 0.5 + HALF + NUDGE, "not reproduced"),
        ("equal", -0.5 - HALF - NUDGE, "not reproduced"),
    ],
)
def test_relations(relation, centre, expected):
    assert status(difference(relation), around(centre)) == expected


def test_a_wide_interval_is_not_equality():
    """That no difference was found says nothing: the seeds differ too much."""
    assert status(difference("equal"), pairs(-2.0, 0.0, 2.0)) == "consistent"
    assert status(difference("no gain"), pairs(-2.0, 0.0, 2.0)) == "consistent"


VALUE_ROOM = 0.04 + stats.t.ppf(0.975, 4) * statistics.stdev(STEPS) * math.sqrt(1 / 5 + 1)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (VALUE_ROOM - NUDGE, "reproduced"),
        (VALUE_ROOM + NUDGE, "partly"),
        (1.04 - NUDGE, "partly"),
        (1.04 + NUDGE, "not reproduced"),
    ],
)
def test_values(side, away, expected):
    stated = difference("value", error=0.04)
    verdict = judge(stated, around(1.5 + side * away))
    assert verdict.status == expected
    assert verdict.tolerance == pytest.approx(VALUE_ROOM)


def test_the_papers_own_runs_narrow_the_tolerance_of_a_value():
    room = stats.t.ppf(0.975, 4) * statistics.stdev(STEPS) * math.sqrt(1 / 5 + 1 / 4)
    assert judge(difference("value", runs=4), around(1.5)).tolerance == pytest.approx(room)


def test_a_value_of_wide_scatter_decides_nothing():
    assert status(difference("value"), pairs(-3.0, 1.5, 6.0)) == "consistent"
    assert status(difference("value"), pairs(-3.0, 6.0, 9.0)) == "at odds"


@pytest.mark.parametrize("relation", ["greater", "no gain", "equal", "value"])
@pytest.mark.parametrize("gaps", [(1.5,), (1.5, 1.5), (0.1, 0.1), (-9.0, -9.0), (-0.3,)])
def test_fewer_than_three_pairs_never_decide(relation, gaps):
    verdict = judge(difference(relation), pairs(*gaps))
    assert verdict.status in ("consistent", "at odds")
    assert (verdict.interval is None) == (len(gaps) == 1)


def test_two_runs_of_one_side_never_decide():
    records = seeds(WIDE, dict.fromkeys(range(5), 70.0)) + seeds(OPTIONS, {0: 60.0, 1: 60.1})
    assert status(difference(), records) == "consistent"
    assert judge(difference(), [*records[:5], records[5]]).n == 1


# --- which records


def test_one_side_alone_is_not_run():
    verdict = judge(difference(), seeds(WIDE, {0: 70.0, 1: 70.0}))
    assert (verdict.status, verdict.ours) == ("not run", None)
    assert "2 of the first and 0 of the second" in verdict.reason
    assert judge(difference(), []).reason.startswith("No records of both networks with the recipe paper-recipe")


def test_two_recipes_are_no_comparison():
    records = seeds(WIDE, {0: 70.0, 1: 70.0, 2: 70.0}) + seeds(OPTIONS, {0: 60.0, 1: 60.0, 2: 60.0}, recipe="other")
    assert status(difference(), records) == "not run"
    same_name = seeds(WIDE, dict.fromkeys(range(3), 70.0)) + seeds(OPTIONS, dict.fromkeys(range(3), 60.0), epochs=4)
    assert status(difference(), same_name) == "not run"


@pytest.mark.parametrize(
    ("relation", "centre", "expected"),
    [
        ("greater", 1.0, "partly"),
        ("greater", 0.1, "not run"),
        ("greater", -1.0, "not run"),
        ("equal", 0.0, "partly"),
        ("equal", 2.0, "not run"),
        ("value", 1.5, "partly"),
        ("value", 2.3, "not run"),
    ],
)
def test_another_recipe_is_at_most_partly(relation, centre, expected):
    verdict = judge(difference(relation), around(centre, recipe="fast"))
    assert verdict.status == expected
    assert verdict.ours == pytest.approx(centre)
    assert "with another recipe, fast (3 epochs) on both sides" in verdict.reason


def test_another_recipe_with_few_seeds_is_not_run():
    assert status(difference(), pairs(5.0, 5.0, recipe="fast")) == "not run"


def test_the_own_recipe_decides_over_another():
    verdict = judge(difference(), pairs(1.0) + around(-9.0, recipe="fast"))
    assert (verdict.status, verdict.n, verdict.recipe) == ("consistent", 1, "paper-recipe")


def test_of_several_configurations_the_one_with_most_runs():
    records = around(1.0) + seeds({**WIDE, "more": 1}, {0: 0.0})
    verdict = judge(difference(), records)
    assert (verdict.n, verdict.status) == (5, "reproduced")
    assert "1 other fitting configuration with fewer runs left out" in verdict.reason


def test_the_claims_own_statistic_and_the_last_epoch_beside_it():
    records = pairs(1.0, 1.1, 1.2)
    assert judge(difference(), records).best == pytest.approx(1.1)
    assert judge(difference(), records).final == 0.0
    assert judge(difference(statistic="last epoch of one run"), records).ours == 0.0


def test_a_run_that_diverged_counts_and_is_told():
    records = pairs(1.0, 1.1, 1.2)
    records[0] = record(records[0].run, best=10.0, final=1.0, status="diverged")
    verdict = judge(difference(), records)
    assert verdict.ours == pytest.approx((10.0 - 60.0 + 1.1 + 1.2) / 3)
    assert "1 of 6 diverged" in verdict.reason


def test_a_record_given_twice():
    records = pairs(1.0)
    with pytest.raises(RecordError, match="given twice"):
        judge(difference(), records + records[:1])


def test_both_sides_answer():
    stated = difference()
    assert matches(stated, run(options=WIDE))
    assert matches(stated, run(options=OPTIONS))
    assert not matches(stated, run(options={**OPTIONS, "filters": 16}))
    assert not matches(stated, run(options=WIDE, recipe="other"))


# --- what a file may say


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"against": None}, "lacks against"),
        ({"against": setting(WIDE)}, "must be another setting"),
        ({"against": setting(OPTIONS, recipes={})}, "lacks setting.recipes"),
        ({"unit": "%"}, "must be 'points'"),
        ({"bound": "more than"}, "do not go with"),
        ({"values": [1.0, 2.0], "runs": 2}, "do not go with"),
        ({"margin": 1.0}, "margin = 1.0"),
        ({"relation": "equal", "margin": None}, "margin = None"),
        ({"relation": None}, "lacks relation"),
        ({"relation": "above"}, "Claim.relation = 'above'"),
        ({"quantity": "test_accuracy", "unit": "%", "value": 90.0}, "against: must be"),
        ({"quantity": "test_accuracy", "unit": "%", "value": 90.0, "against": None}, "relation = 'greater'"),
        ({"statistic": "count"}, "does not go with"),
    ],
)
def test_what_cannot_be_a_difference(more, fault):
    with pytest.raises(ThriftyError) as caught:
        difference(**more)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_negative_difference_is_a_value():
    assert difference("no gain", value=-0.23).value == -0.23


# --- tables and numbers


def test_it_stands_among_the_others():
    stated = difference(id="made-up/group/two")
    row = scoreboard({stated.id: stated}, around(1.0)).to_dict("records")[0]
    assert (row["claimed"], row["ours"], row["n"]) == (1.5, pytest.approx(1.0), 5)
    assert row["spread"] == pytest.approx(HALF)
    assert (row["difference"], row["verdict"]) == (pytest.approx(-0.5), "reproduced")
    assert row["cost"] == pytest.approx(200.0)
    assert command(stated) == "thrifty train made-up-experiment --preset paper --only made-up/group/two"


def test_its_numbers():
    stated = difference(id="made-up/group/two")
    sheet = Sheet(paper="made-up", title="Made up", claims={stated.id: stated}, counted={}, unread=())
    evidence = Evidence(sheets={"made-up": sheet}, records=around(1.0))
    found = {key: lookup(f"claim:made-up/group/two:{key}", evidence) for key in ("value", "ours", "low", "high", "n")}
    assert found == {"value": "1.5", "ours": "1.00", "low": f"{1 - HALF:.2f}", "high": f"{1 + HALF:.2f}", "n": "5"}


def test_the_docstring_tells_the_constants():
    text = " ".join(differences.__doc__.split())
    assert "from three pairs on" in text
    assert differences.PAIRS == 3
    assert "half width is at most 1 point" in text
    assert "interval" in Verdict.__doc__
