"""The claims file of Less Is More: table 1, its arithmetic, what is only second-hand, and which runs answer a row."""

from __future__ import annotations

import re

import pytest
from made_up import record
from typer.testing import CliRunner

from thriftylib.cli import app
from thriftylib.datasets.facts import dataset_info
from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Claim, matches
from thriftylib.evidence.claims_files import load_claims_file
from thriftylib.evidence.counts import count_claims
from thriftylib.evidence.numbers import Evidence, lookup
from thriftylib.evidence.tables import command
from thriftylib.evidence.verdicts import judge
from thriftylib.experiments import experiment
from thriftylib.experiments.base import select
from thriftylib.experiments.less_is_more import ALL_AT, LENET, POINTS, QUICK
from thriftylib.paths import claims_dir
from thriftylib.spec import Data, Run

PATH = claims_dir() / "less_is_more.yaml"
SHEET = load_claims_file(PATH)
CLAIMS = {key.removeprefix("less_is_more/"): claim for key, claim in SHEET.claims.items()}
COUNTED = {key.removeprefix("less_is_more/"): claim for key, claim in SHEET.counted.items()}
COUNTS = count_claims([*CLAIMS.values(), *COUNTED.values()])

# Table 1 as printed: neurons, parameters (%), memory (MB), error with and without constraint (%).
TABLE = {
    "lenet": (97.80, 92.00, 1.52, 0.63, 0.72),
    "quick": (73.44, 33.42, 0.19, 25.25, 24.75),
    "alexnet": (73.73, 65.42, 152.14, 46.10, 45.57),
    "vgg13": (76.21, 61.29, 311.06, 39.26, 37.50),
}
SIZES = {"lenet": (500, 11), "quick": (64, 17), "alexnet": (4096, 1076), "vgg13": (4096, 974)}
NAMES = {"lenet": LENET, "quick": QUICK}
NOTES = [key for key in CLAIMS if key.startswith("notes/") and not CLAIMS[key].not_testable]

each_row = pytest.mark.parametrize("name", TABLE)
each_trained = pytest.mark.parametrize("name", NAMES)


def runs(part: str, **labels: object) -> list[Run]:
    """The runs of a grid of the preset paper that have these labels."""
    found = experiment(f"less-is-more-{part}").configurations("paper")
    return [each.run for each in found if all(each.labels.get(name) == value for name, value in labels.items())]


def answered(run: Run) -> set[str]:
    return {key for key, claim in CLAIMS.items() if not claim.is_counted and matches(claim, run)}


def status(claim: Claim) -> str:
    return judge(claim, [], COUNTS).status


# --- table 1


@each_row
def test_the_errors_are_the_tables(name):
    *_, with_, without = TABLE[name]
    for side, error in (("with", with_), ("without", without)):
        claim = CLAIMS[f"table/{name}-{side}"]
        assert claim.value == pytest.approx(100 - error)
        assert f"{error:.2f} %" in claim.statement
        assert (claim.error, claim.statistic, claim.runs) == (0.005, "last epoch of one run", None)
    change = CLAIMS[f"change/{name}"]
    assert change.value == pytest.approx(without - with_)
    assert f"{abs(without - with_):.2f} points" in change.statement
    assert ("takes" in change.statement) == (with_ < without)
    assert change.error == 0.01


@each_row
def test_the_other_columns_are_the_tables(name):
    neurons, parameters, memory, *_ = TABLE[name]
    assert CLAIMS[f"neurons/{name}"].value == neurons
    assert CLAIMS[f"parameters/{name}"].value == parameters
    assert CLAIMS[f"memory/{name}"].value == memory
    if name in ("alexnet", "vgg13"):
        assert (CLAIMS[f"parameters-fit/{name}"].value, CLAIMS[f"memory-fit/{name}"].value) == (parameters, memory)


def test_the_file_is_complete():
    groups = [key.split("/")[0] for key in CLAIMS]
    assert {group: groups.count(group) for group in groups} == {
        **{"table": 8, "change": 4, "neurons": 4, "parameters": 4, "memory": 4},
        **{"parameters-fit": 2, "memory-fit": 2, "abstract": 1, "notes": 7},
    }
    assert len(SHEET.unavailable) == 5


