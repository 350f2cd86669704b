"""How much is tested so far: counted by hand on made-up claims, and what the README and the pages say of it."""

from pathlib import Path

import pytest
from made_up import OPTIONS, claim, record, run

from thriftylib.errors import RecordError
from thriftylib.evidence.claims_files import load_claims, load_claims_files
from thriftylib.evidence.coverage import MARKS, Coverage, with_sentence
from thriftylib.evidence.numbers import Evidence, lookup
from thriftylib.evidence.records import load_records
from thriftylib.paths import claims_dir, results_dir

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = Coverage.of(load_claims(claims_dir()).values(), load_records(results_dir()))
SETTING = {"network": "made-up", "dataset": "cifar10", "recipes": {"paper-recipe": 3}, "options": OPTIONS}
OTHER = {**SETTING, "options": {**OPTIONS, "filters": 64}}


def difference(**more):
    return claim(
        **{"quantity": "test_accuracy_difference", "unit": "points", "relation": "value", "value": 1.0},
        **{"setting": SETTING, "against": OTHER, **more},
    )


def test_each_claim_is_of_one_kind():
    counted = claim(quantity="parameters", unit="", statistic="count", value=3042, experiment=None)
    found = Coverage.of([claim(), difference(), counted, claim(not_testable="no"), claim(setting=OTHER)], [])
    assert found == Coverage(claims=5, untestable=1, counted=1, trainable=3, trained=0, trainings=0)


def test_a_claim_is_tested_by_its_own_recipe_and_a_difference_by_both_sides():
    own = [record(run(seed=seed)) for seed in (0, 1)]
    against = record(run(options={**OPTIONS, "filters": 64}))
    claims = [claim(), difference()]
    assert Coverage.of(claims, own).trained == 1
    assert Coverage.of(claims, [record(run(recipe="another-recipe")), record(run(epochs=2))]).trained == 0
    both = Coverage.of(claims, [*own, against])
    assert (both.trained, both.trainings) == (2, 3), "a run that answers two claims is one run"


def test_the_sentence():
    found = Coverage(claims=1200, untestable=30, counted=70, trainable=1100, trained=1001, trainings=12)
    assert str(found) == (
        "Claims tested by their own recipe so far: 1,001, by 12 training runs; "
        "the first page of the site says what is left."
    )
    text = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter"
    assert with_sentence(text, found).split() == [
        "before",
        *MARKS[0].split(),
        *str(found).split(),
        *MARKS[1].split(),
        "after",
    ]
    assert with_sentence(with_sentence(text, found), found) == with_sentence(text, found)
    with pytest.raises(ValueError, match="once each"):
        with_sentence("no marks", found)


def test_the_readme_says_what_the_records_say():
    text = (ROOT / "README.md").read_text("utf-8")
    assert text == with_sentence(text, COMMITTED), "README.md is stale: run `make tested`"


@pytest.mark.parametrize(
    ("page", "name"),
    [("index", "every paper"), *((name, name) for name in load_claims_files(claims_dir()))],
)
def test_every_page_says_how_much_of_it_is_tested(page, name):
    text = (ROOT / "book" / f"{page}.md").read_text("utf-8")
    for field in ("trained", "trainable", "trainings", "counted", "untestable"):
        assert text.count(f"{{num}}`count:{name}:{field}`") == 1


def test_numbers_of_the_pages():
    evidence = Evidence.load(claims_dir(), results_dir())
    assert lookup("count:every paper:trained", evidence) == f"{COMMITTED.trained:,}"
    papers = [evidence.numbers["count"][name] for name in evidence.files]
    for field in ("claims", "untestable", "counted", "trainable", "trained"):
        assert sum(paper[field] for paper in papers) == getattr(COMMITTED, field)


def test_a_measured_number_has_its_key():
    made = record(run(), measured={"batch_statistics_accuracy": 22.6189, "cosines": [0.1, 0.2]})
    evidence = Evidence(files={}, records=[made])
    assert lookup(f"record:{made.id}:batch_statistics_accuracy", evidence) == "22.62"
    with pytest.raises(RecordError, match="unknown field 'cosines'"):
        lookup(f"record:{made.id}:cosines", evidence)
