"""What runs are worth: seeds of a claim's weakest side, and nothing for one side of a difference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import OPTIONS, claim, record, run

from thriftylib.evidence.claims import SEEDS
from thriftylib.running.worth import FIRST, MAX_SEEDS, NARROWS, WEIGHT, Bundle, Ledger, RunKey, Words, value

A, B, OTHER = ({**OPTIONS, "filters": filters} for filters in (32, 64, 96))
SETTING = {"network": "made-up", "dataset": "cifar10", "recipes": {"paper-recipe": 3}}


def difference(**more):
    fields = {
        "id": "made-up/group/difference",
        "quantity": "test_accuracy_difference",
        "unit": "points",
        "value": 1.0,
        "relation": "greater",
        "setting": SETTING | {"options": A},
        "against": SETTING | {"options": B},
        **more,
    }
    return claim(**fields)


def ledger(*claims, records=(), runs=None, **more) -> Ledger:
    known = {one.configuration: one for one in runs or [run(options=options) for options in (A, B)]}
    return Ledger({one.id: one for one in claims}, known, records, **more)


def keys(options, *seeds):
    return [RunKey(run(options=options).configuration, seed) for seed in seeds]


def test_steps_of_a_claim():
    one = claim()
    worth = [value(one, seeds) for seeds in range(MAX_SEEDS + 2)]
    assert worth == pytest.approx([0, FIRST, FIRST, 1, 1 + NARROWS, 1 + 2 * NARROWS, 1 + 2 * NARROWS])
    assert one.seeds_needed == SEEDS == 3
    assert FIRST < 1 / SEEDS  # three seeds of one claim before the first of three


def test_the_best_of_several_runs_needs_their_number():
    best = claim(statistic="best epoch of the best run")
    assert [value(best, seeds) for seeds in (0, 1, 3, 4, 5)] == [0, FIRST, FIRST, FIRST, 1]
    assert {bundle.seeds for bundle in ledger(best).bundles()} == {1, 5}


def test_a_first_seed_brings_a_weak_word_and_the_third_a_strong_one():
    book = ledger(claim())
    assert book.gain(keys(A, 0, 1, 2)) == pytest.approx(1)
    assert [book.add(key) for key in keys(A, 0, 1, 2, 3)] == [Words(1, 0), Words(0, 0), Words(0, 1), Words(0, 0)]
    assert book.gain(keys(A, 4)) == pytest.approx(NARROWS)


def test_one_side_of_a_difference_gains_nothing():
    book = ledger(difference())
    assert book.gain(keys(A, 0, 1, 2)) == 0
    assert book.gain(keys(A, 0) + keys(B, 0)) == pytest.approx(FIRST)
    assert [book.add(key) for key in keys(A, 0, 1, 2)] == [Words(0, 0)] * 3
    assert book.gain(keys(B, 0, 1, 2)) == pytest.approx(1)


def test_two_recipes_make_no_difference():
    recipes = {"recipes": {"paper-recipe": 3, "other": 3}}
    asked = difference(setting=SETTING | {"options": A} | recipes, against=SETTING | {"options": B} | recipes)
    ours, theirs = run(options=A), run(options=B, recipe="other")
    book = ledger(asked, runs=[ours, theirs])
    assert book.bundles() == []
    assert book.gain([RunKey(ours.configuration, 0), RunKey(theirs.configuration, 0)]) == 0


def test_seeds_of_two_configurations_are_not_added_up():
    options = {key: value for key, value in OPTIONS.items() if key != "filters"}
    book = ledger(claim(setting=SETTING | {"options": options}))
    assert book.gain(keys(A, 0, 1) + keys(B, 0)) == pytest.approx(FIRST)
    assert book.gain(keys(A, 0, 1, 2) + keys(B, 0)) == pytest.approx(1)


def test_records_count_and_claims_that_no_training_answers_do_not():
    untestable = claim(id="made-up/group/two", not_testable="the data are lost")
    book = ledger(claim(), untestable, records=[record(run(seed=7, options=A)), record(run(seed=8, options=A))])
    assert set(book.claims) == {"made-up/group/one"}
    assert book.gain(keys(A, 0)) == pytest.approx(1 - FIRST)
    assert book.gain(keys(OTHER, 0)) == 0


def test_abstracts_and_headlines_weigh_more():
    assert ledger(claim(mark="ABSTRACT")).gain(keys(A, 0)) == pytest.approx(WEIGHT * FIRST)
    ((configuration, _),) = keys(A, 0)
    assert ledger(claim(), headlines=[configuration]).gain(keys(A, 0)) == pytest.approx(WEIGHT * FIRST)


def test_a_bundle_is_the_missing_runs_of_both_sides_seed_by_seed():
    book = ledger(difference(), records=[record(run(seed=1, options=A))])
    bundle = next(bundle for bundle in book.bundles() if bundle.seeds == 3)
    (a, _), (b, _) = (*keys(A, 0), *keys(B, 0))
    assert book.missing(bundle, [0, 1, 2, 3]) == [(a, 0), (b, 0), (b, 1), (a, 2), (b, 2)]
    assert book.missing(bundle, [0, 1]) is None


CLAIMS = (claim(), difference(), claim(id="made-up/group/best", statistic="best epoch of the best run"))
RUNS = st.sets(st.tuples(st.sampled_from([0, 1]), st.integers(0, 4)), max_size=10)


def recorded(chosen):
    return [record(run(seed=seed, options=(A, B)[which])) for which, seed in sorted(chosen)]


@settings(deadline=None, max_examples=50)
@given(RUNS, st.tuples(st.sampled_from([0, 1]), st.integers(0, 4)), st.integers(1, 5))
def test_a_record_never_makes_a_claims_bundle_more_expensive(there, another, seeds):
    cost = {run(options=A).configuration: 3.0, run(options=B).configuration: 5.0}

    def seconds(chosen, bundle):
        missing = ledger(*CLAIMS, records=recorded(chosen)).missing(bundle, range(5))
        return sum(cost[configuration] for configuration, _ in missing)

    for bundle in ledger(*CLAIMS).bundles():
        towards = Bundle(bundle.claim, bundle.configurations, seeds)
        assert seconds(there | {another}, towards) <= seconds(there, towards)


@settings(deadline=None, max_examples=50)
@given(RUNS, RUNS)
def test_runs_gain_what_their_words_say(there, more):
    more -= there
    book = ledger(*CLAIMS, records=recorded(there))
    before = {key: value(one, book.reached(key)) for key, one in book.claims.items()}
    gain = book.gain([RunKey(run(options=(A, B)[which]).configuration, seed) for which, seed in more])
    for which, seed in sorted(more):
        book.add(RunKey(run(options=(A, B)[which]).configuration, seed))
    after = {key: value(one, book.reached(key)) for key, one in book.claims.items()}
    assert gain == pytest.approx(sum(after.values()) - sum(before.values()))
    assert gain >= 0
    only_one_side = {which for which, _ in there | more} != {0, 1}
    if only_one_side:
        assert book.reached("made-up/group/difference") == 0
