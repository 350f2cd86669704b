"""The bench on tiny sizes: what it compares is the same, and what it gives is a record. Nothing here is timed."""

import multiprocessing
import signal

import pytest
import torch
from torch.nn import functional as F

from thriftylib.bench import interleaved as bench
from thriftylib.bench import smallnet as bench_smallnet
from thriftylib.bench import thriftynet as bench_thriftynet
from thriftylib.bench.interleaved import Way, _SideBySide
from thriftylib.bench.record import load_bench, save_bench
from thriftylib.bench.smallnet import PLAIN
from thriftylib.bench.thriftynet import AUTHORS, AuthorsFormulation, bench_train
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.papers.thriftynet import ThriftyNetOptions


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


def test_tiny_bench_gives_a_record(tmp_path):
    lines = []
    threads = torch.get_num_threads()
    record = bench_train(filters=4, iterations=5, batch_size=4, rounds=2, threads=1, report=lines.append)
    assert record.baseline == AUTHORS
    assert {"authors", "fp32"} <= set(record.variants) <= {"authors", "fp32", "bf16"}
    assert all(len(variant.images_per_second) == 2 for variant in record.variants.values())
    assert record.threads == 1
    assert torch.get_num_threads() == threads
    assert record.ratio("fp32") > 0
    assert "4 filters, 5 iterations, batch 4" in record.what
    assert lines[-1].startswith("round 2/2, images/s: authors ")
    save_bench(record, tmp_path)
    assert load_bench(tmp_path) == {"train": record}


def test_a_different_result_is_not_timed(monkeypatch):
    class Wrong(AuthorsFormulation):
        def forward(self, x):
            return 1.01 * super().forward(x)

    monkeypatch.setattr(bench_thriftynet, "AuthorsFormulation", Wrong)
    with pytest.raises(ThriftyError, match="logits differ from those of the authors' formulation by"):
        bench_train(filters=4, iterations=5, batch_size=4, rounds=1)


def test_impossible_sizes():
    with pytest.raises(SpecError, match="filters"):
        bench_train(filters=2, iterations=5, batch_size=4, rounds=1)


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "smallnet-3"), ({"kernel": 7, "convs": "ck", "linear": True}, "smallnet-7-ck-fc")],
)
def test_tiny_bench_of_smallnet(options, name, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_smallnet, "STEPS", 2)
    record = bench_smallnet.bench_smallnet(batch_size=4, rounds=2, threads=1, **options)
    assert (record.name, record.baseline, set(record.variants)) == (name, PLAIN, {PLAIN, "fp32"})
    assert all(len(variant.images_per_second) == 2 for variant in record.variants.values())
    save_bench(record, tmp_path)
    assert load_bench(tmp_path) == {name: record}


def test_trainings_side_by_side(monkeypatch):
    monkeypatch.setattr(bench_smallnet, "STEPS", 2)
    monkeypatch.setattr(bench, "_peak", lambda *_: None)  # four processes less
    record = bench_smallnet.bench_smallnet(batch_size=4, rounds=2, threads=2)
    assert list(record.variants) == [PLAIN, "fp32", f"{PLAIN}-side-by-side", "fp32-side-by-side"]
    assert record.variants["fp32-side-by-side"].what == "our engine; two trainings side by side"
    assert record.ratio("fp32-side-by-side") > 0
    assert not multiprocessing.active_children()


def test_a_training_side_by_side_that_dies_is_told():
    run = bench_smallnet.smallnet_run(3, "plain", False, 4, 100)
    with _SideBySide(run, Way("nothing", endless, at_once=2), 2) as training:
        training.processes[0].kill()  # the other one lives on
        with pytest.raises(ThriftyError, match="has died"):
            training.advance(1)
    assert [process.exitcode for process in training.processes] == [-signal.SIGKILL, 0]


def endless(run):
    while True:
        yield


def test_the_plain_side_walks_through_its_chains_with_pytorchs_own_operations():
    run = bench_smallnet.smallnet_run(3, "cl", True, 4, 100)
    network, calls = bench_smallnet.plain_network(run), []
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    network(torch.randn(4, 3, 32, 32))
    assert len(calls) == 3 * 3 + 3 + 3 + 1  # chains of convolutions, norms, chain of linear layers, classifier


def test_impossible_expansions():
    with pytest.raises(SpecError, match="kind = 'ck': needs an odd, square kernel"):
        bench_smallnet.bench_smallnet(convs="ck", batch_size=4, rounds=1)
