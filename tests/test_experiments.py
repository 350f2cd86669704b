"""Experiments of every paper: which claims their runs answer, and tables that say what is missing."""

from __future__ import annotations

import pytest
from made_up import from_series

from thriftylib.errors import SpecError, ThriftyError
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.counts import count_claims, load_counts
from thriftylib.evidence.records import save_record
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.experiments.base import select
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running import execute
from thriftylib.running.collect import collect
from thriftylib.running.execute import QueueResult, train_missing
from thriftylib.running.folders import OutputFolders, parse_budget

SIZE = "thriftynet-size-cifar10"
ONE = {"filters": [8], "iterations": [4]}  # one configuration of SIZE's smoke grid


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_recorded_is_paper_and_what_fast_has_beside_it(name):
    shown = experiment(name)
    paper, fast = shown.configurations("paper"), shown.configurations("fast")
    beside = [each for each in fast if each.run not in [other.run for other in paper]]
    assert shown.configurations("recorded") == paper + beside


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_configurations_list_exactly_the_claims_whose_setting_they_have(name):
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
            and (setting.recipes.get(run.recipe.name) == run.recipe.epochs if run.recipe else not setting.recipes)
            and (run.data.scaling, run.data.validation_images) == (setting.scaling, 0)
            and run.data.pixels == setting.pixels
            and setting.options.items() <= has
            and any(choice.items() <= has for choice in setting.any_of or [{}])
            and (method, run.data.label_noise) == (setting.method, setting.label_noise)
            and setting.method_options.items() <= how
            and setting.derived == (run.parent is not None)
        }
        assert set(configuration.claims) == wanted, configuration.labels


def test_no_fast_or_smoke_run_passes_for_the_papers():
    for shown in EXPERIMENTS.values():
        papers = [configuration.run for configuration in shown.configurations("paper")]
        for preset in ("smoke", "fast"):
            others = [each for each in shown.configurations(preset) if each.run not in papers]
            assert not any(each.claims for each in others), (shown.name, preset)


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


def test_a_run_of_both_presets_is_shown_once(tmp_path):
    """Less Is More's runs take minutes, so its fast grids are the paper's."""
    table = collect("less-is-more-table", results=tmp_path)
    assert set(table["preset"]) == {"paper"}
    assert table["run"].is_unique
