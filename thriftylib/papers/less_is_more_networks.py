"""Caffe's networks as chains of named modules, with Caffe's first weights."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from thriftylib.cost import Size
from thriftylib.papers.less_is_more import Layer


def chain(placed: Iterable[tuple[Layer, int, Size]]) -> nn.Sequential:
    """A sequence of layers, each with the channels or features that it reads: (N, C, H, W) to (N, classes).

    Pools round up. An average at the border is over the pixels that are there, in PyTorch as in Caffe.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for layer, inputs, _ in placed:
        if layer.kind == "linear" and "flatten" not in modules:
            modules["flatten"] = nn.Flatten()
        modules[layer.name] = _module(layer, inputs)
    return nn.Sequential(modules)


def _module(layer: Layer, inputs: int) -> nn.Module:
    match layer.kind:
        case "conv":
            shape = (inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)
            return _initialised(nn.Conv2d(*shape, groups=layer.groups), layer)
        case "linear":
            return _initialised(nn.Linear(inputs, layer.outputs), layer)
        case "max":
            return nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=True)
        case "average":
            return nn.AvgPool2d(layer.kernel, layer.stride, ceil_mode=True)
        case "lrn":
            return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        case "dropout":
            return nn.Dropout(0.5)
    return nn.ReLU()


def _initialised(module: nn.Conv2d | nn.Linear, layer: Layer) -> nn.Module:
    if layer.std is None:
        bound = math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
    else:
        nn.init.normal_(module.weight, std=layer.std)
    nn.init.constant_(module.bias, layer.bias)
    return module
