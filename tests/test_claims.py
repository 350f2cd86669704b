"""Claims: the values of the files are there, each with its source and error, and a wrong file is refused by name."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from made_up import OPTIONS, claim, run

from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence.claims import matches
from thriftylib.evidence.claims_files import load_claims, load_claims_file, load_claims_files, locate
from thriftylib.evidence.counts import count_claims, load_counts
from thriftylib.evidence.verdicts import judge
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.paths import claims_dir, results_dir

FILE = load_claims_file(claims_dir() / "thriftynet.yaml")
CLAIMS = FILE.claims


def value(name: str) -> float:
    return CLAIMS[f"thriftynet/{name}"].value


def test_complete():
    groups = Counter(key.split("/")[1] for key in CLAIMS)
    assert groups == {
        "abstract": 3,
        "size-cifar10": 21,
        "size-svhn": 21,
        "depth-macs": 7,
        "depth-macs-cost": 7,
        "irregular-pooling": 15,
        "downsampling-40k": 4,
        "downsampling-60k": 4,
        "log-40k-a": 5,
        "log-40k-b-best": 5,
        "log-40k-b-final": 5,
        "log-40k-b-train": 4,
        "log-60k-best": 5,
        "log-60k-final": 5,
        "log-other": 11,
        "log-parameters": 11,
        "log-time": 16,
    }
    assert len(FILE.unavailable) == 9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("abstract/cifar10-under-40k", 91),
        ("abstract/cifar100-under-600k", 74.3),
        ("abstract/imagenet-4-15m", 67.1),
        ("size-cifar10/t20-f32", 75.07),
        ("size-cifar10/t30-f96", 88.42),
        ("size-cifar10/t40-f256", 91.63),
        ("size-svhn/t20-2k", 87.56),
        ("size-svhn/t30-20k", 96.77),
        ("size-svhn/t40-40k", 96.98),
        ("depth-macs/t15", 90.15),
        ("depth-macs/t50", 90.71),
        ("irregular-pooling/dot-01", 85.41),
        ("irregular-pooling/dot-15", 90.05),
        ("downsampling-40k/label-4", 90.93),
        ("downsampling-60k/label-4", 91.69),
        ("log-40k-a/p40", 45.67),
        ("log-40k-b-best/p10", 90.32),
        ("log-40k-b-final/p10", 90.04),
        ("log-60k-best/p6", 91.26),
        ("log-60k-final/p40", 46.81),
        ("log-other/shared-norm-best", 22.6),
        ("log-other/shared-norm-last", 15.3),
        ("log-other/shared-norm-train", 78.0),
        ("log-other/vanilla-best", 86.09),
        ("log-other/vanilla-final", 85.78),
        ("log-other/vanilla-train", 85.4),
        ("log-parameters/h1-t15", 39640),
        ("log-parameters/h5-t30-60k", 59886),
        ("log-time/40k-p6", 1.95),
    ],
)
def test_values_of_the_file(name, expected):
    assert value(name) == expected


def test_every_row_sums_to_the_file():
    """A slip of the pen in any row changes a sum; these were summed from the fact loaded itself."""

    def total(group: str) -> float:
        return round(sum(claim.value for key, claim in CLAIMS.items() if key.split("/")[1] == group), 2)

    assert total("size-cifar10") == 1837.19
    assert total("size-svhn") == 1986.93
    assert total("depth-macs") == 633.11
    assert round(sum(sum(claim.values) for key, claim in CLAIMS.items() if "/depth-macs/" in key), 2) == 3165.49
    assert total("irregular-pooling") == 1341.84
    assert total("downsampling-40k") == 360.69
    assert total("downsampling-60k") == 365.03
    assert total("log-40k-a") == 406.26
    assert total("log-40k-b-best") == 448.45
    assert total("log-40k-b-final") == 447.17
    assert total("log-60k-best") == 412.17
    assert total("log-60k-final") == 410.64


def test_reading_errors_of_the_svhn_figure():
    errors = Counter(claim.error for key, claim in CLAIMS.items() if "/size-svhn/" in key)
    assert errors == {0.03: 11, 0.05: 9, 0.1: 1}
    assert CLAIMS["thriftynet/size-svhn/t20-20k"].error == 0.1


def test_each_of_the_five_runs_is_kept():
    claims = [claim for key, claim in CLAIMS.items() if "/depth-macs/" in key]
    assert all(len(claim.values) == claim.runs == 5 and claim.spread for claim in claims)
    assert CLAIMS["thriftynet/depth-macs/t40"].values == (91.58, 91.43, 91.33, 89.91, 89.89)


def test_every_claim_says_where_from_and_how_exactly():
    for key, stated in CLAIMS.items():
        assert stated.source, key
        assert stated.how, key
        assert stated.error == "exact" or stated.error > 0, key
        assert "{" not in stated.statement, key
        assert stated.mark != "COUNTED", key
    assert {claim.mark for claim in FILE.counted.values()} == {"COUNTED"}
    assert not CLAIMS.keys() & FILE.counted.keys()


def test_figures_are_not_exact_and_logged_runs_are_single():
    assert all(claim.error != "exact" for claim in CLAIMS.values() if claim.mark == "FIGURE")
    assert all(claim.runs == 1 for key, claim in CLAIMS.items() if "/log-40k" in key or "/log-60k" in key)


def test_what_cannot_be_tested_says_why():
    reasons = {key.split("/")[1]: claim.not_testable for key, claim in CLAIMS.items() if claim.not_testable}
    assert "not known" in reasons["irregular-pooling"]
    assert "GPU" in reasons["log-time"]
    assert all(claim.not_testable for key, claim in CLAIMS.items() if "/irregular-pooling/" in key)


def test_settings_of_the_figures():
    size = CLAIMS["thriftynet/size-cifar10/t30-f64"].setting
    assert (size.options["history_bug"], size.options["history"], size.options["pool"]) == (True, 5, 6)
    assert size.recipes == {"thriftynet-a": 200}
    svhn = CLAIMS["thriftynet/size-svhn/t30-2k"].setting
    assert (svhn.options["history_bug"], svhn.options["filters"]) == (False, 18)
    narrow = CLAIMS["thriftynet/downsampling-40k/label-3"].setting.options
    assert (narrow["filters"], narrow["iterations"], narrow["pool"], narrow["history_bug"]) == (163, 30, 7, True)


def test_the_abstracts_candidates_are_the_widest_of_each_depth_and_history():
    """T from 20 to 50 in steps of 5, h of 1 and 5, whatever the history bug: a log shows 91.01 % with it."""
    candidates = CLAIMS["thriftynet/abstract/cifar10-under-40k"].setting
    assert "history_bug" not in candidates.options
    found = {(each["history"], each["iterations"]): (each["filters"], each["pool"]) for each in candidates.any_of}
    assert found.keys() == {(h, T) for h in (1, 5) for T in range(20, 55, 5)}
    for (h, T), (filters, pool) in found.items():
        widest = ThriftyNetOptions(n_params=40_000, iterations=T, history=h).resolve((3, 32, 32), 10)
        assert (filters, pool) == (widest.filters, T // 5) == (widest.filters, widest.pool), (h, T)
    logged = CLAIMS["thriftynet/log-40k-a/p6"]
    assert (logged.value, logged.setting.options["history_bug"]) == (91.01, True)
    assert candidates.has_options(logged.setting.options)


def test_a_failed_training_is_not_tested():
    failed = [CLAIMS[f"thriftynet/{name}/p40"] for name in ("log-40k-a", "log-60k-best", "log-60k-final")]
    assert all("failed" in claim.not_testable and claim.setting is None for claim in failed)
    assert not CLAIMS["thriftynet/log-40k-b-best/p40"].not_testable  # it did not fail


def test_two_logs_are_tested_by_the_settings_that_head_them():
    shared = [CLAIMS[f"thriftynet/log-other/shared-norm-{name}"] for name in ("best", "last", "train")]
    vanilla = [CLAIMS[f"thriftynet/log-other/vanilla-{name}"] for name in ("best", "final", "train")]
    for claims in (shared, vanilla):
        assert [claim.quantity for claim in claims] == ["test_accuracy", "test_accuracy", "train_accuracy"]
        assert [claim.statistic.split()[0] for claim in claims] == ["best", "last", "last"]
        assert {claim.bound for claim in claims} == {"equals"}
        assert not any(claim.not_testable for claim in claims)
    assert shared[0].setting.recipes == {"thriftynet-shared-norm": 79}
    assert (shared[0].setting.options["norm"], shared[0].setting.options["history_bug"]) == ("shared", True)
    options = vanilla[0].setting.options
    assert (options["recursion"], options["activation"], options["history"]) == ("plain", "relu", 1)
    coefficients = 2 * 14  # in the log's header, and in vain
    assert ThriftyNetOptions(**options).cost((3, 32, 32), 10).parameters == 39_334 - coefficients


def test_committed_counts_are_those_of_the_counter():
    counts = load_counts(results_dir())
    assert all(row in counts for row in count_claims(CLAIMS.values()))


def test_our_own_arithmetic_holds():
    """Every number that the file calls COUNTED: parameters, widths and MMACs."""
    counts = count_claims(FILE.counted.values())
    wrong = [key for key, claim in FILE.counted.items() if judge(claim, [], counts).status != "equal"]
    assert not wrong
    assert len(FILE.counted) == 100
    assert FILE.counted["thriftynet/log-filters/h5-t50"].value == 148


def test_every_count_that_the_logs_state_holds():
    """A header is one claim; the figure's positions gave the depths, and so can be equal by construction alone."""
    counts = load_counts(results_dir())
    found = {key: judge(claim, [], counts).status for key, claim in CLAIMS.items() if claim.is_counted}
    logs = [key for key in found if "/log-parameters/" in key]
    assert len(logs) == 11
    assert {found.pop(key) for key in logs} == {"equal"}
    rounded = {f"thriftynet/depth-macs-cost/{depth}" for depth in ("t15", "t45", "t50")}
    assert {key for key, status in found.items() if status == "differs"} == rounded
    assert {found[key] for key in found.keys() - rounded} == {"by construction"}
    assert {claim.error for key, claim in CLAIMS.items() if "/depth-macs-cost/" in key} == {0.5}  # the fact loaded's
    assert all("guess" in CLAIMS[key].how for key in rounded)


