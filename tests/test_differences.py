"""Claims that compare two networks: the interval's rule on both sides of each threshold, and what is shown of it."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from made_up import OPTIONS, claim, record, run
from scipy import stats

from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence import intervals
from thriftylib.evidence.claims import Claim, Spread, matches
from thriftylib.evidence.claims_files import ClaimsFile, load_claims
from thriftylib.evidence.intervals import compare, subtract
from thriftylib.evidence.numbers import Evidence, lookup
from thriftylib.evidence.records import load_records
from thriftylib.evidence.statuses import Verdict
from thriftylib.evidence.tables import command, scoreboard
from thriftylib.evidence.verdicts import judge
from thriftylib.paths import claims_dir, project_root, results_dir

PAGE = " ".join((project_root() / "book" / "protocols.md").read_text("utf-8").split())
STEPS = (-0.2, 0.0, 0.2, -0.1, 0.1)  # mean 0
WIDE = {**OPTIONS, "filters": 64}
NUDGE = 1e-6
HALF = stats.t.ppf(0.95, 4) * statistics.stdev(STEPS) / math.sqrt(5)
"""Half the 90 % interval of runs that deviate by STEPS, beside a network whose runs are all alike."""


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


def pairs(*gaps: float, step: float = 0.0, **more) -> list:
    """A pair of records for each gap; the narrow network's accuracy rises by ``step`` from seed to seed."""
    narrow = {seed: 60.0 + step * seed for seed in range(len(gaps))}
    wide = {seed: narrow[seed] + gap for seed, gap in enumerate(gaps)}
    return seeds(WIDE, wide, **more) + seeds(OPTIONS, narrow, **more)


def around(centre: float, **more) -> list:
    return pairs(*(centre + step for step in STEPS), **more)


def status(stated: Claim, records: list) -> str:
    return judge(stated, records).status


def word(stated: Claim, centre: float) -> str:
    """What numbers are called: they may lie nearer to a threshold than ten thousand test images can."""
    found = subtract({seed: 60.0 + centre + step for seed, step in enumerate(STEPS)}, dict.fromkeys(range(5), 60.0))
    return compare(stated, found).status


# --- the interval


def interval(wide: list[float], narrow: list[float]) -> tuple[float, float]:
    found = stats.ttest_ind(wide, narrow, equal_var=False).confidence_interval(0.90)
    return pytest.approx(found.low), pytest.approx(found.high)


@pytest.mark.parametrize("shift", [0, 7])
def test_the_interval_is_welchs_whatever_the_seeds(shift):
    wide, narrow = [61.0, 62.5, 61.7, 62.2], [60.0, 60.9, 60.2]
    records = seeds(WIDE, dict(enumerate(wide))) + seeds(OPTIONS, {seed + shift: x for seed, x in enumerate(narrow)})
    verdict = judge(difference(), records)
    assert verdict.interval == interval(wide, narrow)
    assert (verdict.n, verdict.sd, verdict.status) == (3, None, "reproduced")
    assert "from 4 and 3 runs" in verdict.reason


def test_equal_seeds_are_no_pairs():
    """Seeds that rise together would make paired differences look certain: here each pair differs by just 1."""
    records = pairs(1.0, 1.0, 1.0, step=2.0)
    assert judge(difference(), records).interval == interval([61.0, 63.0, 65.0], [60.0, 62.0, 64.0])
    assert status(difference(), records) == "consistent"
    assert "pair" not in judge(difference(), records).reason


def test_runs_that_share_more_than_their_order_are_paired_where_the_claim_says_so():
    stated = difference(paired="the weights that both start from")
    verdict = judge(stated, pairs(*(1.0 + step for step in STEPS), step=3.0))
    assert verdict.interval == (pytest.approx(1.0 - HALF), pytest.approx(1.0 + HALF))
    expected = stats.ttest_1samp([1 + step for step in STEPS], 0).confidence_interval(0.90)
    assert verdict.interval == pytest.approx((expected.low, expected.high))
    assert "5 pairs of runs that share the weights that both start from" in verdict.reason
    common = judge(stated, pairs(1.0, 1.1, 1.2, step=3.0) + seeds(WIDE, {7: 10.0}))
    assert (common.ours, common.n) == (pytest.approx(1.1), 3)


def test_the_order_of_seeds_says_nothing():
    ours, theirs = {0: 61.0, 1: 64.0, 2: 67.5}, {2: 66.0, 0: 60.0, 1: 63.0}
    assert subtract(ours, theirs, paired=True).pairs == (pytest.approx(1 / 12), 3)
    found = subtract(ours, theirs)
    assert (found.mean, found.n, found.pairs) == (pytest.approx(3.5 / 3), 3, None)
    assert [side.runs for side in found.sides] == [3, 3]


def test_runs_that_agree_exactly_have_no_width():
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
    assert word(difference(relation), centre) == expected


