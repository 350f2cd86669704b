"""The closed-form cost of every network of the papers against what torch and torchinfo count, and single terms."""

import importlib
import math

import pytest
import torch
import torchinfo
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from thriftylib import cost, papers
from thriftylib.options import NetworkOptions, find

for paper in papers.names():  # which registers its networks
    importlib.import_module(f"thriftylib.papers.{paper}")
# Counted by tests of their own: one needs larger images, the other computes without modules.
ELSEWHERE = ("caffe-alexnet", "wavelet-edges")
REGISTERED = sorted(
    name
    for name, options in NetworkOptions.known.items()
    if options.__module__.startswith("thriftylib.papers.") and name not in ELSEWHERE
)
OTHER_OPTIONS = [
    ("thriftynet", {"filters": 12, "conv": "classic", "pool": [0, 7]}),
    ("thriftynet", {"filters": 12, "conv": "mb2", "iterations": 7, "head": "flatten"}),
    ("thriftynet", {"filters": 12, "conv": "mb4", "norm": "shared", "pool": None}),
    ("thriftynet", {"filters": 12, "norm_affine": False, "recursion": "plain"}),
    ("thriftynet", {"filters": 12, "shared": False, "conv": "mb2"}),
    ("thriftynet", {"n_params": 5000, "history": 2}),
    ("block-thriftynet", {"filters": [8, 12], "iterations": [3, 4], "pool": [1, [0, 3]], "head": "max", "conv": "mb4"}),
    ("embedded-thriftynet", {"n_params": 400_000, "iterations": 4}),
    ("tiny-resnet", {"width": 4, "blocks": 1}),
    ("tiny-densenet", {"growth": 3, "layers": [1, 2]}),
    ("vgg16-bn", {"pools": 3}),
    ("dacnn", {"width": 6, "order": "conv-relu-bn", "norm": "affine"}),
    ("dacnn", {"sharing": "mix", "width": [4, 5, 6, 8, 8], "shared": False}),
    ("dacnn", {"depth": 24, "width": 6, "regulators": "depth", "norm": "shared", "swap": True}),
    ("dacnn", {"depth": 18, "sharing": "mix", "width": [4, 6, 8, 8], "regulators": "per-block", "norm": "affine"}),
    ("dacnn", {"depth": 18, "sharing": "mix", "width": [4, 6, 8, 10], "regulators": "depth", "pools": 2}),
    ("dacnn-small", {"layers": 11, "width": 6, "norm": "affine"}),
    ("dacnn-small", {"layers": 3, "width": 6, "shared": False}),
]
CASES = [*((name, {}) for name in REGISTERED), *OTHER_OPTIONS]


@pytest.fixture(params=[(*case, shape) for case in CASES for shape in ((3, 32, 32), (1, 35, 38))], ids=str)
def counted(request):
    """The closed-form cost, the network and its image shape."""
    name, given, shape = request.param
    options = find(NetworkOptions, name)(**given)
    return options.cost(shape, 10), options.build(shape, 10).eval(), shape


def test_cost_equals_what_torch_and_torchinfo_count(counted):
    closed, network, shape = counted
    image = torch.randn(1, *shape)

    assert closed.parameters == sum(parameter.numel() for parameter in network.parameters())
    kernels = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    biases = sum(layer.bias.numel() for layer in kernels if isinstance(layer, nn.Conv2d) and layer.bias is not None)
    numbers = sum(parameter.numel() for layer in kernels for parameter in layer.parameters())
    assert closed.kernel_parameters == numbers - biases
    stored = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert closed.weight_bytes() == sum(4 * tensor.numel() for tensor in stored.values())

    outputs = {"norm": 0, "other": 0}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d):
            kind = "norm" if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) else "other"
            module.register_forward_hook(
                lambda _module, _inputs, output, kind=kind: outputs.update({kind: outputs[kind] + output.numel()})
            )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    assert counter.get_total_flops() == 2 * closed.macs
    assert closed.ptflops_macs == closed.macs + 2 * outputs["norm"]
    assert closed.activation_bytes() == 4 * (outputs["norm"] + outputs["other"])

    summary = torchinfo.summary(network, input_data=image, verbose=0)
    assert summary.total_params == closed.parameters
    layers = [layer for layer in summary.summary_list if layer.class_name in ("Conv2d", "Linear")]
    biases = 0  # torchinfo counts a bias as a MAC
    for layer in layers:
        if layer.module.bias is not None:
            biases += math.prod(layer.output_size)
    assert sum(layer.macs for layer in layers) - biases == closed.macs


def test_terms_of_single_layers():
    conv = cost.conv("conv", 6, 4, 3, [(5, 7), (2, 3)], groups=2, bias=True)
    assert (conv.parameters, conv.macs, conv.activations) == (4 * 3 * 9 + 4, 4 * 3 * 9 * 41, 4 * 41)
    own = cost.batch_norm("norms", 4, [(5, 7), (2, 3)])
    assert (own.parameters, own.buffers, own.macs, own.norm_macs) == (16, 16, 0, 2 * 4 * 41)
    one = cost.batch_norm("norms", 4, [(5, 7), (2, 3)], shared=True, affine=False)
    assert (one.parameters, one.buffers, one.norm_macs) == (0, 8, 2 * 4 * 41)
    assert cost.linear("head", 3, 5).parameters == cost.linear("head", 3, 5, bias=False).parameters + 5 == 20
    assert cost.Cost((conv, own, cost.free("alpha", 7))).parameters == 112 + 16 + 7


def test_sharing_a_convolution_changes_the_parameters_and_not_the_macs():
    options = find(NetworkOptions, "thriftynet")
    shared = options(filters=16, history=1).cost((3, 32, 32), 10)
    control = options(filters=16, shared=False).cost((3, 32, 32), 10)
    assert shared.macs == control.macs
    assert control.parameters - shared.parameters == 19 * (9 * 16 + 16 * 16)