# --- what a claim matches


def test_matches():
    assert matches(claim(), run())
    assert matches(claim(), run(seed=7))
    others = [
        run(recipe="another-recipe"),
        run(epochs=4),
        run(options={**OPTIONS, "filters": 33}),
        run(options={**OPTIONS, "history_bug": 1}),
        run(options={key: value for key, value in OPTIONS.items() if key != "pool"}),
        run(data={"name": "svhn"}),
        run(data={"name": "cifar10", "train_images": 50_000}),
        run(data={"name": "cifar10", "test_images": 100}),
        run(data={"name": "cifar10", "validation_images": 100}),
        run(data={"name": "cifar10", "label_noise": 0.1}),
        run(network={"name": "other", "options": OPTIONS}),
        run(method={"name": "a-method"}),
        run(parent="0123456789ab"),
    ]
    assert not any(matches(claim(), other) for other in others)
    assert matches(claim(), run(options={**OPTIONS, "more": 1}))
    assert not matches(claim(setting=None, not_testable="no"), run())


def test_alternatives():
    base = {"network": "made-up", "dataset": "cifar10", "recipes": {"paper-recipe": 3}}
    either = claim(setting={**base, "any_of": [{"filters": 32, "iterations": 20}, {"filters": 64, "iterations": 40}]})
    assert matches(either, run())
    assert matches(either, run(options={**OPTIONS, "filters": 64, "iterations": 40}))
    assert not matches(either, run(options={**OPTIONS, "filters": 64}))


