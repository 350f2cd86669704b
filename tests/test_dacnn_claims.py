"""The sheet of DACNN: every value, its source and what is a reading; counts in three countings; the messages."""

from __future__ import annotations

import pytest

from thriftylib.evidence.claims_files import load_claims_file
from thriftylib.evidence.counts import count_claims, load_counts
from thriftylib.evidence.verdicts import judge
from thriftylib.paths import claims_dir, results_dir

SHEET = load_claims_file(claims_dir() / "dacnn.yaml")
CLAIMS = SHEET.claims
SCATTER = {key.split("/")[2]: claim for key, claim in CLAIMS.items() if "/scatter/" in key}
MESSAGES = {key.split("/")[2]: claim for key, claim in CLAIMS.items() if "/messages/" in key}

ERRORS = {
    "dacnn14": 42.29,
    "dacnn18": 38.64,
    "dacnn34": 38.87,
    "dacnn18-reg": 35.39,
    "dacnn24-reg": 34.86,
    "dacnn34-reg": 33.88,
    "dacnn14-mix": 30.54,
    "dacnn18-mix": 27.80,
    "dacnn34-mix": 27.72,
    "dacnn18-mix-reg": 27.55,
    "dacnn34-mix-reg": 26.66,
    "vgg": 30.20,
    "resnet18": 27.31,
    "resnet34": 26.10,
}
"""Test errors in percent, from the fact sheet."""
MILLIONS = (0.16, 0.17, 0.17, 0.46, 0.56, 0.72, 4.73, 4.90, 4.90, 5.60, 6.16, 14.90, 11.13, 21.24)


def test_the_fourteen_points():
    assert {name: round(100 - claim.value, 2) for name, claim in SCATTER.items()} == ERRORS
    assert all(f"{error:.2f} %" in SCATTER[name].statement for name, error in ERRORS.items())
    assert {claim.error for claim in SCATTER.values()} == {0.02}
    places = [claim for key, claim in CLAIMS.items() if "/scatter-parameters/" in key]
    assert [claim.id.split("/")[2] for claim in places] == list(ERRORS)
    assert [claim.value for claim in places] == pytest.approx([1e6 * number for number in MILLIONS])
    assert all(f" {claim.value / 1e6:.2f} million" in claim.statement for claim in places)
    assert {claim.error for claim in places} == {7000}


def test_a_message_is_the_difference_of_two_points():
    by_setting = {claim.setting.model_dump_json(): claim.value for claim in SCATTER.values()}
    for name, claim in MESSAGES.items():
        sides = [by_setting[side.model_dump_json()] for side in claim.sides]
        assert claim.value == pytest.approx(sides[0] - sides[1]), name
        assert claim.error == 0.04
    assert {claim.relation for claim in MESSAGES.values()} == {"value", "greater", "equal", "no gain"}


def test_the_papers_own_numbers_are_what_its_messages_say():
    """A sentence that the plotted points themselves do not bear out would be ours and not theirs."""
    for name, claim in MESSAGES.items():
        if claim.relation == "greater":
            assert claim.value > claim.error, name
        elif claim.relation == "no gain":
            assert claim.value <= claim.margin, name
        elif claim.relation == "equal":
            assert abs(claim.value) <= claim.margin, name


def test_a_margin_is_said_to_be_ours():
    with_margin = [claim for claim in MESSAGES.values() if claim.margin]
    assert len(with_margin) == 3
    assert all("margin" in claim.reading and "is ours" in claim.reading for claim in with_margin)
    assert all(f"at most {claim.margin:g} point" in claim.statement for claim in with_margin)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pruning-drop/mix-reg", 0.79),
        ("pruning-drop/plain", 10.2),
        ("pruning-ratio/mix-reg", 49.6),
        ("pruning-ratio/plain", 98.5),
        ("pruning-rivals-drop/agent-68", 1.7),
        ("pruning-rivals-drop/sm-37", 6.9),
        ("pruning-rivals-ratio/sm-68", 67.9),
        ("caption/vgg", 14_900_000),
        ("introduction/resnet-101-over-50", 1.1),
    ],
)
def test_other_values_of_the_sheet(name, value):
    assert CLAIMS[f"dacnn/{name}"].value == value


def test_rivals_sum_to_the_sheet_and_are_not_rerun():
    rivals = {key: claim for key, claim in CLAIMS.items() if "/pruning-rivals-" in key}
    assert len(rivals) == 12
    assert sum(claim.value for key, claim in rivals.items() if "-drop/" in key) == pytest.approx(17.7)
    assert sum(claim.value for key, claim in rivals.items() if "-ratio/" in key) == pytest.approx(264.0)
    assert all("not rerun" in claim.not_testable for claim in rivals.values())


