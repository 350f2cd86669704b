"""ExpandNets' grids: the tables' rows, one recipe, children after their parents, the shared kernel and nothing else."""

from __future__ import annotations

import pytest
import torch

from thriftylib.errors import ThriftyError
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.records import load_records
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.experiments import expandnets_recipes as recipes
from thriftylib.experiments.base import select
from thriftylib.experiments.expandnets import REUSED, sizes
from thriftylib.options import MethodOptions, find
from thriftylib.papers.expandnets_expansion import Expanded
from thriftylib.paths import claims_dir
from thriftylib.running.collect import claim_of, collect
from thriftylib.running.estimates import Conditions, Estimator
from thriftylib.running.execute import train_missing
from thriftylib.running.folders import OutputFolders
from thriftylib.running.plan import plan
from thriftylib.running.queue import parents_first
from thriftylib.schedules import Steps
from thriftylib.spec import Named

OURS = [name for name, shown in EXPERIMENTS.items() if shown.paper == "expandnets"]
SMALLNETS = [name for name in OURS if name != "expandnets-shared"]
CLAIMS = load_claims(claims_dir())
TABLES = {"expandnets-table-a": 7, "expandnets-table-b": 3}
OF_A_ROW = {  # (convs, linear)
    "SmallNet": ("plain", False),
    "FC": ("plain", True),
    "CL": ("cl", False),
    "CL+FC": ("cl", True),
    "CK": ("ck", False),
    "CK+FC": ("ck", True),
}


def trained_network(run):
    """The network that a run trains, as it is before its first step."""
    network = run.options.build(run.data.info.image_shape, len(run.data.info.classes))
    if run.method is None:
        return network
    return find(MethodOptions, run.method.name).model_validate(run.method.options).start().prepare(network)


@pytest.mark.parametrize(("name", "kernel"), TABLES.items())
def test_each_row_of_a_table_has_its_own_claim(name, kernel):
    configurations = experiment(name).configurations("paper")
    rows = [row for row in OF_A_ROW if kernel == 7 or not row.startswith("CK")]
    assert [(configuration.labels["dataset"], configuration.labels["model"]) for configuration in configurations] == [
        (dataset, row) for dataset in ("cifar10", "cifar100") for row in rows
    ]
    for configuration in configurations:
        stated = claim_of(configuration, experiment(name), CLAIMS)
        row = configuration.labels["model"].lower().replace("+", "-")
        assert stated.id == f"{name.replace('-', '/', 1)}/{configuration.labels['dataset']}-{row}"
        method = configuration.run.method.options
        assert (method["convs"], method["linear"]) == OF_A_ROW[configuration.labels["model"]]
        assert configuration.run.network.options["kernel"] == kernel


def test_rows_differ_in_the_expansion_alone():
    for name in TABLES:
        for dataset in ("cifar10", "cifar100"):
            configurations = [
                configuration
                for configuration in experiment(name).configurations("paper")
                if configuration.labels["dataset"] == dataset
            ]
            assert (
                len({configuration.run.model_copy(update={"method": None}).id for configuration in configurations}) == 1
            )
            rest = [
                {**configuration.run.method.options, "convs": None, "linear": None} for configuration in configurations
            ]
            assert all(each == rest[0] for each in rest)
            assert (rest[0]["rate"], rest[0]["image"], rest[0]["reset_momentum"]) == (4.0, False, True)


def test_headlines_are_table_b_and_the_three_rows_of_table_a():
    headlines = {
        name: [
            configuration.labels["model"]
            for configuration in experiment(name).configurations("paper")
            if configuration.headline
        ]
        for name in OURS
    }
    assert headlines.pop("expandnets-table-b") == ["SmallNet", "FC", "CL", "CL+FC"]
    assert headlines.pop("expandnets-table-a") == ["SmallNet", "CL", "CK"]
    assert not any(headlines.values())


@pytest.mark.parametrize("name", SMALLNETS)
def test_one_recipe_for_all_rows(name):
    for preset, recipe in (("smoke", recipes.SMOKE), ("fast", recipes.FAST), ("paper", recipes.AUTHORS)):
        assert {configuration.run.recipe for configuration in experiment(name).configurations(preset)} == {recipe}


def test_the_authors_recipe():
    recipe = recipes.AUTHORS
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.momentum) == (150, 128, 0.01, 0.9)
    assert (recipe.weight_decay, recipe.nesterov, recipe.label_smoothing) == (0.0, False, 0.0)
    assert recipe.schedule == Steps(milestones=(50, 100), factor=0.1)
    augment = recipe.augment.model_dump(exclude_defaults=True)
    assert augment == {"crop": 4, "flip": True}
    assert not recipes.SMOKE.augment.model_dump(exclude_defaults=True)