SETTING = {"network": "made-up", "dataset": "cifar10", "recipes": {"paper-recipe": 3}, "options": OPTIONS}


def test_a_method_must_be_the_claims_own():
    stated = claim(setting={**SETTING, "method": "a-method"})
    assert matches(stated, run(method={"name": "a-method"}))
    assert matches(stated, run(method={"name": "a-method", "options": {"rate": 4.0}}))
    assert not matches(stated, run(method={"name": "another"}))
    assert not matches(stated, run())


def test_a_methods_options_must_be_the_claims_own():
    stated = claim(setting={**SETTING, "method": "a-method", "method_options": {"rate": 4.0, "linear": False}})
    given = {"rate": 4.0, "linear": False, "more": 1}
    assert matches(stated, run(method={"name": "a-method", "options": given}))
    for change in ({"rate": 2.0}, {"linear": True}, {"linear": 0}):
        assert not matches(stated, run(method={"name": "a-method", "options": {**given, **change}}))
    assert not matches(stated, run(method={"name": "a-method", "options": {"rate": 4.0}}))
    assert not matches(stated, run(options={**OPTIONS, **given}))


def test_a_derived_run_answers_what_is_said_of_derived_runs():
    for method in ({}, {"method": {"name": "a-method"}}):
        named = {"method": "a-method"} if method else {}
        first = claim(setting={**SETTING, **named})
        derived = claim(setting={**SETTING, **named, "derived": True})
        child, alone = run(**method, parent="0123456789ab"), run(**method)
        assert [matches(first, alone), matches(first, child)] == [True, False]
        assert [matches(derived, alone), matches(derived, child)] == [False, True]