def test_every_setting_is_said_to_be_a_reading():
    """No recipe, data set or counting of this paper is its own statement."""
    for key, claim in CLAIMS.items():
        assert claim.reading or claim.not_testable, key
        assert claim.mark in ("FIGURE", "PAPER TEXT"), key
        for side in claim.sides:
            assert side.recipes == {"dacnn-reading": 350}, key
    assert all("CIFAR-100" in claim.reading and "ours" in claim.reading for claim in SCATTER.values())
    assert all("CIFAR-10," in CLAIMS[f"dacnn/pruning-drop/{name}"].reading for name in ("mix-reg", "plain"))


def test_networks_are_the_released_ones_with_the_start_of_their_day():
    """Each difference between the files and our defaults, and that the start is inferred, stands in the reading."""
    for name, claim in SCATTER.items():
        assert claim.setting.options["norm_init"] == "uniform", name
        assert "inferred from the PyTorch of the release date, 1.1" in claim.reading, name
    orders = {name: claim.setting.options.get("order") for name, claim in SCATTER.items()}
    assert {name for name, order in orders.items() if order == "conv-relu-bn"} == {"dacnn14"}
    assert "released file's, convolution, ReLU, batch norm" in SCATTER["dacnn14"].reading
    assert {name for name, claim in SCATTER.items() if claim.setting.options.get("bare_fifth")} == {"dacnn14-mix"}
    assert "neither batch norm nor ReLU" in SCATTER["dacnn14-mix"].reading


def test_counts_follow_the_released_files():
    counted = {key.removeprefix("dacnn/"): claim.value for key, claim in SHEET.counted.items()}
    assert counted["all-100/dacnn14-mix"] == 4_745_124 - 2 * 512
    assert counted["all-10/dacnn14-mix"] == 4_698_954 - 2 * 512
    assert counted["kernels-100/dacnn14-mix"] == 4_734_756
    assert (counted["all-100/dacnn14"], counted["kernels-100/dacnn14"]) == (167_396, 163_812)


def test_drops_are_on_cifar10_and_the_baseline_comes_first():
    for name, network in (("mix-reg", "mix"), ("plain", "plain")):
        claim = CLAIMS[f"dacnn/pruning-drop/{name}"]
        assert [side.dataset for side in claim.sides] == ["cifar10"] * 2
        assert claim.setting.network == "resnet18"
        assert claim.against.options["sharing"] == network


def test_counts_in_three_countings_are_the_sheets():
    counts = count_claims(SHEET.counted.values())
    wrong = [key for key, claim in SHEET.counted.items() if judge(claim, [], counts).status != "equal"]
    assert not wrong
    groups = [key.split("/")[1] for key in SHEET.counted]
    assert [groups.count(name) for name in ("kernels-100", "all-100", "all-10")] == [11, 11, 11]


def test_only_what_rests_on_the_baselines_differs_in_count():
    counts = load_counts(results_dir())
    claims = [claim for claim in CLAIMS.values() if claim.is_counted and not claim.not_testable]
    verdicts = {claim.id.removeprefix("dacnn/"): judge(claim, [], counts).status for claim in claims}
    unknown = {
        *("scatter-parameters/vgg", "scatter-parameters/resnet18", "scatter-parameters/resnet34"),
        *("caption/vgg", "pruning-ratio/mix-reg"),
    }
    assert {key for key, status in verdicts.items() if status == "at odds"} == unknown
    assert {claim.id.removeprefix("dacnn/") for claim in claims if claim.build_unknown} == unknown
    assert {verdicts[key] for key in verdicts.keys() - unknown} == {
        "by construction"
    }  # the counting was fitted to them
    assert len(verdicts) == 14 + len(unknown)
    assert "not tuned" in CLAIMS["dacnn/scatter-parameters/resnet18"].reading


def test_what_could_not_be_read_is_named():
    figures = {entry.figure for entry in SHEET.unavailable}
    assert figures >= {"training details", "CIFAR-10", "SVHN", "spread"}
    assert not any(claim.setting and claim.setting.dataset == "svhn" for claim in CLAIMS.values())
    absolute = [claim for claim in CLAIMS.values() if claim.quantity == "test_accuracy"]
    assert {claim.setting.dataset for claim in absolute} == {"cifar100"}
    assert sum(claim.is_difference for claim in CLAIMS.values()) == len(MESSAGES) + 2 + 6 + 1
