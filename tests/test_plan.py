"""The plan: what is missing, in an order that never changes, with estimates that records correct."""

from __future__ import annotations

import pytest
from made_up import from_series

from thriftylib.evidence.sheets import load_claims
from thriftylib.experiments import EXPERIMENTS, experiment
from thriftylib.experiments.plan import Step, estimate, plan, within
from thriftylib.paths import claims_dir

GPU, CPU = "NVIDIA H200", "AMD EPYC (CPU)"
THRIFTYNETS = tuple(name for name, shown in EXPERIMENTS.items() if shown.paper == "thriftynet")
HEADLINE = {"filters": 172, "iterations": 20, "history": 5, "conv": "mb1", "history_bug": False}


def make(presets=("paper", "fast"), seeds=(0,), records=(), names=tuple(EXPERIMENTS), device=GPU, **more) -> list[Step]:
    known = {record.id: record for record in records}
    return plan(names, presets, seeds, device=device, records=known, claims=load_claims(claims_dir()), **more)


def trained(run, seconds: float, device: str = GPU):
    """A record of ``run`` that took so long."""
    epochs = run.recipe.epochs
    series = {"seconds": [seconds / epochs] * epochs}
    return from_series(run, [90.0] * epochs, series=series, seconds=seconds, device=device)


def test_the_headline_network_comes_first_with_the_papers_recipe_then_with_ours():
    steps = make(names=THRIFTYNETS)
    assert [(step.preset, step.run.recipe.name, step.run.seed) for step in steps[:2]] == [
        ("paper", "thriftynet-a", 0),
        ("fast", "thriftynet-fast", 0),
    ]
    for step in steps[:2]:
        assert HEADLINE.items() <= step.run.network.options.items()
    assert not any(step.headline for step in steps[2:])


def test_several_papers_headlines_come_before_everything_else():
    steps = make(presets=("fast", "paper"))
    headlines = [step for step in steps if step.headline]
    assert steps[: len(headlines)] == headlines
    assert [step.preset for step in headlines] == sorted(step.preset for step in headlines)  # fast before paper
    assert {step.run.network.name for step in headlines} == {"dacnn", "smallnet", "thriftynet"}
    assert {step.run.data.name for step in headlines} == {"cifar10", "cifar100"}
    first = next(step for step in headlines if step.preset == "paper")
    assert HEADLINE.items() <= first.run.network.options.items()  # an abstract's claim, whatever the papers' names


def test_every_missing_run_is_there_once_and_names_its_experiments():
    steps = make(seeds=(0, 1))
    runs = {
        cell.run.with_seed(seed).id
        for shown in EXPERIMENTS.values()
        for cell in shown.cells("recorded")
        for seed in (0, 1)
    }
    assert len(steps) == len(runs)
    assert {step.run.id for step in steps} == runs
    for step in steps:
        for name in step.experiments:
            assert step.run.with_seed(0) in [cell.run for cell in experiment(name).cells(step.preset)]


def test_the_order_does_not_change():
    assert make(seeds=(0, 1)) == make(seeds=(0, 1))


def test_a_recorded_run_is_not_planned_and_its_claim_is_worth_less():
    first = make(presets=("paper",), names=THRIFTYNETS)
    done = trained(first[0].run, first[0].estimate.seconds)
    after = make(presets=("paper",), names=THRIFTYNETS, records=[done])
    assert done.id not in {step.run.id for step in after}
    assert len(after) == len(first) - 1

    def rank(steps: list[Step], experiment_name: str, iterations: int) -> int:
        ranks = [i for i, step in enumerate(steps) if experiment_name in step.experiments]
        return next(i for i in ranks if steps[i].run.network.options["iterations"] == iterations)

    alone = make(presets=("paper",), names=("thriftynet-abstract",), records=[done])
    assert [step.headline for step in alone] == [False] * len(alone)
    assert rank(alone, "thriftynet-abstract", 20) == 0  # the cheapest of the abstract's candidates


def test_further_seeds_come_after_first_seeds_of_the_same_size():
    steps = make(presets=("paper",), names=("thriftynet-size-svhn",), seeds=(0, 1, 2))
    for configuration in {step.configuration for step in steps}:
        assert [step.run.seed for step in steps if step.configuration == configuration] == [0, 1, 2]
    cheapest = min(steps, key=lambda step: step.estimate.seconds)
    assert steps[0].configuration == cheapest.configuration


def test_claims_come_before_controls_that_take_as_long():
    steps = make(presets=("paper",), names=("thriftynet-depth", "thriftynet-depth-macs"))
    of = {step.run.network.options["history"]: i for i, step in reversed(list(enumerate(steps)))}
    assert of[5] < of[2]


def test_where_and_presets_choose():
    steps = make(presets=("smoke",), names=("thriftynet-size-cifar10",), where={"filters": [8]})
    assert {step.run.network.options["filters"] for step in steps} == {8}
    assert {step.preset for step in steps} == {"smoke"}


def test_larger_networks_and_longer_recipes_are_estimated_to_take_longer():
    small, large = (estimate(step.run, GPU, ()).seconds for step in _sizes(32, 256))
    assert small < large
    run = _sizes(32)[0].run
    longer = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 2 * run.recipe.epochs})})
    assert estimate(longer, GPU, ()).seconds == pytest.approx(2 * estimate(run, GPU, ()).seconds)
    assert estimate(run, CPU, ()).seconds > estimate(run, GPU, ()).seconds


def _sizes(*filters: int) -> list[Step]:
    steps = make(presets=("paper",), names=("thriftynet-size-cifar10",), where={"iterations": [20], "code": ["fixed"]})
    return [step for f in filters for step in steps if step.run.network.options["filters"] == f]


def test_another_seed_is_estimated_to_take_as_long_as_the_recorded_one():
    run = _sizes(128)[0].run
    record = trained(run, 1234.0)
    found = estimate(run.with_seed(1), GPU, [record])
    assert found.seconds == pytest.approx(1234.0)
    assert found.basis == "another seed"


def test_the_closest_record_of_the_same_device_corrects_the_model():
    runs = [step.run for step in _sizes(128, 160, 256)]
    modelled = [estimate(run, GPU, ()).seconds for run in runs]
    near, far = trained(runs[0], 3 * modelled[0]), trained(runs[2], 7 * modelled[2])
    found = estimate(runs[1], GPU, [far, near])
    assert found.seconds == pytest.approx(3 * modelled[1])
    assert near.id in found.basis
    elsewhere = trained(runs[0], 9 * modelled[0], device="NVIDIA T4")
    assert estimate(runs[1], GPU, [elsewhere]).seconds == pytest.approx(modelled[1])


def test_a_record_of_another_order_of_size_corrects_nothing():
    digits = experiment("thriftynet-size-cifar10").cells("smoke")[0].run
    run = _sizes(256)[0].run
    assert estimate(run, CPU, [trained(digits, 99.0, CPU)]) == estimate(run, CPU, ())


def test_the_budget_cuts_after_the_run_that_it_ends_in():
    steps = make()
    first, second = (step.estimate.seconds for step in steps[:2])
    assert within(steps, None) == steps
    assert within(steps, 0.5 * first) == steps[:1]
    assert within(steps, first + 0.5 * second) == steps[:2]