def test_wrong_labels_answer_what_is_said_of_wrong_labels():
    noisy = claim(setting={**SETTING, "label_noise": 0.2})
    assert matches(noisy, run(data={"name": "cifar10", "label_noise": 0.2}))
    assert not matches(noisy, run(data={"name": "cifar10", "label_noise": 0.4}))
    assert not matches(noisy, run(data={"name": "cifar10", "label_noise": 0.2, "train_images": 100}))
    assert not matches(noisy, run())


# --- files that are refused

GROUP = """
title: A paper
groups:
  - group: a
    figure: a table
    statement: "{filters} filters reach {value} %."
    quantity: test_accuracy
    unit: "%"
    error: exact
    statistic: best epoch of one run
    mark: AUTHORS' LOG
    source: a log
    how: read
    confidence: high
    setting: {network: n, dataset: cifar10, recipes: {r: 3}, options: {iterations: 20}}
    experiment: e
    columns: [id, options.filters, value]
    rows:
      - [one, 32, 75.0]
      - [two, 64, 80.0]
    claims:
      - {id: three, options.filters: 96, value: 85.0, statement: "Another one."}
"""


def load(tmp_path, text: str):
    path = tmp_path / "paper.yaml"
    path.write_text(text)
    return load_claims_file(path)


def test_a_group_is_expanded(tmp_path):
    loaded = load(tmp_path, GROUP)
    assert list(loaded.claims) == ["paper/a/one", "paper/a/two", "paper/a/three"]
    assert loaded.claims["paper/a/two"].statement == "64 filters reach 80.0 %."
    assert loaded.claims["paper/a/two"].setting.options == {"iterations": 20, "filters": 64}
    assert loaded.claims["paper/a/three"].statement == "Another one."


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("unit:", "units:", "unknown key 'units' in group 'a'; did you mean 'unit'?"),
        ("title:", "titel:", "File: unknown key 'titel'; did you mean 'title'?"),
        ("title: A paper", "", "File.title: is required"),
        ("groups:", "groups:\ngroups:", "the key 'groups' is there twice"),
        ("mark: AUTHORS' LOG", "mark: AUTHORS' LOG\n    mark: FIGURE", "the key 'mark' is there twice"),
        ("[two,", "[one,", "claim paper/a/one: is there twice"),
        ("[two,", "[Two Words,", "Claim.id"),
        ("[two, 64, 80.0]", "[two, 64]", "a row must be a list of 3 values, one for each column"),
        ("80.0]", "many]", "claim paper/a/two: Claim.value = 'many'"),
        ("80.0]", ".nan]", "claim paper/a/two: Claim.value = nan"),
        ("80.0]", "180.0]", "must be from 0 to 100 %"),
        ("options.filters, value]", "option.filters, value]", "unknown key 'option.filters' in claim paper/a/one"),
        ("{value} %", "{valeu} %", "statement: 'valeu' is no field or option of it"),
        ("{value} %", "{value %", "claim paper/a/one: statement: "),
        ("{value} %", "{} %", "claim paper/a/one: statement: "),
        ("options: {iterations: 20}", "options: 20", "setting and its options must be mappings"),
        ("setting: {", "setting: 5\n    reading: {", "setting and its options must be mappings"),
        ("error: exact", "error: 0", "claim paper/a/one: Claim.error"),
        ("error: exact", "error: -0.1", "Claim.error"),
        ("    error: exact\n", "", "Claim.error"),
        ("    source: a log\n", "", "Claim.source: is required"),
        ("mark: AUTHORS' LOG", "mark: FIGURE", "a number read from a figure has a reading error"),
        ("mark: AUTHORS' LOG", "mark: COUNTED", "belongs under counted"),
        ("mark: AUTHORS' LOG", "mark: RUMOUR", "Claim.mark = 'RUMOUR'"),
        ('unit: "%"', "unit: points", "unit = 'points': must be '%'"),
        ("quantity: test_accuracy", "quantity: parameters", "unit = '%': must be ''"),
        ("    experiment: e\n", "", "lacks experiment"),
        ("recipes: {r: 3}, ", "", "lacks setting.recipes"),
        ("recipes: {r: 3}", "recipes: {r: 0}", "recipes"),
        ("network: n,", "netwrok: n, network: n,", "unknown key 'netwrok'; did you mean 'network'?"),
        ("confidence: high", "confidence: high\n    spread: 0.1", "needs runs >= 2"),
        ("confidence: high", "confidence: high\n    population_spread: true", "population_spread = True: needs spread"),
        ("mark: AUTHORS' LOG", "mark: SECOND-HAND", "of a SECOND-HAND number it is 'low'"),
        (
            "network: n,",
            "network: n, method_options: {a: 1},",
            "setting.method_options = {'a': 1}: needs setting.method",
        ),
        ("network: n,", "network: n, label_noise: 1.0,", "label_noise = 1.0"),
        (
            "confidence: high",
            "confidence: high\n    runs: 2\n    values: [70.0, 90.0]",
            "the mean of values is another",
        ),
        ("confidence: high", "confidence: high\n    runs: 3\n    values: [75.0, 75.0]", "values has 2 runs"),
        ("- group: a", "- group: a\n   - b", "is not YAML"),
        ("groups:", "groups: 3\nunavailable:", "File.groups = 3: should be a valid list"),
        ("rows:", "rows: 3\n    reading:", "Group.rows = 3: should be a valid list"),
        ("      - [one, 32, 75.0]", "      - one", "a row must be a list of 3 values, one for each column: 'one'"),
        ("columns: [id,", "columns: [2,", "Group.columns.0 = 2: should be a valid string"),
        ("claims:\n", "claims:\n      - 5\n", "Group.claims.0 = 5: should be a valid dictionary"),
    ],
)
def test_a_wrong_file(tmp_path, old, new, fault):
    assert old in GROUP
    with pytest.raises(RecordError) as caught:
        load(tmp_path, GROUP.replace(old, new, 1))
    message = str(caught.value)
    assert fault in message
    assert message.startswith(str(tmp_path / "paper.yaml"))
    assert "\n" not in message