def test_a_wide_interval_is_not_equality():
    """That no difference was found says nothing: the seeds differ too much."""
    assert status(difference("equal"), pairs(-2.0, 0.0, 2.0)) == "consistent"
    assert status(difference("no gain"), pairs(-2.0, 0.0, 2.0)) == "consistent"


# --- a gain: close is half of it


def beside(theirs: tuple[float, float] | None, runs: int, ours=STEPS) -> float:
    """Half the 90 % interval of our difference less the paper's, from scipy.stats; the narrow side does not scatter."""
    n, variance = len(ours), statistics.variance(ours)
    if theirs is None:
        return stats.t.ppf(0.95, n - 1) * math.sqrt(variance * (1 / n + 1 / runs))
    terms = [(variance / n, n - 1), *((spread**2 / runs, runs - 1) for spread in theirs)]
    total = sum(term for term, _ in terms)
    return stats.t.ppf(0.95, total**2 / sum(term**2 / freedom for term, freedom in terms)) * math.sqrt(total)


def known(spreads: tuple[float, float], runs: int) -> dict:
    return {"runs": runs, "side_spreads": tuple(Spread(deviation=each, runs=runs) for each in spreads)}


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("more", "half"),
    [
        ({}, beside(None, 1)),
        ({"runs": 4}, beside(None, 4)),
        (known((0.2, 0.3), 5), beside((0.2, 0.3), 5)),
        (known((0.02, 0.03), 2), beside((0.02, 0.03), 2)),
    ],
)
def test_each_word_of_a_gain_ends_where_the_interval_meets_half_of_it(side, more, half):
    stated = difference("value", error=0.04, **more)
    band = 0.04 + 0.75
    assert half < band

    def at(off: float) -> str:
        return word(stated, 1.5 + side * off)

    assert at(band - half - NUDGE) == "reproduced"
    assert at(band - half + NUDGE) == at(band - NUDGE) == "consistent"
    assert at(band + NUDGE) == at(band + half - NUDGE) == "at odds"
    assert at(band + half + NUDGE) == "not reproduced"
    verdict = judge(stated, around(1.5))
    assert verdict.tolerance == pytest.approx(band)
    assert verdict.distance == (pytest.approx(-half), pytest.approx(half))
    assert verdict.interval == (pytest.approx(1.5 - HALF), pytest.approx(1.5 + HALF))


def test_the_papers_runs_are_not_paired_where_ours_are():
    stated = difference("value", paired="their parent", **known((0.2, 0.3), 5))
    half = judge(stated, pairs(*(1.5 + step for step in STEPS), step=3.0)).distance[1]
    assert half == pytest.approx(beside((0.2, 0.3), 5))


def test_where_the_papers_spread_is_not_known_its_runs_scatter_as_our_sides_do():
    gaps = [1.5 + step for step in STEPS]
    verdict = judge(difference("value", paired="their parent", runs=5), pairs(*gaps, step=3.0))
    narrow = [60.0 + 3 * seed for seed in range(5)]
    wide = [low + gap for low, gap in zip(narrow, gaps, strict=True)]
    terms = [statistics.variance(STEPS) / 5, statistics.variance(wide) / 5, statistics.variance(narrow) / 5]
    freedom = sum(terms) ** 2 / sum(term**2 / 4 for term in terms)
    assert verdict.distance[1] == pytest.approx(stats.t.ppf(0.95, freedom) * math.sqrt(sum(terms)))


SMALLNET = {0: 74.24, 1: 73.86, 2: 72.46, 3: 73.10, 4: 73.66}
"""ExpandNets, table B on CIFAR-10, our five runs; below those with FC."""
FC = {0: 74.21, 1: 74.79, 2: 73.77, 3: 73.65, 4: 73.61}


def test_an_interval_that_holds_zero_reproduces_no_gain():
    """FC's claimed gain of +0.46 was "reproduced" beside an interval from -0.20 to +1.28."""
    records = seeds(WIDE, FC) + seeds(OPTIONS, SMALLNET)
    stated = {"value": 0.46, "error": 0.01, **known((0.93, 0.22), 5)}
    verdict = judge(difference("value", **stated), records)
    assert verdict.status == "consistent"
    assert verdict.interval[0] < 0 < verdict.interval[1]
    assert verdict.tolerance == pytest.approx(0.24)


@pytest.mark.parametrize("value", [0.01, 0.0, -0.01, 0.03, -0.03])
def test_a_gain_near_zero_is_not_reproduced_as_a_gain(value):
    """Within its reading error it has no sign; a little beyond, zero must still lie outside our interval."""
    stated = difference("value", value=value, error=0.02)
    exact = [status(stated, pairs(*[value] * 3)), status(stated, pairs(0.0, 0.0, 0.0))]
    has_sign = abs(value) > 0.02
    assert exact == ["reproduced" if has_sign else "consistent", "consistent"]
    assert status(stated, pairs(1.0, 1.0, 1.0)) == "not reproduced"
    assert ("no larger than its reading error" in judge(stated, pairs(1.0)).reason) != has_sign


