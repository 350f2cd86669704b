"""DACNN's grids: the plot's points, one recipe for all, the sweep that a CPU can finish, and a training on digits."""

from __future__ import annotations

import pytest

from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.records import load_records
from thriftylib.evidence.verdicts import judge
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.experiments import dacnn_recipes as recipes
from thriftylib.experiments.dacnn import HEADLINES, POINTS
from thriftylib.experiments.recipes import for_svhn
from thriftylib.paths import claims_dir, results_dir, weights_dir
from thriftylib.running.collect import claim_of, collect

MEASURED = "dacnn-small-statistics"  # trains nothing
OURS = [name for name, shown in EXPERIMENTS.items() if shown.paper == "dacnn" and name != MEASURED]
CLAIMS = load_claims(claims_dir())


def test_the_scatter_has_the_fourteen_points_in_their_places():
    """Each has its own claimed accuracy, and the parameters that the plot shows, but for the baselines."""
    configurations = experiment("dacnn-scatter").configurations("paper")
    assert len(configurations) == len(POINTS) == 14
    for configuration in configurations:
        stated = claim_of(configuration, experiment("dacnn-scatter"), CLAIMS)
        assert stated.experiment == "dacnn-scatter"
        name = configuration.labels["net"].lower().replace("(", "-").replace(",", "-").replace(")", "")
        assert stated.id == f"dacnn/scatter/{name}"
        place = CLAIMS[f"dacnn/scatter-parameters/{name}"]
        near = abs(configuration.labels["kernel_parameters"] - place.value) <= place.reading_error
        assert near == (configuration.labels["family"] != "baseline"), name


def test_headlines_come_first_and_are_those_of_the_plan():
    headlines = {
        configuration.labels["net"]
        for configuration in experiment("dacnn-scatter").configurations("fast")
        if configuration.headline
    }
    assert headlines == set(HEADLINES)


@pytest.mark.parametrize("name", OURS)
def test_one_recipe_for_all_networks_and_never_the_papers_own(name):
    used = {
        preset: {configuration.run.recipe for configuration in experiment(name).configurations(preset)}
        for preset in ("fast", "paper")
    }
    assert used["paper"] == {for_svhn(recipes.INFERRED) if name == "dacnn-svhn" else recipes.INFERRED}
    assert "inferred" in experiment(name).question
    if name == "dacnn-depth-sweep":
        assert used["fast"] == {recipes.FAST, recipes.CPU}
    else:
        assert used["fast"] == {for_svhn(recipes.FAST) if name == "dacnn-svhn" else recipes.FAST}


def test_batch_norms_are_initialised_as_in_2019_but_under_the_recipe_that_came_first():
    for name in OURS:
        for configuration in (
            configuration for preset in ("fast", "paper") for configuration in experiment(name).configurations(preset)
        ):
            uniform = configuration.run.network.name != "dacnn-small" or configuration.run.recipe == recipes.INFERRED
            assert (configuration.run.options.norm_init == "uniform") == uniform, (name, configuration.labels)


def test_fourteen_layers_are_as_released_wherever_they_are_trained():
    """Plain: convolution, ReLU, batch norm; mixed: nothing between the fourth pool's and the next convolution."""
    found = set()
    for name in (*OURS, "expandnets-shared"):
        for configuration in experiment(name).configurations("paper"):
            if configuration.run.network.options.get("depth") == 14:
                options = configuration.run.options
                found.add((options.sharing, options.order, options.bias, options.bare_fifth))
    assert found == {("plain", "conv-relu-bn", True, False), ("mix", "conv-bn-relu", True, True)}


def test_the_pruning_runs_answer_the_drops():
    configurations = {
        configuration.labels["net"]: set(configuration.claims)
        for configuration in experiment("dacnn-pruning").configurations("paper")
    }
    assert configurations == {
        "ResNet18": {"dacnn/pruning-drop/mix-reg", "dacnn/pruning-drop/plain"},
        "DACNN18(MIX,REG)": {"dacnn/pruning-drop/mix-reg"},
        "DACNN18": {"dacnn/pruning-drop/plain"},
    }


def test_no_claim_is_made_for_svhn_and_no_digit_is_mirrored():
    for preset in ("fast", "paper"):
        configurations = experiment("dacnn-svhn").configurations(preset)
        assert not any(configuration.claims for configuration in configurations)
        assert not any(configuration.run.recipe.augment.flip for configuration in configurations)