REPLICATION = """
replications:
  - by: Others
    what: a network
    recipe: theirs
    unit: "%"
    columns: [network, start, value, spread]
    rows:
      - [one, drawn, 43.8, 0.67]
      - [two, "", 44, null]
"""


def test_replications_are_no_claims(tmp_path):
    loaded = load(tmp_path, GROUP + REPLICATION)
    (other,) = loaded.replications
    assert (other.paper, other.by, other.remark) == ("paper", "Others", "")
    assert [(result.network, result.start, result.value, result.spread) for result in other.results] == [
        ("one", "drawn", 43.8, 0.67),
        ("two", "", 44.0, None),
    ]
    assert list(loaded.claims) == list(load(tmp_path, GROUP).claims)
    assert load(tmp_path, GROUP).replications == ()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("by: Others", "author: Others", "Replication: unknown key 'author'"),
        ("    recipe: theirs\n", "", "Replication.recipe: is required"),
        ("value, spread]", "value, sd]", "Result: unknown key 'sd'"),
        ("43.8, 0.67]", "43.8]", "a row must be a list of 4 values, one for each column"),
        ("0.67", "-0.67", "spread = -0.67"),
        ("43.8", "many", "value = 'many'"),
        ("    rows:\n", "    rows: 5\n    remark:\n", "Table.rows = 5: should be a valid list"),
    ],
)
def test_a_wrong_replication(tmp_path, old, new, fault):
    assert old in REPLICATION
    with pytest.raises(RecordError) as caught:
        load(tmp_path, GROUP + REPLICATION.replace(old, new, 1))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "5", "title: [", "\x00", "title: A paper\ngroups: [5]"])
def test_not_a_claims_file(tmp_path, text):
    with pytest.raises(RecordError, match=r"paper\.yaml"):
        load(tmp_path, text)


def test_folders(tmp_path):
    with pytest.raises(RecordError, match="holds no claims"):
        load_claims_files(tmp_path)
    with pytest.raises(RecordError, match="cannot be read"):
        load_claims_file(tmp_path / "none.yaml")
    (tmp_path / "paper.yaml").write_text(GROUP)
    assert len(load_claims(tmp_path)) == 3
    assert list(load_claims_files(tmp_path)) == ["paper"]
    assert load_claims(tmp_path).faults == load_claims_files(tmp_path).faults == {}