def test_sizes_while_training_are_those_counted_for_the_authors_code():
    """Rate 4, 10 classes; counted for the authors' code."""
    counted = sizes().set_index(["kernel", "model"])
    trained = counted["trained"].to_dict()
    assert [trained[3, row] for row in ("SmallNet", "FC", "CL", "CL+FC")] == [15_050, 220_618, 109_086, 314_654]
    assert [trained[7, row] for row in OF_A_ROW] == [66_186, 1_624_970, 547_102, 2_105_886, 186_982, 1_745_766]
    kept = counted["contracted"].groupby("kernel").unique()
    assert {kernel: list(values) for kernel, values in kept.items()} == {
        3: [15_050],
        5: [50_250],
        7: [66_186],
        9: [87_434],
    }


def test_noise_is_in_the_labels_alone():
    for configuration in experiment("expandnets-noise").configurations("paper"):
        clean = {"name": "cifar10", "label_noise": 0.2}
        assert configuration.run.data.model_dump(exclude_defaults=True) == clean


def test_the_audit_changes_momentum_alone_and_shares_its_runs_with_table_b():
    configurations = experiment("expandnets-momentum").configurations("paper")
    ids = {configuration.run.id for configuration in experiment("expandnets-table-b").configurations("paper")}
    for configuration in configurations:
        lost = configuration.labels["momentum"] == "lost"
        assert (configuration.run.id in ids) == lost
        assert configuration.run.method.options["reset_momentum"] == lost
        assert bool(configuration.claims) == lost


def test_the_audit_of_the_initialisation_changes_batch_norm_alone_and_shares_its_runs_with_table_b():
    ids = {configuration.run.id for configuration in experiment("expandnets-table-b").configurations("paper")}
    for configuration in experiment("expandnets-start").configurations("paper"):
        as_there = configuration.labels["start"] == "between 0 and 1"
        assert (configuration.run.id in ids) == as_there == bool(configuration.claims)
        changed = {**configuration.run.method.options, "norm_start": "uniform"}
        assert (
            configuration.run.model_copy(update={"method": Named(name="expandnets", options=changed)}).configuration
            in ids
        )


def test_what_starts_from_trained_weights_keeps_its_batch_norms():
    for configuration in experiment("expandnets-init").configurations("paper"):
        assert configuration.run.method.options.get("norm_start", "network") == (
            "network" if configuration.run.parent else "uniform"
        )


def test_rates_share_rate_4_with_table_a():
    ids = {configuration.run.id for configuration in experiment("expandnets-table-a").configurations("paper")}
    configurations = experiment("expandnets-rate").configurations("paper")
    assert [configuration.labels.get("rate") for configuration in configurations if configuration.run.id in ids] == [
        None,
        4.0,
        4.0,
    ]
    assert {configuration.run.method.options["rate"] for configuration in configurations} == {0.25, 2.0, 4.0, 8.0}


def test_a_look_at_the_gradients_changes_no_accuracy(tmp_path):
    """So the runs of the confusion experiment are as good an answer to table A's claims as table A's."""
    where = {"model": ["CK"]}
    seen, plain = (
        collect(name, preset="smoke", results=tmp_path, device="cpu", where=where, epochs=2, progress=False)
        for name in ("expandnets-confusion", "expandnets-table-a")
    )
    one, other = (load_records(tmp_path)[i].series["test_loss"] for i in (0, 1))
    assert list(seen["run"]) != list(plain["run"])
    assert one == other
    record = next(record for record in load_records(tmp_path) if record.id == seen["run"][0])
    for low, high in zip(record.series["cosine_min"], record.series["cosine_max"], strict=True):
        assert -1 <= low <= high <= 1 + 1e-6


@pytest.mark.parametrize("preset", ["smoke", "fast", "paper"])
def test_a_start_from_trained_weights_names_a_run_of_its_own_grid_before_it(preset):
    seen = {}
    for configuration in experiment("expandnets-init").configurations(preset):
        if configuration.run.parent:
            parent = seen[configuration.run.parent]
            assert configuration.labels["start"] == parent.labels["model"]
            assert configuration.labels["kernel"] == parent.labels["kernel"]
            assert configuration.labels["model"] == "SmallNet"
            assert configuration.run.recipe == parent.run.recipe
            assert not configuration.claims
        seen[configuration.run.id] = configuration


def test_a_plan_has_parents_before_children_whatever_they_are_worth():
    estimator = Estimator(Conditions("a GPU"))
    pending = plan(OURS, ["fast", "paper"], [0, 1], estimator=estimator, records={}, claims=CLAIMS).runs
    order = {each.key: i for i, each in enumerate(pending)}
    children = [each for each in pending if each.parent]
    assert len(children) == 24
    assert all(order[each.parent] < order[each.key] for each in children)


