"""The bench on tiny sizes: what it compares is the same, and what it gives is a record. Nothing here is timed."""

import math
import multiprocessing
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from thriftylib.bench import entropy, measure
from thriftylib.bench.record import load_bench, save_bench
from thriftylib.bench.ways import AuthorsFormulation, Way, bench_run
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.papers.thriftynet import ThriftyNetOptions

TINY = {"batch_size": 4, "rounds": 2}


@pytest.fixture
def without_peaks(monkeypatch):
    """No process of its own for each way."""
    monkeypatch.setattr(measure, "_peak", lambda *_: None)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(measure, "SMALLNET_STEPS", 2)


def test_authors_formulation_is_the_papers_network():
    torch.manual_seed(0)
    ours = ThriftyNetOptions(filters=6, iterations=10).build((3, 32, 32), 10).double()
    theirs = AuthorsFormulation(6, 10, history=5, pool=2).double()
    with torch.no_grad():
        ours.alpha.add_(0.1 * torch.randn_like(ours.alpha))
    theirs.load_state_dict(ours.state_dict())
    images, labels = torch.randn(4, 3, 32, 32).double(), torch.arange(4)
    for network in (ours, theirs):
        F.cross_entropy(network(images), labels).backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_thriftynet(tmp_path, without_peaks):
    lines = []
    threads = torch.get_num_threads()
    record = measure.bench_thriftynet(filters=4, iterations=5, threads=1, report=lines.append, **TINY)
    names = ["authors", "usual", "plain", "kernels"]
    assert [name for name in record.variants if name != "bf16"] == names
    assert [record.variants[name].after for name in names] == [None, *names[:-1]]
    assert record.baseline == "authors"
    assert all(len(variant.images_per_second) == 2 for variant in record.variants.values())
    assert record.threads == 1
    assert torch.get_num_threads() == threads
    assert record.ratio("kernels") > 0
    assert record.gain("kernels") == record.ratio("kernels", "plain")
    assert record.gain("authors") is None
    assert "4 filters, 5 iterations, batch 4" in record.what
    assert lines[-1].startswith("round 2/2, images/s: authors ")
    save_bench(record, tmp_path)
    assert load_bench(tmp_path) == {"thriftynet": record}


@pytest.fixture
def two_processors(without_peaks, monkeypatch):
    """Two, and what would be trainings in parallel is one in this process."""
    begin = measure._training
    monkeypatch.setattr(measure, "_training", lambda run, way, *more: begin(run, replace(way, in_parallel=1), *more))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_smallnet(two_processors):
    record = measure.bench_smallnet(threads=1, **TINY)
    names = ["usual", "plain", "kernels", "usual-in-parallel", "kernels-in-parallel"]
    assert (record.name, record.baseline, list(record.variants)) == ("smallnet-3", "usual", names)
    assert record.variants["kernels-in-parallel"].what == "fast paths; two trainings in parallel"
    assert record.gain("kernels-in-parallel") == record.ratio("kernels-in-parallel", "kernels")


