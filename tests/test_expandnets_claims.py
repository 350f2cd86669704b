"""The sheet of ExpandNets: the two tables, what they tell, what is only second-hand, and which runs answer a row."""

from __future__ import annotations

import math
import statistics

import pytest
from made_up import record
from scipy import stats

from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Claim, matches
from thriftylib.evidence.claims_files import load_claims, load_claims_file
from thriftylib.evidence.counts import count_claims
from thriftylib.evidence.numbers import Evidence, lookup
from thriftylib.evidence.tables import scoreboard
from thriftylib.evidence.verdicts import judge
from thriftylib.options import MethodOptions, NetworkOptions, find
from thriftylib.paths import claims_dir
from thriftylib.schedules import Constant
from thriftylib.spec import Data, Recipe, Run

SHEET = load_claims_file(claims_dir() / "expandnets.yaml")
CLAIMS = {key.removeprefix("expandnets/"): claim for key, claim in SHEET.claims.items()}

TABLES = {  # mean and spread in percent from the fact sheet: CIFAR-10, CIFAR-100
    "table-a": {
        "smallnet": (78.63, 0.41, 46.63, 0.27),
        "fc": (78.64, 0.39, 46.59, 0.45),
        "cl": (78.47, 0.20, 46.90, 0.66),
        "cl-fc": (79.11, 0.23, 46.66, 0.43),
        "ck": (80.27, 0.24, 48.55, 0.51),
        "ck-fc": (80.31, 0.27, 48.62, 0.47),
    },
    "table-b": {
        "smallnet": (73.32, 0.20, 40.40, 0.60),
        "fc": (73.78, 0.83, 40.52, 0.71),
        "cl": (73.96, 0.30, 40.91, 0.47),
        "cl-fc": (74.45, 0.29, 41.12, 0.49),
    },
}
ROWS = {
    f"{table}/{data}-{row}": (table, data, row)
    for table in TABLES
    for data in ("cifar10", "cifar100")
    for row in TABLES[table]
}
CHAINS = {"smallnet": {}, "fc": {"linear": True}} | {
    row: {"convs": row[:2], "linear": row.endswith("-fc")} for row in ("cl", "cl-fc", "ck", "ck-fc")
}
AS_RUN = {"reset_momentum": True, "norm_start": "uniform"}  # what the authors' code does beside the recipe
EXPANDED = [name for name, (*_, row) in ROWS.items() if row[0] == "c"]


def group(name: str) -> dict[str, Claim]:
    return {key.split("/")[1]: claim for key, claim in CLAIMS.items() if key.split("/")[0] == name}


def run(
    name: str, *, seed: int = 0, epochs: int = 150, data: dict | None = None, network: dict | None = None, **method
) -> Run:
    """A run of a table's row as the authors' code has it; changed in its data, its network or its method."""
    table, dataset, row = ROWS[name]
    options = {"kernel": 7 if table == "table-a" else 3, **(network or {})}
    return Run(
        network={"name": "smallnet", "options": options},
        data=Data(name=dataset, **(data or {})),
        recipe=Recipe(name="expandnets", epochs=epochs, batch_size=128, learning_rate=0.01, schedule=Constant()),
        seed=seed,
        method={"name": "expandnets", "options": {**AS_RUN, **CHAINS[row], **method}},
    )


def answered(made: Run) -> set[str]:
    """The accuracies among the claims that a run answers."""
    return {key for key, claim in CLAIMS.items() if not claim.is_difference and matches(claim, made)}


# --- the two tables


@pytest.mark.parametrize(("name", "place"), ROWS.items())
def test_the_tables(name, place):
    table, data, row = place
    claim = CLAIMS[name]
    mean, spread = TABLES[table][row][:2] if data == "cifar10" else TABLES[table][row][2:]
    assert (claim.value, claim.spread, claim.error) == (mean, spread, 0.005)
    assert (claim.runs, claim.population_spread) == (5, True)
    assert claim.known_spread.deviation == pytest.approx(spread * math.sqrt(5 / 4))
    assert claim.statistic == "mean over runs of the best epoch"
    assert claim.setting.recipes == {"expandnets": 150}
    assert {"table-a": "7x7", "table-b": "3x3"}[table] in claim.statement
    assert {"cifar10": "CIFAR-10.", "cifar100": "CIFAR-100."}[data] in claim.statement
    assert claim.experiment == f"expandnets-{table}"


