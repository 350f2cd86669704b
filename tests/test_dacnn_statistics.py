"""Batch-norm statistics of a trained network: each way against its definition, and nothing of the network changed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thriftylib.datasets.facts import dataset_info
from thriftylib.datasets.load import Dataset, Split
from thriftylib.papers.dacnn import DacnnSmallOptions
from thriftylib.papers.networks import NormStatisticsOptions
from thriftylib.papers.networks_statistics import (
    UseStatistics,
    of_the_batch,
    replaced_norms,
)
from thriftylib.training.evaluation import as_input

SHAPE = (3, 16, 16)


def small(norm, layers=5):
    """A network whose affine maps are no identities."""
    torch.manual_seed(0)
    network = DacnnSmallOptions(layers=layers, width=8, norm=norm).build(SHAPE, 10).eval()
    for module in network.norms:
        if module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


def images(count, seed=1):
    return torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def forward(network, x, normalise):
    """The network written out: ``normalise(use, maps)`` gives the maps normalised before the affine map."""
    for use, layer in enumerate(network.layers):
        norm = network.norms[layer.kernel if network.norm == "shared" else use]
        weight, bias = network.affine[layer.kernel] if network.norm == "affine" else (norm.weight, norm.bias)
        x = normalise(use, network.convs[layer.kernel](x))
        x = (x * weight.view(-1, 1, 1) + bias.view(-1, 1, 1)).relu()
        x = F.max_pool2d(x, 2) if layer.pool else x
    return network.head(x)


def by_the_batch(use, maps):
    mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt()


@pytest.mark.parametrize("norm", ["shared", "free", "affine"])
def test_batch_statistics_are_those_of_each_use_in_the_batch(norm):
    network, x = small(norm), torch.randn(32, *SHAPE)
    with replaced_norms(network, of_the_batch), torch.no_grad():
        found = network(x)
    torch.testing.assert_close(found, forward(network, x, by_the_batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["shared", "free", "affine"])
def test_own_statistics_are_means_over_batches_at_each_use(norm):
    network, batches, x = small(norm), [torch.randn(n, *SHAPE) for n in (32, 8)], torch.randn(16, *SHAPE)
    seen = []

    def note(use, maps):
        seen.append((use, len(maps), maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=True)))
        return by_the_batch(use, maps)

    own = UseStatistics()
    with torch.no_grad():
        for batch in batches:
            forward(network, batch, note)
            with replaced_norms(network, own.collect):
                network(batch)
        with replaced_norms(network, own.apply):
            found = network(x)

    def by_use(use, maps):
        mean, variance = (sum(each[1] * each[k] for each in seen if each[0] == use) / 40 for k in (2, 3))
        return (maps - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt()

    assert len(own.sums) == len(network.layers)
    torch.testing.assert_close(found, forward(network, x, by_use), rtol=1e-4, atol=1e-4)


@pytest.fixture
def dataset():
    labels = torch.arange(1200) % 10
    return Dataset(dataset_info("cifar10"), Split(images(1200), labels), Split(images(600, 2), labels[:600]), None)


@pytest.mark.parametrize("norm", ["shared", "free"])
def test_measured_accuracies_and_an_untouched_network(norm, dataset):
    network = small(norm)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measured = NormStatisticsOptions().start().measure(network, dataset)
    assert list(measured) == [f"{kind}_statistics_accuracy" for kind in ("running", "batch", "own")]
    test = as_input(dataset.test.images, dataset, "fp32")
    with torch.no_grad():
        running = (network(test).argmax(1) == dataset.test.labels).double().mean()
        batches = [forward(network, batch, by_the_batch).argmax(1) for batch in test.split(500)]
    assert measured["running_statistics_accuracy"] == pytest.approx(100 * float(running))
    of_batches = (torch.cat(batches) == dataset.test.labels).double().mean()
    assert measured["batch_statistics_accuracy"] == pytest.approx(100 * float(of_batches), abs=0.5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_no_label_enters(dataset):
    network, method = small("shared"), NormStatisticsOptions().start()
    other = Dataset(dataset.info, Split(dataset.train.images, dataset.train.labels.flip(0)), dataset.test, None)
    assert method.measure(network, dataset) == method.measure(network, other)


def test_one_running_mean_cannot_serve_maps_of_several_depths(dataset):
    """The case that the method is for: right weights, wrong statistics. Only the running ones give other answers."""
    free = small("free")
    shared = DacnnSmallOptions(layers=5, width=8, norm="shared").build(SHAPE, 10).eval()
    shared.convs.load_state_dict(free.convs.state_dict())
    shared.head.load_state_dict(free.head.state_dict())
    for module in [*free.norms, *shared.norms]:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    x = as_input(dataset.test.images, dataset, "fp32")
    with torch.no_grad():
        for network in (free, shared):
            network.train()(x)
            network.eval()
        with replaced_norms(free, of_the_batch):
            expected = free(x)
        with replaced_norms(shared, of_the_batch):
            torch.testing.assert_close(shared(x), expected, rtol=1e-4, atol=1e-4)
        assert (shared(x) - free(x)).abs().max() > 0.05
