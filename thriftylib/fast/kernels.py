"""Fast paths on a CPU, swapped in wherever a network holds something that one serves: the plain modules' numbers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from thriftylib.fast.compiled import compiler_version, missing
from thriftylib.fast.fused_blocks import FastStage, can_serve, is_stage
from thriftylib.fast.recursion import FastRecursion
from thriftylib.fast.tiles import activation
from thriftylib.papers.thriftynet_recursion import ThriftyNet


def accelerate(network: nn.Module, precision: Literal["fp32", "bf16"] = "fp32") -> nn.Module:
    """Swap in fast paths wherever ``network`` has a ThriftyNet or a stage that they serve; returns ``network`` itself.

    Parameters, buffers and ``state_dict`` stay as they are. What they do not serve keeps its plain forward: other
    networks, GPUs, activations whose gradient needs their input, batches of one image, training mode without gradients,
    stages where no C compiler works. The graph of a ThriftyNet can be walked backward once. Hooks on the parts of what
    is served are not called.

    Args:
        precision: of a ThriftyNet's stored maps and of its convolutions' operands. Weights, statistics, sums over
            pixels and the parameters' gradients are fp32 (float64 in a float64 network).
    """
    for module in network.modules():
        parameter = next(module.parameters(), None)
        if parameter is None or parameter.device.type != "cpu":
            continue
        if isinstance(module, ThriftyNet) and (chosen := activation(module.activation)) is not None:
            module.forward = FastRecursion(module, chosen, torch.bfloat16 if precision == "bf16" else parameter.dtype)
        elif is_stage(module) and precision == "fp32" and can_serve(parameter.dtype):
            module.forward = FastStage(module)
    return network


def restore(network: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`: each part computes by itself again, so that hooks see it; returns ``network``."""
    for module in network.modules():
        if isinstance(module.forward, FastRecursion | FastStage):
            del module.forward
    return network


def hint(network: nn.Module) -> str | None:
    """What is missing here for a network on a CPU to be trained fast; None: nothing."""
    for module in network.modules():
        if is_stage(module) and (reason := missing("stage", module[1].weight.dtype)):
            return f"{reason}: stages run on PyTorch's operators, which is slower"
    return None


def describe(network: nn.Module) -> str | None:
    """The fast paths that serve ``network``, with the compiler of those in C; None: PyTorch's operators alone."""
    served = {type(module.forward) for module in network.modules()}
    names = []
    if FastRecursion in served:
        names.append("tiled recursion")
    if FastStage in served:
        names.append(f"fused conv-BN-ReLU-pool ({compiler_version()})")
    return ", ".join(names) or None


def is_accelerated(network: nn.Module) -> bool:
    """Whether fast paths of :func:`accelerate` serve every convolution of ``network``."""
    fast = [module for module in network.modules() if isinstance(module.forward, FastRecursion | FastStage)]
    served = {inner for module in fast for inner in module.modules()}
    return bool(served) and all(module in served for module in network.modules() if isinstance(module, nn.Conv2d))