def test_shortened_children_start_from_shortened_parents():
    (child,) = select(experiment("expandnets-init"), "fast", {"start": ["CK"]}, epochs=2)
    (parent,) = select(experiment("expandnets-init"), "fast", {"model": ["CK"]}, epochs=2)
    assert child.run.parent == parent.run.id
    assert child.run.recipe.name == "expandnets-fast-2-epochs"


def test_children_are_trained_after_their_parents_from_their_weights(tmp_path):
    configurations = [
        configuration
        for configuration in experiment("expandnets-init").configurations("smoke")
        if configuration.labels["kernel"] == 3
    ]
    parent, child = (
        next(
            configuration.run
            for configuration in configurations
            if (configuration.labels["model"], configuration.labels["start"]) == expected
        )
        for expected in (("CL+FC", "scratch"), ("SmallNet", "CL+FC"))
    )
    assert parents_first([child, parent, child]) == [parent, child]
    assert parents_first([child]) == [child]
    order = []
    folders = OutputFolders.below(tmp_path)
    done = train_missing(
        [child, parent], folders, device="cpu", progress=False, announce=lambda run, *_: order.append(run.id)
    )
    assert order == [parent.id, child.id]
    first, second = done.records[parent.id], done.records[child.id]
    assert second.series["train_loss"][0] < first.series["train_loss"][0]
    assert train_missing([child], folders, device="cpu", progress=False).missing == []  # nothing left to do


def test_a_child_without_its_parents_weights_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    configurations = experiment("expandnets-init").configurations("smoke")
    child, other = configurations[-1].run, configurations[0].run
    monkeypatch.setattr("thriftylib.training.engine.train", None)
    with pytest.raises(
        ThriftyError, match=f"run {child.id} starts from the trained weights of {child.parent}"
    ) as error:
        train_missing([other, child], OutputFolders.below(tmp_path), device="cpu", progress=False)
    assert "\n" not in str(error.value)
    parent = next(configuration.run for configuration in configurations if configuration.run.id == child.parent)
    with pytest.raises(ThriftyError, match="with seed 1"):  # the parent of another seed will not do
        train_missing([parent, child.with_seed(1)], OutputFolders.below(tmp_path), device="cpu", progress=False)


@pytest.mark.parametrize("preset", ["smoke", "fast", "paper"])
def test_the_shared_kernel_is_expanded_and_nothing_else(preset):
    for configuration in experiment("expandnets-shared").configurations(preset):
        name = configuration.labels["network"]
        network = trained_network(configuration.run)
        chains = {key for key, module in network.named_modules() if isinstance(module, Expanded)}
        if configuration.labels["kernels"] == "plain":
            assert configuration.run.method is None
            assert not chains
            continue
        expected = {
            "ThriftyNet, 3x3": {"convs.0"},
            "ThriftyNet, mb1": {"convs.0.0", "convs.0.1"},
            "DACNN14": {"convs.1"},
        }
        assert chains == expected[name]
        assert not configuration.run.method.options["reset_momentum"]
        assert not configuration.claims


def test_the_expanded_kernel_is_the_one_that_is_used_again_and_again():
    for name, module in REUSED.items():
        plain = next(
            configuration.run
            for configuration in experiment("expandnets-shared").configurations("smoke")
            if (configuration.labels["network"], configuration.labels["kernels"]) == (name, "plain")
        )
        network, uses = trained_network(plain), []
        kernel = network.get_submodule(module)
        kernel.register_forward_hook(lambda *_, uses=uses: uses.append(1))
        network.eval()(torch.zeros(1, 1, 8, 8))
        assert len(uses) >= 4, name
        others = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
        assert len([each for each in others if each not in set(kernel.modules())]) <= 1  # DACNN's stem


def test_both_sides_of_the_shared_kernel_have_one_recipe():
    for preset in ("fast", "paper"):
        configurations = experiment("expandnets-shared").configurations(preset)
        for name in REUSED:
            assert (
                len(
                    {
                        configuration.run.recipe
                        for configuration in configurations
                        if configuration.labels["network"] == name
                    }
                )
                == 1
            )
    assert "Ours" in experiment("expandnets-shared").title


@pytest.mark.parametrize("name", [name for name in OURS if name != "expandnets-init"])
def test_smoke_trains(name, tmp_path):
    """The last configuration of each grid for one epoch; the notebooks' tests train them whole."""
    configuration = experiment(name).configurations("smoke")[-1]
    where = {key: [value] for key, value in configuration.labels.items()}
    table = collect(name, preset="smoke", results=tmp_path, device="cpu", where=where, epochs=1, progress=False)
    assert set(table["status"]) == {"complete"}
    assert table["best_accuracy"].between(5, 100).all()
