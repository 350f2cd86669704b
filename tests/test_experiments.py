"""Experiments: grids that can be trained, claims that are answered, and tables that say what is missing."""

from __future__ import annotations

import pytest
from made_up import from_series

from thriftylib.errors import SpecError, ThriftyError
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.counts import count_claims, load_counts
from thriftylib.evidence.records import save_record
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.experiments.base import select
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running import execute
from thriftylib.running.collect import collect
from thriftylib.running.execute import QueueResult, train_missing
from thriftylib.running.folders import OutputFolders, parse_budget
from thriftylib.spec import Plateau

TRAINING = ("smoke", "fast", "paper")
SIZE = "thriftynet-size-cifar10"
ONE = {"filters": [8], "iterations": [4]}  # one configuration of SIZE's smoke grid


def test_the_experiments_are_those_that_the_chapter_needs():
    assert set(EXPERIMENTS) == {
        *("thriftynet-size-cifar10", "thriftynet-size-svhn", "thriftynet-depth-macs", "thriftynet-downsampling"),
        *("thriftynet-depth", "thriftynet-history", "thriftynet-augmentation", "thriftynet-protocol"),
        "thriftynet-abstract",
        *("dacnn-scatter", "dacnn-pruning", "dacnn-svhn", "dacnn-depth-sweep", "dacnn-norm", "dacnn-regulators"),
        "dacnn-small-statistics",
        *("expandnets-table-a", "expandnets-table-b", "expandnets-noise", "expandnets-kernels", "expandnets-init"),
        *("expandnets-confusion", "expandnets-rate", "expandnets-momentum", "expandnets-start", "expandnets-shared"),
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_grid_has_distinct_runs_and_the_same_labels(name):
    shown = experiment(name)
    assert shown.question
    for preset in TRAINING:
        configurations = shown.configurations(preset)
        assert len({configuration.run.id for configuration in configurations}) == len(configurations)
        assert len(
            {(configuration.run.recipe_name, *configuration.labels.items()) for configuration in configurations}
        ) == len(configurations)
        assert all(configuration.run.seed == 0 for configuration in configurations)
    assert {key for configuration in shown.configurations("smoke") for key in configuration.labels} >= {
        key for configuration in shown.configurations("fast") for key in configuration.labels
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke_is_small_and_needs_no_file(name):
    for configuration in experiment(name).configurations("smoke"):
        assert configuration.run.data.name == "digits"
        assert configuration.run.epochs <= 3
        assert configuration.run.options.cost((1, 8, 8), 10).macs < 1e6


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_recorded_is_paper_and_fast(name):
    shown = experiment(name)
    assert shown.configurations("recorded") == shown.configurations("paper") + shown.configurations("fast")


def test_each_testable_claim_is_answered_by_the_experiment_that_it_names():
    unanswered = []
    for claim in load_claims(claims_dir()).values():
        if claim.definition.needs_runs and claim.not_testable is None:
            answering = [
                configuration.run
                for configuration in experiment(claim.experiment).configurations("paper")
                if claim.id in configuration.claims
            ]
            both = all(any(side.fits(run) for run in answering) for side in claim.sides)
            unanswered += [] if both else [claim.id]
    assert unanswered == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_cells_list_exactly_the_claims_whose_setting_they_have(name):
    """The setting's fields compared by hand, not by the function that the experiments use."""
    claims = load_claims(claims_dir())
    for configuration in experiment(name).configurations("paper"):
        run = configuration.run
        has = run.network.options.items()
        method, how = (run.method.name, run.method.options.items()) if run.method else (None, {}.items())
        wanted = {
            claim.id
            for claim in claims.values()
            if claim.definition.needs_runs
            for setting in claim.sides
            if (run.network.name, run.data.name) == (setting.network, setting.dataset)
            and setting.recipes.get(run.recipe.name) == run.recipe.epochs
            and setting.options.items() <= has
            and any(choice.items() <= has for choice in setting.any_of or [{}])
            and (method, run.data.label_noise) == (setting.method, setting.label_noise)
            and setting.method_options.items() <= how
            and setting.derived == (run.parent is not None)
        }
        assert set(configuration.claims) == wanted, configuration.labels


def test_no_fast_or_smoke_run_passes_for_the_papers():
    for shown in EXPERIMENTS.values():
        for preset in ("smoke", "fast"):
            assert not any(configuration.claims for configuration in shown.configurations(preset)), (shown.name, preset)


def test_svhn_widths_are_those_of_the_figure():
    configurations = experiment("thriftynet-size-svhn").configurations("paper")
    filters = {
        (configuration.labels["iterations"], configuration.labels["budget"]): configuration.run.network.options[
            "filters"
        ]
        for configuration in configurations
    }
    assert [filters[20, budget] for budget in (2_000, 5_000, 8_000, 10_000, 15_000, 20_000, 40_000)] == [
        *(22, 46, 63, 74, 95, 114, 172)
    ]
    assert not any(configuration.run.recipe.augment.flip for configuration in configurations)


def test_period_7_pools_as_often_as_period_6():
    labels = [configuration.labels for configuration in experiment("thriftynet-downsampling").configurations("paper")]
    assert [(each["period"], each["paper_label"], each["poolings"]) for each in labels[:5]] == [
        *((40, 0, 0), (15, 1, 1), (10, 2, 2), (7, 3, 4), (6, 4, 4))
    ]


def test_the_authors_recipes():
    for recipe, epochs in ((recipes.A, 200), (recipes.B, 150), (recipes.C, 200)):
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum) == (epochs, 100, 0.1, 0.9)
        assert (recipe.weight_decay, recipe.weight_decay_on, recipe.nesterov) == (5e-4, "all", False)
    assert recipes.A.schedule == Plateau(monitor="test_loss", factor=0.5, patience=7, min_learning_rate=1e-4)
    assert (recipes.B.schedule.milestones, recipes.C.schedule.milestones) == ((50, 100, 130), (50, 100, 150))


def test_the_recipes_of_two_logs():
    vanilla, shared = recipes.VANILLA, recipes.SHARED_NORM
    assert vanilla.schedule == Plateau(monitor="test_loss", factor=0.5, patience=8, min_learning_rate=1e-4)
    assert (vanilla.epochs, vanilla.batch_size) == (200, 100)
    assert (vanilla.augment.cutout, vanilla.augment.cutout_defect) == (8, True)
    assert shared.schedule == Plateau(monitor="test_loss", factor=0.5, patience=5, min_learning_rate=1e-5)
    assert (shared.epochs, shared.batch_size) == (79, 80)
    assert (vanilla.learning_rate, vanilla.weight_decay) == (shared.learning_rate, shared.weight_decay) == (0.1, 5e-4)


def test_one_cell_answers_each_of_two_logs():
    logged = [
        configuration
        for configuration in experiment("thriftynet-protocol").configurations("paper")
        if configuration.labels["aspect"] == "authors' log"
    ]
    answered = [{key.removeprefix("thriftynet/log-other/") for key in configuration.claims} for configuration in logged]
    assert answered == [
        {"shared-norm-best", "shared-norm-last", "shared-norm-train"},
        {"vanilla-best", "vanilla-final", "vanilla-train"},
    ]


def test_candidates_of_the_abstract():
    configurations = experiment("thriftynet-abstract").configurations("paper")
    cifar10 = [configuration for configuration in configurations if configuration.labels["statement"] == "CIFAR-10"]
    assert all("thriftynet/abstract/cifar10-under-40k" in configuration.claims for configuration in cifar10)
    depths = {(configuration.run.options.iterations, configuration.run.options.history) for configuration in cifar10}
    assert depths == {(T, h) for T in range(20, 55, 5) for h in (1, 5)}
    bugged = [configuration.run for configuration in cifar10 if configuration.run.options.history_bug]
    assert [(run.options.iterations, run.options.filters, run.recipe.name) for run in bugged] == [
        (30, 163, "thriftynet-a")
    ]
    assert bugged[0].id in {
        configuration.run.id for configuration in experiment("thriftynet-downsampling").configurations("paper")
    }
    for preset in ("fast", "paper"):
        (two,) = [
            configuration.run.options
            for configuration in experiment("thriftynet-abstract").configurations(preset)
            if configuration.labels["candidate"] == "two blocks"
        ]
        assert two.history_bug, "it is of April 2020, before the history was mended"


def test_autoaugment_is_trained_as_released_and_as_published():
    for preset in ("fast", "paper"):
        configurations = {
            configuration.labels["augmentation"]: configuration.run.recipe
            for configuration in experiment("thriftynet-augmentation").configurations(preset)
        }
        standard, released = configurations["autoaugment"].augment, configurations["autoaugment-released"].augment
        assert (standard.autoaugment_released, released.autoaugment_released) == (False, True)
        assert released.model_copy(update={"autoaugment_released": False}) == standard
        assert configurations["autoaugment-released"].name == f"{configurations['none'].name}-autoaugment-released"


def test_a_recipe_name_means_one_recipe():
    named = {}
    for shown in EXPERIMENTS.values():
        for preset in TRAINING:
            for configuration in shown.configurations(preset):
                assert (
                    named.setdefault(configuration.run.recipe_name, configuration.run.recipe)
                    == configuration.run.recipe
                )


def test_committed_counts_are_what_we_count_now():
    assert load_counts(results_dir()) == count_claims(load_claims(claims_dir()).values())


def test_recorded_shows_every_committed_seed_and_says_what_is_missing(tmp_path):
    configuration = experiment(SIZE).configurations("paper")[0]
    for seed, best in ((0, 75.0), (3, 76.0)):
        accuracies = [0.0] * 198 + [best, 74.0]
        save_record(from_series(configuration.run.with_seed(seed), accuracies, seconds=2000.0), tmp_path)
    table = collect(SIZE, results=tmp_path)
    there = table[table["status"] == "complete"]
    assert list(there["seed"]) == [0, 3]
    assert list(there["best_accuracy"]) == [75.0, 76.0]
    assert set(there["final_accuracy"]) == {74.0}
    assert list(there["claimed"]) == [load_claims(claims_dir())["thriftynet/size-cifar10/t20-f32"].value] * 2
    assert len(table) == len(experiment(SIZE).configurations("recorded")) + 1
    assert set(table["status"]) == {"complete", "missing"}
    assert table["parameters"].notna().all()


def test_smoke_trains_once_and_then_reads(tmp_path, monkeypatch):
    first = collect(SIZE, preset="smoke", results=tmp_path, device="cpu", where=ONE, progress=False)
    assert list(first["status"]) == ["complete"]
    assert 5 < first["best_accuracy"][0] <= 100
    monkeypatch.setattr("thriftylib.training.engine.train", None)
    again = collect(SIZE, preset="smoke", results=tmp_path, device="cpu", where=ONE, progress=False)
    assert again.equals(first)


def test_a_budget_that_is_used_up_leaves_the_rest_missing(tmp_path):
    table = collect(SIZE, preset="smoke", results=tmp_path, device="cpu", budget=1e-9, progress=False)
    assert set(table["status"]) == {"missing"}
    assert len(table) == len(experiment(SIZE).configurations("smoke"))


def test_what_stopped_a_training_is_told(tmp_path, monkeypatch):
    class Outcome:
        record, stopped = None, "signal"

    monkeypatch.setattr("thriftylib.training.engine.train", lambda *args, **more: Outcome)
    runs = [configuration.run for configuration in experiment(SIZE).configurations("smoke")]
    assert train_missing(runs, OutputFolders.below(tmp_path)) == QueueResult({}, runs, "signal")


def test_other_epochs_are_another_recipe_and_answer_no_claim():
    configurations = select(experiment(SIZE), "paper", {"filters": [32]}, epochs=7)
    assert {configuration.run.recipe.name for configuration in configurations} == {"thriftynet-a-7-epochs"}
    assert {configuration.run.recipe.epochs for configuration in configurations} == {7}
    assert not any(configuration.claims for configuration in configurations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "thriftynet-sise-cifar10"}, "did you mean 'thriftynet-size-cifar10'"),
        ({"preset": "papers"}, "did you mean 'paper'"),
        ({"preset": "smoke", "seeds": "0-"}, "seeds = '0-'"),
        ({"preset": "smoke", "budget": "soon"}, "budget = 'soon'"),
        ({"preset": "smoke", "device": "tpu"}, "device = 'tpu'"),
        ({"where": {"width": [3]}}, "no label 'width'"),
        ({"where": {"filters": [33]}}, "has [32, 64"),
        ({"preset": "paper", "epochs": 0}, "epochs"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    with pytest.raises(ThriftyError) as caught:
        collect(**{"name": SIZE, "results": tmp_path, **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9m", 540), ("90s", 90), ("1h30m", 5400), ("1h2m3s", 3723), ("45", 45), (2.5, 2.5), ("0.5s", 0.5), ("", None)],
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["9 minutes", "m", "-3m", "0", "0m", "3d", "1m1h", "nan", "inf"])
def test_wrong_budgets(text):
    with pytest.raises(SpecError, match="budget"):
        parse_budget(text)


def test_a_weight_file_is_evaluated_again(tmp_path):
    runs = [configuration.run for configuration in select(experiment(SIZE), "smoke", ONE)]
    sitting = train_missing(runs, OutputFolders.below(tmp_path), device="cpu", progress=False)
    record = sitting.records[runs[0].id]
    assert execute.verify_weights(record, tmp_path / "weights", device="cpu") == pytest.approx(
        record.final.test_accuracy
    )
    path = tmp_path / "weights" / record.weights.file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ThriftyError, match="SHA-256"):
        execute.verify_weights(record, tmp_path / "weights", device="cpu")