def test_the_tables_are_complete():
    assert group("table-a").keys() | group("table-b").keys() == {name.split("/")[1] for name in ROWS}
    assert (len(group("table-a")), len(group("table-b"))) == (12, 8)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_answered_by_its_own_run_alone(name):
    assert answered(run(name)) == {name}
    assert answered(run(name, seed=4)) == {name}
    assert answered(run(name, confusion=100)) == {name}, "observing changes nothing"


@pytest.mark.parametrize("name", ROWS)
def test_what_does_not_answer_a_row(name):
    plain = run(name)
    others = [
        run(name, reset_momentum=False),
        run(name, norm_start="network"),
        run(name, data={"label_noise": 0.2}),
        run(name, data={"train_images": 50_000}),
        run(name, epochs=149),
        run(name, network={"kernel": 5}),
        run(name, network={"padding": 2}),
        run(name, network={"widths": [8, 16, 33]}),
        run(name, network={"hidden": 65}),
        plain.model_copy(update={"parent": "0123456789ab"}),
        plain.model_copy(update={"method": None}),
    ]
    assert [answered(other) for other in others] == [set()] * len(others)


@pytest.mark.parametrize("name", EXPANDED)
def test_a_chain_must_be_the_rows_own(name):
    others = [run(name, rate=2.0), run(name, image=True), run(name, only=["0"])]
    assert [answered(other) for other in others] == [set()] * 3


def test_the_rate_of_the_linear_layer():
    assert not answered(run("table-b/cifar10-fc", rate=8.0))


def test_options_are_the_registrys():
    """A method's or a network's option that nobody has would never match a run."""
    for claim in load_claims(claims_dir()).values():
        for side in claim.sides:
            network = find(NetworkOptions, side.network).model_validate(side.options).model_dump(mode="json")
            assert side.options.items() <= network.items(), claim.id
            if side.method:
                method = find(MethodOptions, side.method).model_validate(side.method_options).model_dump(mode="json")
                assert side.method_options.items() <= method.items(), claim.id
    with pytest.raises(SpecError, match="unknown key 'ratio'"):
        find(MethodOptions, "expandnets").model_validate({"ratio": 4.0})


# --- their spread in the verdict


def test_a_population_deviation_is_shown_as_it_stands_and_judged_as_a_samples():
    name = "table-b/cifar10-cl-fc"
    claim = CLAIMS[name]
    best = [74.0, 74.2, 74.4, 74.6, 74.8]
    records = [record(run(name, seed=seed), value, 70.0, seconds=2000.0) for seed, value in enumerate(best)]
    theirs = 0.29 * math.sqrt(5 / 4)
    ours = statistics.stdev(best)
    half = stats.t.ppf(0.95, freedom(ours, theirs)) * math.hypot(ours, theirs) / math.sqrt(5)
    verdict = judge(claim, records)
    assert verdict.distance == (pytest.approx(-0.05 - half), pytest.approx(-0.05 + half))
    assert verdict.tolerance == pytest.approx(1.005)
    assert (verdict.status, verdict.n) == ("reproduced", 5)
    row = scoreboard({claim.id: claim}, records).iloc[0]
    assert row["claimed_spread"] == 0.29
    assert lookup(f"claim:{claim.id}:spread", Evidence(files={"expandnets": SHEET}, records=records)) == "0.29"


def freedom(one: float, other: float) -> float:
    """Welch's degrees of freedom of two deviations over five runs each."""
    return 4 * (one**2 + other**2) ** 2 / (one**4 + other**4)


def test_a_difference_knows_the_spreads_of_its_two_rows():
    found = CLAIMS["gains-b/cifar10-fc"].side_spreads
    assert [spread.deviation for spread in found] == pytest.approx([0.83 * 1.25**0.5, 0.20 * 1.25**0.5])
    assert [spread.runs for spread in found] == [5, 5]
    assert CLAIMS["noise-gains/k5-ck"].side_spreads == (None, None)


