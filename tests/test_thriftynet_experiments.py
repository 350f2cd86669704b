"""ThriftyNets' experiments: the authors' recipes, and the grids of their figures."""

from __future__ import annotations

from thriftylib.experiments import experiment
from thriftylib.experiments import thriftynet_recipes as recipes
from thriftylib.schedules import Plateau


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


def test_one_configuration_answers_each_of_two_logs():
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