def test_the_sweep_compares_equal_widths_and_its_cpu_part_is_labelled():
    configurations = experiment("dacnn-depth-sweep").configurations("fast")
    on_a_cpu = [configuration for configuration in configurations if configuration.run.recipe == recipes.CPU]
    assert {configuration.labels["width"] for configuration in on_a_cpu} == {32}
    assert {(configuration.labels["layers"], configuration.labels["kernels"]) for configuration in on_a_cpu} == {
        (layers, kernels) for layers in (3, 5, 7, 9, 11) for kernels in ("shared with norm", "shared", "unshared")
    }
    assert {
        configuration.run.options.norm
        for configuration in on_a_cpu
        if configuration.labels["kernels"] == "shared with norm"
    } == {"shared"}
    assert {
        configuration.run.options.norm
        for configuration in on_a_cpu
        if configuration.labels["kernels"] != "shared with norm"
    } == {"free"}
    cost = {
        (configuration.labels["layers"], configuration.labels["kernels"]): configuration.run.options.cost(
            (3, 32, 32), 100
        )
        for configuration in on_a_cpu
    }
    shared, unshared = ([cost[layers, kernels] for layers in (3, 5, 7, 9, 11)] for kernels in ("shared", "unshared"))
    assert len({each.kernel_parameters for each in shared}) == 1
    assert [each.macs for each in shared] == [each.macs for each in unshared]
    kernel = 9 * 32 * 32
    assert [b.kernel_parameters - a.kernel_parameters for a, b in zip(shared, unshared, strict=True)] == [
        kernel * uses for uses in (1, 3, 5, 7, 9)
    ]


def test_regulators_share_their_runs_with_the_scatter():
    def ids(name: str) -> dict[str, tuple]:
        return {
            configuration.run.id: tuple(configuration.labels.values())
            for configuration in experiment(name).configurations("paper")
        }

    both = ids("dacnn-regulators").keys() & ids("dacnn-scatter").keys()
    assert len(both) == 9  # plain, REG, MIX and MIX,REG of the ResNet layout
    labels = [configuration.labels for configuration in experiment("dacnn-regulators").configurations("paper")]
    assert sum(each["regulators"] == "rotation" for each in labels) == 5


@pytest.mark.parametrize("name", OURS)
def test_smoke_trains_and_judges_nothing(name, tmp_path):
    """One configuration of each grid, the deepest, for one epoch; the notebooks' tests train them whole."""
    configurations = experiment(name).configurations("smoke")
    assert not any(configuration.claims for configuration in configurations)
    where = {key: [value] for key, value in configurations[-1].labels.items()}
    table = collect(name, preset="smoke", results=tmp_path, device="cpu", where=where, epochs=1, progress=False)
    assert set(table["status"]) == {"complete"}
    assert table["best_accuracy"].between(5, 100).all()
    records = load_records(tmp_path)
    assert len(records) == len(table)
    differences = [claim for claim in CLAIMS.values() if claim.is_difference and not claim.not_testable]
    assert {judge(claim, records).status for claim in differences} == {"not run"}


def test_the_ten_recorded_networks_with_one_kernel_are_measured_and_nothing_is_trained():
    configurations = [
        configuration
        for configuration in experiment(MEASURED).configurations("fast")
        if configuration.labels["task"] == "measured"
    ]
    configurations = [configuration for configuration in configurations if configuration.labels["width"] == 32]
    records = {record.run.configuration: record for record in load_records(results_dir())}
    parents = [records[configuration.run.parent] for configuration in configurations]
    assert {(parent.run.options.layers, parent.run.options.norm) for parent in parents} == {
        (layers, norm) for layers in (3, 5, 7, 9, 11) for norm in ("shared", "free")
    }
    for configuration, parent in zip(configurations, parents, strict=True):
        assert (configuration.run.network, configuration.run.data, configuration.run.recipe) == (
            parent.run.network,
            parent.run.data,
            None,
        )
        assert (weights_dir() / parent.weights.file).is_file()
        assert not configuration.claims


@pytest.mark.parametrize("preset", ["smoke", "fast", "paper"])
def test_what_is_measured_starts_from_what_the_depth_sweep_trains(preset):
    configurations = experiment(MEASURED).configurations(preset)
    trained = [configuration.run for configuration in configurations if configuration.labels["task"] == "trained"]
    measured = [configuration.run for configuration in configurations if configuration.labels["task"] == "measured"]
    assert [run.parent for run in measured] == [run.configuration for run in trained]
    sweep = [configuration.run for configuration in experiment("dacnn-depth-sweep").configurations(preset)]
    assert trained == [run for run in sweep if run.options.shared]


def test_measured_numbers_are_columns_of_the_table(tmp_path):
    where = {"layers": [7]}
    table = collect(MEASURED, preset="smoke", results=tmp_path, device="cpu", where=where, progress=False)
    assert set(table["status"]) == {"complete"}
    trained, measured = (table[table["task"] == task].set_index("kernels") for task in ("trained", "measured"))
    kinds = [f"{kind}_statistics_accuracy" for kind in ("running", "batch", "own")]
    assert measured[kinds].notna().all(axis=None)
    assert trained[kinds].isna().all(axis=None)
    assert measured["best_accuracy"].isna().all()
    # The same weights with the same statistics give the accuracy that was recorded.
    assert measured["running_statistics_accuracy"].to_dict() == pytest.approx(trained["final_accuracy"].to_dict())
    shared = measured.loc["shared with norm"]
    assert shared["own_statistics_accuracy"] > shared["running_statistics_accuracy"] + 5