@pytest.mark.parametrize("name", CLAIMS)
def test_the_order_of_events_is_told_of_every_claim_that_rests_on_the_changed_reading(name):
    claim = CLAIMS[name]
    rests = any(side.method_options.get("norm_start") == "uniform" for side in claim.sides)
    assert rests == (claim.reading_changed is not None)
    if rests:
        assert "74.39 and 74.96" in claim.reading_changed
        assert judge(claim, []).reason.endswith("since then all rows are trained so.")


def test_a_run_of_another_rate_leaves_a_row_not_run():
    name = "table-b/cifar10-cl-fc"
    assert judge(CLAIMS[name], [record(run(name, rate=2.0), 74.45, seconds=2000.0)]).status == "not run"


# --- what the tables tell


def interval(claim: Claim) -> tuple[float, float]:
    """The 95 % interval of the difference of two rows by the table's own spreads over five runs (Welch), in full."""
    rows = {stated.setting.model_dump_json(): stated for name, stated in CLAIMS.items() if name in ROWS}
    ours, theirs = (rows[side.model_dump_json()] for side in claim.sides)
    variances = [stated.spread**2 * 5 / 4 / 5 for stated in (ours, theirs)]  # of a mean, from population deviations
    freedom = sum(variances) ** 2 / sum(variance**2 / 4 for variance in variances)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    return ours.value - theirs.value - half, ours.value - theirs.value + half


def compared(claim: Claim) -> tuple[float, float]:
    """The difference of the two rows of the table, and the chance of one as large without any (Welch)."""
    rows = {stated.setting.model_dump_json(): stated for name, stated in CLAIMS.items() if name in ROWS}
    ours, theirs = (rows[side.model_dump_json()] for side in claim.sides)
    welch = stats.ttest_ind_from_stats(
        ours.value,
        ours.spread * math.sqrt(5 / 4),
        5,
        theirs.value,
        theirs.spread * math.sqrt(5 / 4),
        5,
        equal_var=False,
    )
    return ours.value - theirs.value, welch.pvalue


TOLD = {key: claim for key, claim in CLAIMS.items() if key.startswith(("gains-", "messages-"))}


@pytest.mark.parametrize("name", TOLD)
def test_a_difference_is_that_of_two_rows(name):
    claim = TOLD[name]
    difference, _ = compared(claim)
    assert claim.value == pytest.approx(difference, abs=1e-9)
    assert (claim.error, claim.runs, claim.quantity) == (0.01, 5, "test_accuracy_difference")
    assert claim.experiment == f"expandnets-table-{name[name.index('-') + 1]}"
    assert claim.setting.dataset == claim.against.dataset == name.split("/")[1].split("-")[0]


def test_each_row_has_its_gain_over_smallnet():
    gains = {f"{key[-1]}/{name}" for key in ("gains-a", "gains-b") for name in group(key)}
    assert gains == {name.removeprefix("table-") for name in ROWS if not name.endswith("smallnet")}
    assert {claim.relation for claim in (*group("gains-a").values(), *group("gains-b").values())} == {"value"}
    assert [CLAIMS[f"gains-{name}"].value for name in ("a/cifar10-ck", "a/cifar10-cl", "b/cifar10-cl-fc")] == [
        *(1.64, -0.16, 1.13)
    ]


def test_a_row_is_better_where_the_tables_own_spread_says_so():
    """No sentence that the table does not bear out, and none left out of those against SmallNet."""
    better = {name for name, claim in TOLD.items() if claim.relation == "greater"}
    assert all(compared(TOLD[name])[1] < 0.05 and TOLD[name].value > 0 for name in better)
    over_smallnet = {
        name.replace("gains", "messages")
        for name, claim in TOLD.items()
        if claim.relation == "value" and claim.value > 0 and compared(claim)[1] < 0.05
    }
    assert over_smallnet == {name for name in better if "-over-" not in name}
    assert {name for name in better if "-over-" in name} == {
        *("messages-a/cifar10-ck-over-cl", "messages-a/cifar100-ck-over-cl")
    }
    assert "messages-b/cifar100-cl-fc" not in CLAIMS  # +0.72 with spreads of 0.60 and 0.49


