"""UCP: counts of its networks against the paper's and the recovered lists, blocks, scores, and widths from scores."""

import pytest
import torch
from torch import nn

from thriftylib.datasets.load import load
from thriftylib.errors import SpecError
from thriftylib.papers.ucp import UcpOptions, UcpResNetOptions, UcpVggOptions, authors_flops, hidden_units
from thriftylib.papers.ucp_method import is_tied, match, measure_scores, threshold_widths, top
from thriftylib.papers.ucp_networks import Excitation
from thriftylib.spec import Data
from thriftylib.training.counting import count
from thriftylib.training.evaluation import BATCH, as_input

SHAPE = (3, 32, 32)


def scores_of(*layers):
    return {f"layer {i}": torch.tensor(layer, dtype=torch.float64) for i, layer in enumerate(layers)}


def reduction(options, baseline, classes=10):
    """Parameters and the authors' FLOPs that are left out, in percent."""
    narrow, whole = (each.cost(SHAPE, classes) for each in (options, baseline))
    flops = authors_flops(narrow) / authors_flops(whole)
    return round(100 * narrow.parameters / whole.parameters - 100, 1), round(100 * flops - 100, 1)


# ----------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("options", "classes", "parameters", "flops"),
    [
        (UcpResNetOptions(), 10, 853_018, 127.09),
        (UcpResNetOptions(blocks=18), 10, 1_727_962, 256.04),
        (UcpVggOptions(), 10, 14.99e6, 314.4),
        (UcpVggOptions(depth=19), 100, 20.35e6, 399.5),
        (UcpVggOptions(depth=19, head="linear"), 100, 20.08e6, 399.2),
    ],
)
def test_baselines_count_what_the_authors_count(options, classes, parameters, flops):
    cost = options.cost(SHAPE, classes)
    assert cost.parameters == pytest.approx(parameters, rel=4e-4)
    assert authors_flops(cost) / 1e6 == pytest.approx(flops, abs=0.05 if flops > 300 else 0.005)
    assert cost.macs < cost.ptflops_macs < authors_flops(cost)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("excited", ["no", "inner", "output"])
def test_a_resnet_costs_what_its_closed_form_says(blocks, excited):
    inner = [3, 17, 5, 40, 7, 20][: 3 * blocks]
    options = UcpResNetOptions(blocks=blocks, outer=(4, 8, 32), inner=inner, excited=excited)
    network = options.build(SHAPE, 10)
    counted, cost = count(network, SHAPE), options.cost(SHAPE, 10)
    assert (counted.parameters, counted.macs, counted.ptflops_macs) == (cost.parameters, cost.macs, cost.ptflops_macs)
    assert network(torch.randn(2, *SHAPE)).shape == (2, 10)


@pytest.mark.parametrize("head", ["hidden", "linear"])
@pytest.mark.parametrize(("depth", "layers"), [(16, 13), (19, 16)])
def test_a_vgg_costs_what_its_closed_form_says(head, depth, layers):
    options = UcpVggOptions(depth=depth, convs=range(4, 4 + 3 * layers, 3), head=head, hidden=8, excited=True)
    network = options.build(SHAPE, 10)
    counted, cost = count(network, SHAPE), options.cost(SHAPE, 10)
    assert (counted.parameters, counted.macs, counted.ptflops_macs) == (cost.parameters, cost.macs, cost.ptflops_macs)
    assert len(network.layers()) == layers