def test_overparameterised_blocks_are_merged_in_a_row_of_their_own(two_processors, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    record = measure.bench_smallnet(kernel=7, convs="ck", linear=True, threads=1, **TINY)
    assert record.name == "smallnet-7-ck-fc"
    assert list(record.variants) == ["usual", "plain", "merged", "kernels"]
    assert record.what.endswith("trained as CK+FC of rate 4")


def test_the_recursion_against_what_the_machine_could_do(without_peaks, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    record = measure.bench_recursion(filters=6, iterations=5, threads=1, **TINY)
    assert record.name == "recursion-6-5-1"
    assert list(record.variants) == ["plain", "kernels", "product", "kernels-bf16", "product-bf16"]
    afters = {"kernels": "plain", "kernels-bf16": "kernels"}
    assert {name: each.after for name, each in record.variants.items() if each.after} == afters
    assert record.share("kernels") == record.ratio("kernels", "product")
    assert record.share("kernels-bf16") == record.ratio("kernels-bf16", "product-bf16")
    assert record.share("product") is None


def test_a_product_has_as_many_multiply_adds_as_a_step(monkeypatch):
    run, shapes = bench_run({"name": "thriftynet", "options": {"filters": 64}}, 3, 100), []
    monkeypatch.setattr(torch, "mm", lambda a, b: shapes.append((*a.shape, b.shape[1])))
    next(Way("a product", ("product",)).steps(run))
    assert math.prod(shapes[0]) == pytest.approx(3 * 100 * run.cost.macs, rel=1e-3)


def test_lenet_with_and_without_constraint(without_peaks):
    record = measure.bench_lenet(threads=1, **TINY)
    assert (record.name, record.baseline) == ("lenet", "plain")
    assert list(record.variants) == ["plain", "group-sparsity", "low-rank"]


def test_a_way_may_change_the_method():
    run = measure.bench_run({"name": "caffe-lenet"}, 3, 4, {"name": "less-is-more", "options": {}}, data="mnist")
    network = Way("constrained", ("engine",), method={"group_sparsity": 0.5}).trainer(run).method
    assert network.options.group_sparsity == 0.5


def test_a_different_result_is_not_timed(monkeypatch):
    monkeypatch.setattr(
        AuthorsFormulation, "forward", lambda self, x, before=AuthorsFormulation.forward: before(self, 1.01 * x)
    )
    with pytest.raises(ThriftyError, match="usual: logits differ from those of authors by"):
        measure.bench_thriftynet(filters=4, iterations=5, batch_size=4, rounds=1)


def test_trainings_in_parallel_their_memory_and_their_death():
    run, way = small_run(), Way("ours", ("engine",), in_parallel=2)
    if os.path.exists("/proc/self/status"):
        assert measure._peak(run, way, 2) > 2**20
    with ExitStack() as stack:
        advance = measure._training(run, way, 2, stack)
        advance(2)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # the other one lives on
        with pytest.raises(ThriftyError, match="has died"):
            advance(1)
    assert not multiprocessing.active_children()


def small_run(**method):
    method = method and {"name": "expandnets", "options": method}
    return bench_run({"name": "smallnet", "options": {"kernel": 3}}, 25, 4, method or None)


@pytest.mark.parametrize(("parts", "merged"), [((), False), (("engine",), False), (("engine", "merged"), True)])
def test_layers_of_a_block_are_trained_one_by_one_or_merged(parts, merged):
    network, calls = Way("a way", parts).network(small_run(convs="cl", linear=True)), []
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    network(torch.randn(128, 3, 32, 32))
    assert len(calls) == (3 + 1 if merged else 3 * 3 + 3 + 3 + 1)  # convolutions, norms, linear layers, classifier


def test_a_deep_network_beside_the_same_cut_to_a_few_units(without_peaks):
    record = measure.bench_depth(network="efficientnet", units=1, batch_size=2, rounds=1, threads=1)
    assert record.name == "depth-efficientnet"
    assert [variant.after for variant in record.variants.values()] == [None, "deep", "deep", "deep"]
    macs = {name: int(variant.what.split()[-4]) for name, variant in record.variants.items()}
    assert macs["cut-none"] < 0.6 * macs["deep"]
    assert abs(macs["cut-macs"] / macs["deep"] - 1) < 0.04  # rounded to whole millions


def test_only_networks_in_stages_are_cut():
    with pytest.raises(SpecError, match="'tiny-resnet': has no stages of equal units; try densenet"):
        measure.bench_depth(network="tiny-resnet")
    with pytest.raises(SpecError, match="^units = 12: cuts nothing; must be below 12, the units of the longest stage$"):
        measure.bench_depth(units=12)


def test_impossible_sizes_and_expansions():
    with pytest.raises(SpecError, match="filters"):
        measure.bench_thriftynet(filters=2, iterations=5, batch_size=4, rounds=1)
    with pytest.raises(SpecError, match="kind = 'ck': needs an odd, square kernel"):
        measure.bench_smallnet(convs="ck", batch_size=4, rounds=1)


def test_entropies_beside_scikit_images():
    lines, before = [], torch.get_num_threads()
    record = entropy.bench_entropy(data="digits", rounds=2, threads=1, report=lines.append)
    assert (record.name, record.baseline, record.threads) == ("entropy", "scikit-image", 1)
    assert torch.get_num_threads() == before
    assert {name: variant.after for name, variant in record.variants.items()} == {
        "scikit-image": None,
        "batched": "scikit-image",
    }
    assert all(len(variant.images_per_second) == 2 for variant in record.variants.values())
    assert record.what == "entropies of the 1,437 training images of digits, 1x8x8"
    assert lines[-1].startswith("round 2/2, images/s: scikit-image ")


def test_wrong_entropies_are_not_timed(monkeypatch):
    monkeypatch.setattr(
        entropy, "image_entropies", lambda *args, compute=entropy.image_entropies, **how: compute(*args, **how) + 1e-9
    )
    with pytest.raises(ThriftyError, match=r"batched: an entropy differs from scikit-image's by 1\.0e-09 nats"):
        entropy.bench_entropy(data="digits", rounds=1)
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    with pytest.raises(ThriftyError, match="^bench entropy needs scikit-image: pip install scikit-image$"):
        entropy.bench_entropy(data="digits", rounds=1)