def test_no_gain_has_a_margin_that_is_said_to_be_ours():
    flat = {name: claim for name, claim in TOLD.items() if claim.relation == "no gain"}
    assert {name.split("/")[1] for name in flat} == {"cifar10-cl", "cifar10-ck-fc-over-ck"}
    for name, claim in flat.items():
        assert (
            claim.value <= claim.margin == 0.5 < TABLES["table-a"]["ck"][0] / 3 - TABLES["table-a"]["smallnet"][0] / 3
        )
        assert compared(claim)[1] > 0.05, name
        assert interval(claim)[1] < claim.margin, name
        assert "ours" in claim.reading
        assert "at most 0.5 points" in claim.statement
    assert all("our reading" in claim.reading for name, claim in TOLD.items() if name.startswith("messages-"))


@pytest.mark.parametrize(
    "name", ["gains-a/cifar10-fc", "gains-a/cifar100-fc", "gains-a/cifar100-cl-fc", "messages-a/cifar100-ck-fc-over-ck"]
)
def test_no_sentence_where_the_tables_own_spreads_allow_a_gain(name):
    """Their differences are next to nothing, but with these spreads half a point is possible."""
    if name in CLAIMS:
        difference = CLAIMS[name]
    else:  # of two expanded rows, which no other claim compares
        sides = [CLAIMS[f"table-a/cifar100-{row}"] for row in ("ck-fc", "ck")]
        difference = CLAIMS["gains-a/cifar100-ck"].model_copy(
            update={"setting": sides[0].setting, "against": sides[1].setting}
        )
    low, high = interval(difference)
    assert low < 0 < 0.5 < high
    assert name.replace("gains", "messages") not in CLAIMS


def test_tables_are_named_as_by_their_sources():
    assert {claim.figure for claim in group("table-a").values()} == {
        "table: SmallNet 7x7 (table 1 without distillation, and tables S1 and S3)"
    }
    imagenet = set(group("imagenet").values())
    assert {claim.figure for claim in imagenet} == {"table 2: ImageNet, CL, rate 4, without distillation"}
    assert all("exp_imagenet/README.md" in claim.source and "table 2" in claim.source for claim in imagenet)
    assert not any(claim.figure.startswith("table 2") for claim in CLAIMS.values() if claim.mark == "SECOND-HAND")


def test_readings_of_the_tables_name_the_start_and_the_normalisation():
    for table in ("table-a", "table-b"):
        for claim in group(table).values():
            assert claim.setting.method_options["norm_start"] == "uniform"
            assert all(
                words in claim.reading for words in ("norm_start", "PyTorch 0.4.0", "normalisation", "1.22", "blue")
            )


def test_a_third_partys_numbers_stand_beside_and_are_no_claim():
    (theirs,) = SHEET.replications
    assert theirs.by.startswith("Yang and Zhang")
    found = {
        (result.network.split(",")[0], result.start): (result.value, result.spread) for result in theirs.results[:4]
    }
    assert found == {
        ("SmallNet", "kaiming-uniform"): (43.80, 0.67),
        ("SmallNet", "normal"): (43.70, 0.25),
        ("CL", "kaiming-uniform"): (43.74, 0.57),
        ("CL", "normal"): (44.06, 0.34),
    }
    assert [(result.value, result.spread) for result in theirs.results[4:]] == [(45.23, 0.13), (45.45, 0.12)]
    values = {claim.value for claim in (*SHEET.claims.values(), *SHEET.counted.values())}
    assert not values & {result.value for result in theirs.results}
    assert not any("Yang" in claim.source for claim in SHEET.claims.values())


# --- second-hand and quoted


def test_second_hand_is_low_and_only_where_the_sheet_says_so():
    second_hand = {key.split("/")[0] for key, claim in CLAIMS.items() if claim.mark == "SECOND-HAND"}
    assert second_hand == {
        *("noise", "noise-gains", "distillation", "imagenet-distillation", "detection", "segmentation")
    }
    for claim in CLAIMS.values():
        assert (claim.mark, claim.confidence) in (("SECOND-HAND", "low"), ("AUTHORS' CODE", "high"))
        assert claim.mark != "SECOND-HAND" or claim.runs is claim.spread is None


