"""The chapters' twenty lines of plain PyTorch compute what the library does, to the last bit."""

import runpy
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thriftylib.datasets.load import load
from thriftylib.merging import contract_chain
from thriftylib.options import NetworkOptions, find
from thriftylib.papers import ebcle, less_is_more_method
from thriftylib.papers.ebcle_entropy import image_entropies
from thriftylib.papers.less_is_more import LessIsMoreOptions
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.papers.ucp import ScoringOptions, UcpOptions
from thriftylib.papers.ucp_method import Excitation, Scoring, threshold_widths
from thriftylib.papers.wavelet_edges import WaveletEdgesOptions
from thriftylib.papers.wavelet_edges_layer import Edges
from thriftylib.spec import Data
from thriftylib.training.evaluation import as_input

CHAPTERS = Path(__file__).parents[1] / "book"
PLAIN = sorted((CHAPTERS / "plain").glob("*.py"))


def plain(paper):
    return SimpleNamespace(**runpy.run_path(str(CHAPTERS / "plain" / f"{paper}.py")))


def images(count=6, size=32, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def assert_same_network(one, other, x):
    """With the weights of ``one`` in their order: logits, gradients and running statistics."""
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        mine.data = theirs.data = mine.data + 0.01 * torch.randn(mine.shape)  # batch norms and alpha too
    logits = [network.train()(x) for network in (one, other)]
    assert torch.equal(*logits)
    for each in logits:
        each.square().sum().backward()
    gradients = [[parameter.grad for parameter in network.parameters()] for network in (one, other)]
    assert all(map(torch.equal, *gradients))
    assert all(map(torch.equal, one.buffers(), other.buffers()))


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)
def test_each_is_shown_in_its_chapter_and_short(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
    assert f"```{{literalinclude}} plain/{path.name}" in (CHAPTERS / f"{path.stem}.md").read_text()


@pytest.mark.parametrize(("f", "iterations", "history"), [(16, 5, 5), (12, 10, 3), (64, 20, 5)])
def test_thriftynet(f, iterations, history):
    torch.manual_seed(0)
    options = ThriftyNetOptions(filters=f, iterations=iterations, history=history)
    network = plain("thriftynet").PlainThriftyNet(f, iterations, history)
    assert_same_network(network, options.build((3, 32, 32), 10), images(3))


def test_dacnn():
    torch.manual_seed(0)
    options = find(NetworkOptions, "dacnn")(depth=18, width=24)
    assert_same_network(plain("dacnn").PlainDacnn18(24), options.build((3, 32, 32), 100), images(3))


@pytest.mark.parametrize(("m", "n", "k", "padding"), [(3, 8, 3, 0), (8, 16, 7, 3), (5, 4, 1, 2)])
def test_expandnets(m, n, k, padding):
    torch.manual_seed(0)
    code = plain("expandnets")
    chain = code.expand(m, n, k, padding=padding)
    found, expected = code.merge(chain), contract_chain(chain)
    torch.testing.assert_close(found.weight, expected.weight, rtol=0, atol=torch.finfo(torch.float32).eps)
    x = torch.randn(2, m, 12, 12)
    torch.testing.assert_close(found(x), chain(x))
    ours = found.weight == expected.weight  # merged in fp64 in another order, and rounded once
    assert ours.float().mean() > 0.999
    assert torch.equal(found.bias, expected.bias)


def test_less_is_more(monkeypatch):
    for operator in ("group_sparsity", "low_rank"):  # their C code adds in another order
        monkeypatch.setattr(less_is_more_method, f"_{operator}_in_c", lambda *_: False)
    torch.manual_seed(0)
    one = find(NetworkOptions, "caffe-lenet")(widths=(4, 6), hidden=20).build((1, 28, 28), 10)
    other = deepcopy(one)
    batches = [(torch.randn(8, 1, 28, 28), torch.randint(10, (8,))) for _ in range(12)]
    names, rate, tau = ("conv1", "conv2", "ip1"), 0.02, 4.0
    plain("less_is_more").train(one, batches, [one.get_submodule(name) for name in names], rate, tau)
    method = LessIsMoreOptions(group_sparsity=tau).start()
    method.prepare(other, None)
    optimizer = torch.optim.SGD(other.parameters(), rate, momentum=0.9)
    for x, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(other(x), labels).backward()
        optimizer.step()
        method.after_step(other, optimizer, rate)
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    dead = [(layer.weight.flatten(1) == 0).all(1) for layer in (one.conv1, one.conv2, one.ip1)]
    assert 0 < sum(int(each.sum()) for each in dead) < 30


def test_ucp():
    torch.manual_seed(0)
    code, data = plain("ucp"), load(Data(name="digits"), seed=0)
    options = find(NetworkOptions, "ucp-vgg")(depth=16, convs=(16, 32) + 11 * (16,), pools=2, excited=True)
    shape = tuple(data.train.images.shape[1:])
    network = options.build(shape, 10)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_()
    other = deepcopy(network)
    for name, module in list(other.named_modules()):
        if isinstance(module, Excitation):
            block = code.Excitation(module.squeeze.in_features)
            assert len(list(block.parameters())) == len(list(module.parameters()))
            for mine, theirs in zip(block.parameters(), module.parameters(), strict=True):
                mine.data = theirs.data
            other.set_submodule(name, block)
    x = torch.randn(7, *shape)
    assert torch.equal(network.eval()(x), other.eval()(x))
    measured = Scoring(ScoringOptions(split="test")).measure(network, data)
    scores = {name: torch.tensor(each, dtype=torch.float64) for name, each in measured.items() if "scores" in name}
    batches = [as_input(part, data, "fp32") for part in data.test.images.split(100)]
    for multiplier in (0.9, 1.0, 1.05):
        expected = threshold_widths(UcpOptions(multiplier=multiplier), scores)
        assert code.widths(other, batches, multiplier) == expected
    assert len(set(expected)) > 2


def test_ebcle():
    code = plain("ebcle")
    raw = torch.randint(0, 200, (9, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    raw[0] = 7
    torch.testing.assert_close(
        torch.stack([code.entropy(image) for image in raw]), image_entropies(raw), rtol=1e-14, atol=0
    )
    assert code.bound(raw) == ebcle.bound(float(image_entropies(raw).mean()))


def test_wavelet_edges():
    code, x = plain("wavelet_edges"), images(4)
    for function, feature in ((code.details, "details"), (code.maxima, "maxima")):
        found, expected = function(x), Edges(WaveletEdgesOptions(feature=feature), (3, 32, 32)).edges(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # ours is a product with matrices
        assert torch.equal(found == 0, expected == 0)