@each_row
def test_neurons_are_quoted_and_no_result(name):
    claim = CLAIMS[f"neurons/{name}"]
    whole, left = SIZES[name]
    printed = f"{100 * (1 - left / whole):.2f}"
    assert (printed == f"{claim.value:.2f}") == (name != "vgg13")
    assert status(claim) == "not testable"
    assert ("chosen by us" in claim.not_testable) == (name in NAMES)
    assert ("ImageNet is not among" in claim.not_testable) == (name not in NAMES)
    assert (claim.confidence == "low") == (name not in NAMES)


def test_vgg_states_no_whole_number_of_neurons():
    assert all(f"{100 * removed / 4096:.2f}" != "76.21" for removed in range(4097))


# --- the arithmetic


@each_row
def test_what_a_removed_neuron_takes(name):
    claim = CLAIMS[f"parameters/{name}"]
    small, whole = (COUNTED[f"{part}/{name}"].value for part in ("left", "whole"))
    each = {"lenet": 811, "quick": 1035, "alexnet": 13_313, "vgg13": 29_185}[name]
    removed = SIZES[name][0] - SIZES[name][1]
    assert whole - small == removed * each
    assert judge(claim, [], COUNTS).ours == pytest.approx(100 * removed * each / whole)
    assert judge(CLAIMS[f"memory/{name}"], [], COUNTS).ours == pytest.approx(4 * removed * each / 2**20)


@pytest.mark.parametrize(
    ("claim", "ours", "expected"),
    [
        ("parameters/lenet", 92.00, "equal"),
        ("parameters/quick", 33.42, "equal"),
        ("parameters/alexnet", 65.95, "differs"),
        ("parameters/vgg13", 68.48, "differs"),
        ("memory/lenet", 1.513, "differs"),
        ("memory/quick", 0.186, "equal"),
        ("memory/alexnet", 153.37, "differs"),
        ("memory/vgg13", 347.58, "differs"),
        ("parameters-fit/alexnet", 65.42, "by construction"),
        ("parameters-fit/vgg13", 61.29, "by construction"),
        ("memory-fit/alexnet", 152.15, "differs"),
        ("memory-fit/vgg13", 311.06, "by construction"),
    ],
)
def test_two_neuron_figures_contradict_their_rows(claim, ours, expected):
    verdict = judge(CLAIMS[claim], [], COUNTS)
    assert verdict.ours == pytest.approx(ours, abs=0.005)
    assert verdict.status == expected
    assert CLAIMS[claim].inferred_from_itself == ("-fit" in claim)


@pytest.mark.parametrize(("name", "excluded"), [("alexnet", (62_378_344, 61_100_840)), ("vgg13", ())])
def test_the_networks_follow_from_the_two_other_columns(name, excluded):
    _, percent, mebibytes, *_ = TABLE[name]
    low, high = ((mebibytes - s) * 2**20 / 4 / ((percent + s) / 100) for s in (0.005, -0.005))
    assert low < COUNTED[f"whole/{name}"].value < high
    assert not [total for total in excluded if low < total < high]
    assert not low < (mebibytes * 1e6 / 4) / (percent / 100) < high  # memory in 10^6 bytes


def test_a_page_shows_memory_with_the_tables_decimals():
    evidence = Evidence(files={"less_is_more": SHEET}, counts=COUNTS)
    shown = [lookup(f"claim:less_is_more/memory/lenet:{field}", evidence) for field in ("value", "ours", "verdict")]
    assert shown == ["1.52", "1.51", "differs"]


def test_our_own_arithmetic_holds():
    assert not [key for key, claim in COUNTED.items() if status(claim) != "equal"]


@pytest.mark.parametrize(
    ("claim", "images"), [("parameters/lenet", "mnist"), ("memory/alexnet", "imagenet"), ("parameters/quick", None)]
)
def test_the_command_of_a_count_counts_it(claim, images):
    """With the images of its data set, which are not always those that the command has by default."""
    words = command(CLAIMS[claim])
    assert words.count(f"dataset={images}" if images else "classes=10") == 2
    totals = []
    for side in words.split(" && "):
        done = CliRunner().invoke(app, side.split()[1:])
        assert done.exit_code == 0, done.output
        totals.append(int(re.search(r"^all +([\d,]+)", done.output, re.MULTILINE)[1].replace(",", "")))
    name = claim.split("/")[1]
    assert totals == [COUNTED[f"{part}/{name}"].value for part in ("left", "whole")]


