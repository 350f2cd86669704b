"""EBCLE's grids: bounds are those of the recorded entropies, and what is compared differs in what it should alone."""

from __future__ import annotations

from collections import defaultdict

import pytest

from thriftylib.evidence.records import load_records
from thriftylib.experiments import experiment
from thriftylib.experiments.ebcle import BOUNDS, DENSENET, NARROW, cut
from thriftylib.papers.ebcle import TOLERANCE, bound
from thriftylib.paths import results_dir


@pytest.fixture(scope="module")
def entropies():
    """The mean entropy in nats of each data set as it is, by the script's convention, from the records."""
    found = {}
    for record in load_records(results_dir()):
        method, data = record.run.method, record.run.data
        if method and method.name == "image-entropy" and data.pixels == type(data.pixels)():
            options = method.options
            if (options["channels"], options["histogram"], options["radius"]) == ("pooled", "image", 0):
                found[data.name] = record.measured["entropy"]
    return found


def test_bounds_are_those_of_the_records(entropies):
    of = {**entropies, "stl10": entropies["stl10-split"]}  # the images with labels are the same
    del of["stl10-split"]
    assert BOUNDS.keys() == of.keys()
    assert {name: bound(of[name]) for name in BOUNDS} == BOUNDS


def test_natural_images_cannot_be_told_apart(entropies):
    natural = [entropies[name] for name in ("cifar10", "cifar100", "stl10-split")]
    assert max(natural) - min(natural) < 0.15  # nats


@pytest.mark.parametrize("preset", ["smoke", "fast", "paper"])
def test_shapes_match_what_they_say(preset):
    grids = defaultdict(dict)
    for each in experiment("ebcle-shape").configurations(preset):
        grids[each.labels["network"], each.labels["dataset"]][each.labels["shape"]] = each.run
    for shapes in grids.values():
        deep = shapes.pop("deep")
        assert shapes
        for said, run in shapes.items():
            assert (run.data, run.recipe, run.network.name) == (deep.data, deep.recipe, deep.network.name)
            assert sum(run.options.repeats) < sum(deep.options.repeats)
            for words, quantity in (("as many parameters", "parameters"), ("as many MACs", "macs")):
                if words in said:
                    wide, whole = getattr(run.cost, quantity), getattr(deep.cost, quantity)
                    assert abs(wide / whole - 1) <= TOLERANCE
    assert len(grids) > (0 if preset == "smoke" else 3)


def test_sweeps_change_depth_alone_or_keep_parameters():
    runs = defaultdict(list)
    for each in experiment("ebcle-depth").configurations("fast"):
        runs[each.labels["dataset"], each.labels["rule"]].append((each.labels["depth"], each.run))
    for (data, rule), some in runs.items():
        for depth, run in some:
            assert run.options.repeats == (depth,) * 3
            if rule == "fixed width":
                assert run.options == NARROW.with_repeats((depth,) * 3)
            else:
                whole = NARROW.cost(run.data.info.image_shape, 10).parameters
                assert abs(run.cost.parameters / whole - 1) <= TOLERANCE
        if rule == "fixed width":
            beyond = [depth for depth, _ in some if depth > BOUNDS[data]]
            assert len(beyond) >= (7 if data != "cifar10" else 3)


def test_pixels_change_nothing_but_pixels():
    networks = defaultdict(set)
    for each in experiment("ebcle-pixels").configurations("fast"):
        assert each.run.recipe.name == "ebcle-short"
        networks[each.labels["depth"]].add(each.run.network.model_dump_json())
    assert all(len(some) == 1 for some in networks.values())


def test_what_is_measured_is_the_trained_network():
    for preset in ("smoke", "fast", "paper"):
        grid = experiment("ebcle-identity").configurations(preset)
        trained = {each.run.configuration: each for each in grid if each.labels["task"] == "trained"}
        measured = [each for each in grid if each.labels["task"] == "measured"]
        assert len(measured) == len(trained) > 0
        for each in measured:
            parent = trained[each.run.parent].run
            assert (each.run.network, each.run.data, each.run.recipe) == (parent.network, parent.data, None)
        sweep = {each.run.id for each in experiment("ebcle-depth").configurations(preset)}
        assert trained.keys() <= sweep


def test_a_bound_of_nothing_changes_nothing():
    assert cut(DENSENET, "cifar10", 12) == DENSENET