def test_a_gain_of_wide_scatter_decides_nothing():
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


@pytest.mark.parametrize("relation", ["greater", "equal", "no gain", "value"])
@pytest.mark.parametrize("centre", [1.5, 0.0, -1.0])
def test_another_recipe_is_shown_and_decides_nothing(relation, centre):
    verdict = judge(difference(relation), around(centre, recipe="fast"))
    assert verdict.status == "other recipe"
    assert verdict.ours == pytest.approx(centre)
    assert "with another recipe, fast (3 epochs) on both sides" in verdict.reason
    assert verdict.tolerance is verdict.distance is None
    assert verdict.interval is not None


def test_of_other_recipes_the_one_with_most_runs_is_shown():
    records = pairs(0.1, 0.2, recipe="fast") + pairs(5.0, recipe="slow")
    assert judge(difference(), records).recipe == "fast"


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
        ({"quantity": "no_such_difference"}, "unknown quantity 'no_such_difference'"),
        ({"quantity": "prune_ratio_difference"}, "unknown quantity 'prune_ratio_difference'"),
        ({"bound": "more than"}, "do not go with"),
        ({"values": [1.0, 2.0], "runs": 2}, "do not go with"),
        ({"margin": 1.0}, "margin = 1.0"),
        ({"relation": "equal", "margin": None}, "margin = None"),
        ({"relation": None}, "lacks relation"),
        ({"relation": "above"}, "Claim.relation = 'above'"),
        ({"quantity": "test_accuracy", "unit": "%", "value": 90.0}, "against: must be"),
        ({"quantity": "test_accuracy", "unit": "%", "value": 90.0, "against": None}, "relation = 'greater'"),
        ({"statistic": "count"}, "does not go with"),
        ({"inferred_from_itself": True}, "are said of counts alone"),
    ],
)
def test_what_cannot_be_a_difference(more, fault):
    with pytest.raises(ThriftyError) as caught:
        difference(**more)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_difference_of_any_quantity():
    """Parameters that a run kept: no list of differences has to know of them."""
    counted = {"macs": 5, "ptflops_macs": 6, "weight_bytes": 7, "activation_bytes": 8, "test_accuracy": 1.0}
    counted |= {"test_loss": None, "shapes": {"weight": (1, 2)}}
    records = [
        record(one.run, final=1.0, kept={**counted, "parameters": 900 + 100 * (one.run.seed == 1)})
        if one.run.network.options == WIDE
        else one
        for one in pairs(1.0, 1.0, 1.0)
    ]
    stated = difference(quantity="kept_parameters_difference", unit="", statistic="mean over runs", value=-2100.0)
    verdict = judge(stated.model_copy(update={"relation": "value"}), records)
    assert verdict.ours == pytest.approx((900 + 1000 + 900) / 3 - 3042)
    assert (verdict.status, verdict.tolerance) == ("reproduced", 1050.0)


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
    loaded = ClaimsFile(paper="made-up", title="Made up", claims={stated.id: stated}, counted={}, unavailable=())
    evidence = Evidence(files={"made-up": loaded}, records=around(1.0))
    found = {key: lookup(f"claim:made-up/group/two:{key}", evidence) for key in ("value", "ours", "low", "high", "n")}
    assert found == {"value": "1.5", "ours": "1.00", "low": f"{1 - HALF:.2f}", "high": f"{1 + HALF:.2f}", "n": "5"}


def test_the_page_tells_the_constants():
    assert "from three runs of each side on" in PAGE
    assert "or fewer than three runs of a side" in PAGE
    assert intervals.SEEDS == 3
    assert "with the 90 % interval of two independent samples" in PAGE
    assert intervals.LEVEL == 0.95
    assert "close is half the claimed gain" in PAGE
    assert "interval" in Verdict.__doc__


def test_equal_seeds_are_no_reason_to_pair():
    """The numbers of the rule's text, worked out again from the records that they were taken from."""
    runs: dict[str, dict[int, float]] = {}
    claims = load_claims(claims_dir())
    rows = [claims[f"expandnets/table-b/cifar10-{row}"] for row in ("smallnet", "fc", "cl", "cl-fc")]
    for one in load_records(results_dir()):
        for row in rows:
            if matches(row, one.run):
                runs.setdefault(row.id, {})[one.run.seed] = one.best.test_accuracy
    sides = [[side[seed] for seed in range(5)] for side in runs.values()]
    pairs = list(itertools.combinations(sides, 2))
    assert len(pairs) == 6
    correlations = [statistics.correlation(one, other) for one, other in pairs]
    wider = 0
    for one, other in pairs:
        seeds = [dict(enumerate(side)) for side in (one, other)]
        wider += subtract(*seeds, paired=True).half > subtract(*seeds).half
    told = f"by {min(correlations):.2f} to {max(correlations):.2f}, {statistics.fmean(correlations):.2f} in the mean"
    assert told in PAGE
    assert f"the paired interval is wider in {('none', 'one', 'two', 'three')[wider]} of six" in PAGE