def test_imagenet_is_counted_and_never_trained():
    assert dataset_info("imagenet", to_count=True).image_shape == (3, 224, 224)
    for wrong in (lambda: dataset_info("imagenet"), lambda: Data(name="imagenet")):
        with pytest.raises(SpecError, match="unknown data set 'imagenet'; known: cifar10,"):
            wrong()


# --- which runs answer


@each_trained
def test_the_rows_are_answered_by_the_tables_own_runs(name):
    (without,) = runs("table", network=NAMES[name], training="without constraint")
    (with_,) = runs("table", network=NAMES[name], training="with constraint")
    others = ("small from the start", "with constraint, then without")
    for seed in (0, 4):
        assert answered(without.with_seed(seed)) == {f"table/{name}-without", f"change/{name}"}
        assert answered(with_.with_seed(seed)) == {f"table/{name}-with", f"change/{name}"}
    for training in others:
        (run,) = runs("table", network=NAMES[name], training=training)
        assert not answered(run)


def changed(run: Run, part: str, **options: object) -> Run:
    named = getattr(run, part)
    return Run.model_validate({**run.model_dump(), part: {"name": named.name, "options": {**named.options, **options}}})


@each_trained
def test_what_answers_no_row(name):
    (run,) = runs("table", network=NAMES[name], training="with constraint")
    strength = POINTS[NAMES[name]][0]
    others = [
        *(changed(run, "method", **{option: value}) for option, value in (
            ("group_sparsity", 1.01 * strength), ("low_rank", 0.01), ("bias", "outside"), ("clear_momentum", False),
            ("constrained_epochs", 5), ("layers", ["conv2", "ip1"]))),
        changed(run, "network", hidden=30),
        changed(run, "network", relu=True),
        run.model_copy(update={"data": run.data.model_copy(update={"validation_images": 5000})}),
        run.model_copy(update={"data": Data(name=run.data.name)}),
        run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 12})}),
    ]  # fmt: skip
    assert not [answered(other) for other in others if answered(other)]


def test_no_run_of_the_sweep_answers_a_claim():
    assert not set().union(*map(answered, runs("strength")))


def test_the_strengths_are_those_of_the_grids_and_stand_once():
    """Where the grids are tuned, one number of the file follows for each."""
    expected = {"lenet": POINTS[LENET][0], "quick": POINTS[QUICK][0], "ablation": ALL_AT, "large-steps": ALL_AT / 3}
    lines = re.findall(r"group_sparsity: *([^,}\n]+)", PATH.read_text("utf-8"))
    anchored = dict(re.fullmatch(r"&(\S+)-strength (\S+)", line).groups() for line in lines if line[0] == "&")
    assert {name: float(number) for name, number in anchored.items()} == expected
    assert {line for line in lines if line[0] != "&"} == {"0.0"}


@each_trained
def test_the_tables_neurons_are_those_of_the_grid(name):
    assert CLAIMS[f"parameters/{name}"].setting.options["hidden"] == SIZES[name][1] == POINTS[NAMES[name]][1]


@each_trained
def test_a_change_is_judged_by_its_sign_and_size(name):
    """Runs as the table has them agree with it; runs of the opposite change do not."""
    sides = [runs("table", network=NAMES[name], training=f"{side} constraint")[0] for side in ("with", "without")]
    *_, with_, without = TABLE[name]

    def verdict(one: float, other: float) -> str:
        made = [
            record(run.with_seed(seed), error, error, seconds=200.0)
            for run, error in zip(sides, (one, other), strict=True)
            for seed in range(5)
        ]
        return judge(CLAIMS[f"change/{name}"], made).status

    assert verdict(100 - with_, 100 - without) == "reproduced"
    assert verdict(100 - without, 100 - with_) == "not reproduced"


# --- the abstract and the notes


def test_the_abstract_names_no_network():
    claim = CLAIMS["abstract/thirty-percent"]
    assert (claim.mark, status(claim), claim.value) == ("ABSTRACT", "not testable", 0)
    assert "30 %" in claim.statement
    assert "names no network" in claim.not_testable