def test_a_bad_file_is_named_and_blocks_no_other(tmp_path):
    (tmp_path / "a_paper-2.yaml").write_text(GROUP)
    bad = tmp_path / "bad.yaml"
    bad.write_text(GROUP.replace("80.0]", "many]"))
    (tmp_path / "worse.yaml").write_text("title: [")
    assert list(load_claims_files(tmp_path)) == ["a_paper-2"]
    assert list(load_claims(tmp_path)) == ["a_paper-2/a/one", "a_paper-2/a/two", "a_paper-2/a/three"]
    faults = load_claims(tmp_path).faults
    assert faults == load_claims_files(tmp_path).faults
    assert list(faults) == ["bad", "worse"]
    assert faults["bad"].startswith(f"{bad}:20: claim bad/a/two: Claim.value = 'many': ")
    assert re.search(r"worse\.yaml:\d: is not YAML", faults["worse"])
    with pytest.raises(RecordError, match=r"bad\.yaml:20: .*; .*worse\.yaml:"):
        load_claims_files(tmp_path).sound()
    with pytest.raises(RecordError, match=r"bad\.yaml:20: "):
        load_claims(tmp_path)["bad/a/one"]
    with pytest.raises(KeyError):
        load_claims(tmp_path)["a_paper-2/a/none"]


def test_each_claim_has_its_line(tmp_path):
    path = tmp_path / "paper.yaml"
    path.write_text(GROUP)
    assert locate(path) == {"paper/a/one": 19, "paper/a/two": 20, "paper/a/three": 22}
    assert FILE.lines == locate(claims_dir() / "thriftynet.yaml")
    assert FILE.lines.keys() == FILE.claims.keys() | FILE.counted.keys()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("unit:", "units:", 4),
        ("title:", "titel:", 2),
        ("mark: AUTHORS' LOG", "mark: AUTHORS' LOG\n    mark: FIGURE", 4),
        ("[two,", "[one,", 20),
        ("[two, 64, 80.0]", "[two, 64]", 20),
        ("value: 85.0", "value: 185.0", 22),
        ("id: three", "di: three", 22),
    ],
)
def test_a_fault_has_its_line(tmp_path, old, new, line):
    with pytest.raises(RecordError, match=rf"^{re.escape(str(tmp_path))}/paper\.yaml:{line}: "):
        load(tmp_path, GROUP.replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": "other/group/one"}, "must begin with its paper"),
        ({"statistic": "count"}, "does not go with test_accuracy"),
        ({"quantity": "minutes_per_epoch", "unit": "min", "statistic": "duration"}, "not_testable must say why"),
        ({"bound": "about"}, "Claim.bound"),
        ({"runs": 0}, "Claim.runs"),
        ({"runs": 2, "values": [89.0, 91.0], "spread": 0.5}, "the deviation of values is another"),
        ({"setting": None}, "lacks setting, setting.recipes"),
        ({"value": True}, "Claim.value"),
        ({"value": float("inf")}, "Claim.value"),
        ({"sauce": "x"}, "did you mean 'source'?"),
    ],
)
def test_a_wrong_claim(change, fault):
    with pytest.raises(ThriftyError) as caught:
        claim(**change)
    assert fault in str(caught.value)


def test_the_deviation_comes_from_the_runs_where_it_is_not_stated():
    assert claim(runs=2, values=[89.0, 91.0]).known_spread.deviation == pytest.approx(2**0.5)
    assert claim(runs=2, values=[89.0, 91.0]).stated_spread == pytest.approx(2**0.5)
    assert claim(runs=2, spread=0.3).known_spread.deviation == claim(runs=2, spread=0.3).stated_spread == 0.3
    assert claim().known_spread is claim().stated_spread is None


def test_a_population_deviation_is_the_runs_own():
    stated = claim(runs=2, values=[89.0, 91.0], spread=1.0, population_spread=True)
    assert stated.known_spread.deviation == pytest.approx(2**0.5)
    assert stated.stated_spread == 1.0
    with pytest.raises(RecordError, match="the deviation of values is another"):
        claim(runs=2, values=[89.0, 91.0], spread=1.0)