def test_wrong_labels():
    errors = {"k5-smallnet": 20.90, "k5-ck": 19.42, "k9-smallnet": 20.55, "k9-best": 19.32}
    assert {name: round(100 - claim.value, 2) for name, claim in group("noise").items()} == errors
    assert all(f"{error:.2f} %" in CLAIMS[f"noise/{name}"].statement for name, error in errors.items())
    assert "which expansion" in CLAIMS["noise/k9-best"].not_testable
    assert CLAIMS["noise/k9-best"].setting is None
    for claim in group("noise-gains").values():
        assert claim.value == pytest.approx(20.90 - 19.42)
        assert (claim.setting, claim.against) == tuple(
            CLAIMS[f"noise/{name}"].setting for name in ("k5-ck", "k5-smallnet")
        )


@pytest.mark.parametrize(
    ("name", "row", "kernel"),
    [("k5-smallnet", "smallnet", 5), ("k5-ck", "ck", 5), ("k9-smallnet", "smallnet", 9)],
)
def test_wrong_labels_are_answered_by_wrong_labels(name, row, kernel):
    row = f"table-a/cifar10-{row}"
    assert answered(run(row, data={"label_noise": 0.2}, network={"kernel": kernel})) == {f"noise/{name}"}
    assert not answered(run(row, data={"label_noise": 0.1}, network={"kernel": kernel}))
    assert not answered(run(row, network={"kernel": kernel}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("imagenet/mobilenet", 66.48),
        ("imagenet/mobilenet-cl", 69.40),
        ("imagenet/mobilenetv2", 63.75),
        ("imagenet/mobilenetv2-cl", 65.62),
        ("imagenet/shufflenetv2", 56.89),
        ("imagenet/shufflenetv2-cl", 57.38),
        ("distillation/smallnet", 79.72),
        ("distillation/ck-fc", 80.63),
        ("imagenet-distillation/mobilenet", 68.39),
        ("imagenet-distillation/mobilenet-cl", 69.51),
        ("detection/yolo-lite", 27.34),
        ("detection/yolo-lite-expanded", 30.97),
        ("segmentation/u-net", 56.59),
        ("segmentation/u-net-expanded", 57.85),
    ],
)
def test_quoted_and_not_rerun(name, value):
    claim = CLAIMS[name]
    assert claim.value == value
    assert claim.not_testable
    assert not claim.sides
    assert judge(claim, []).status == "not testable"


def test_the_number_that_the_summary_gives_twice():
    claim = CLAIMS["imagenet-distillation/mobilenet"]
    assert abs(claim.value - 68.38) < claim.error
    assert abs(claim.value - 68.40) < claim.error
    assert "68.38 or 68.40" in claim.statement


# --- counts, and what could not be read


def test_counts_are_the_sheets():
    counted = {key.removeprefix("expandnets/"): claim for key, claim in SHEET.counted.items()}
    assert {key: claim.value for key, claim in counted.items()} == {
        "parameters/k3-cifar10": 15_050,
        "parameters/k3-cifar100": 20_900,
        "parameters/k5-cifar10": 50_250,
        "parameters/k7-cifar10": 66_186,
        "parameters/k7-cifar100": 72_036,
        "parameters/k9-cifar10": 87_434,
        "macs/k3": 0.47,
        "macs/k7": 4.45,
    }
    counts = count_claims(counted.values())
    assert not [key for key, claim in counted.items() if judge(claim, [], counts).status != "equal"]


def test_what_could_not_be_read_is_named():
    unread = {entry.figure: entry for entry in SHEET.unavailable}
    assert len(unread) == len(SHEET.unavailable) == 12
    words = ("MobileNets on CIFAR", "table 6", "table 8", "table 9", "S1", "figure 3", "figure 4", "S4", "ShuffleNetV2")
    assert all(any(word in figure for figure in unread) for word in words)
    assert "disagree" in unread["table 6: complexity"].why
    assert len(CLAIMS) == 66


def test_numbers_that_are_not_to_be_used_are_no_claims():
    values = {claim.value for claim in CLAIMS.values()}
    assert not values & {150.35, 6.12, 4.05, 562.95, 25.16, 4.13, 8.58, 9.39, 55.72, 56.21}