def test_notes_are_second_hand_and_judged_by_their_sign():
    for key in (key for key in CLAIMS if key.startswith("notes/")):
        claim = CLAIMS[key]
        assert (claim.mark, claim.confidence, claim.value, claim.relation) == ("SECOND-HAND", "low", 0, "greater")
    assert status(CLAIMS["notes/relu-unconstrained"]) == "not testable"


@pytest.mark.parametrize("name", NOTES)
def test_a_note_compares_networks_that_differ_in_one_thing(name):
    one, other = CLAIMS[name].sides
    sides = [side.model_dump() for side in (one, other)]
    flat = [{**side["options"], **side["method_options"], "recipes": side["recipes"]} for side in sides]
    differing = {key: tuple(each[key] for each in flat) for key in flat[0] if flat[0][key] != flat[1][key]}
    assert differing == ({"relu": (True, False)} if "relu" in name else {"clear_momentum": (True, False)})
    assert flat[0]["recipes"] == {"caffe-lenet-large-steps" if "large-steps" in name else "caffe-lenet": 11}
    names = ("neurons_removed_difference", "parameters_removed_difference")
    assert CLAIMS[name].quantity == names[not name.endswith("neurons")]


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        ("as it is", {"relu", "relu-neurons", "momentum", "momentum-neurons"}),
        ("ReLU after convolutions", {"relu", "relu-neurons"}),
        ("momentum kept", {"momentum", "momentum-neurons"}),
        ("large steps", {"momentum-large-steps", "momentum-large-steps-neurons"}),
        ("large steps, momentum kept", {"momentum-large-steps", "momentum-large-steps-neurons"}),
        ("low rank", set()),
        ("bias outside", set()),
        ("three times as long", set()),
        ("last epochs free", set()),
    ],
)
def test_ablations_answer_the_notes(change, notes):
    (run,) = runs("ablations", change=change)
    assert answered(run) == {f"notes/{note}" for note in notes}


@pytest.mark.parametrize("name", NOTES)
def test_a_note_needs_more_to_be_removed(name):
    def verdict(one: float, other: float) -> str:
        key = CLAIMS[name].definition.key
        made = [
            record(run.with_seed(seed), 98.0, 98.0, seconds=200.0, measured={key: removed + 0.1 * seed})
            for run, removed in zip(sides, (one, other), strict=True)
            for seed in range(3)
        ]
        return judge(CLAIMS[name], made).status

    sides = [
        next(run for run in runs("ablations") if side.answers(run)) for side in CLAIMS[name].sides
    ]  # in the claim's order
    assert verdict(80.0, 70.0) == "reproduced"
    assert verdict(70.0, 80.0) == "not reproduced"
    assert verdict(75.0, 75.0) in ("consistent", "at odds")


# --- what is ours is said


def test_readings_say_what_is_inferred():
    for name in NAMES:
        reading = CLAIMS[f"table/{name}-with"].reading
        for words in ("strength is ours", "no result", "first linear layer alone", "hold out 5,000", "no error"):
            assert words in reading
        assert "last epoch are ours" in CLAIMS[f"table/{name}-without"].reading
    for name in ("alexnet", "vgg13"):
        assert "ratio" in CLAIMS[f"parameters/{name}"].reading
        assert "inferred from this column" in CLAIMS[f"parameters-fit/{name}"].reading
        assert "misread in the preview" in CLAIMS[f"neurons/{name}"].reading
        assert "inferred" in CLAIMS[f"memory-fit/{name}"].statement


def test_neighbours_are_no_claims():
    (others,) = SHEET.replications
    assert "SSR" in others.by
    assert [result.value for result in others.results] == [0.05, 0.20, 0.05, 0.18, 0.01, 0.04]
    assert not any("SSR" in claim.source for claim in (*CLAIMS.values(), *COUNTED.values()))


def test_in_fewer_epochs_what_would_be_free_after_the_end_is_left_out():
    grid = experiment("less-is-more-ablations")
    short, enough = ({each.labels["change"] for each in select(grid, "paper", epochs=epochs)} for epochs in (8, 9))
    assert enough - short == {"last epochs free"}
