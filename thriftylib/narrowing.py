"""Narrower layers: channels and neurons removed from a network in place, and from what its optimiser keeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thriftylib.errors import SpecError

Shape = tuple[int, ...]


def narrow(
    optimizer: Optimizer | None,
    module: nn.Module,
    axis: Literal["outputs", "inputs"],
    keep: Sequence[int] | Tensor,
    *,
    readers: Iterable[nn.Module] = (),
) -> None:
    """Keep some outputs (or inputs) of a layer, the same inputs of what reads it, and the optimiser's state of both.

    What computes on the kept ones computes what it did: the outputs of the kept part are unchanged where the removed
    outputs were zero, or nobody reads them.

    Args:
        optimizer: whose parameters and state (momentum, ...) follow; None where nothing is trained any more.
        module: a convolution, linear layer or batch norm (whose outputs are its inputs).
        keep: indices along that axis, or a mask of it; their order is kept.
        readers: what reads the outputs: batch norms, depthwise convolutions and, last, convolutions or linear layers.
            A linear layer behind a flattened map has several inputs a channel, and keeps or loses them together.

    Raises:
        SpecError: nothing is kept, an index is not there, or the layer cannot be narrowed so.
    """
    width = _width(module, axis)
    index = _indices(module, axis, keep, width)
    layers = [(module, axis), *((reader, "inputs") for reader in readers)]
    if len(layers) > 1 and axis != "outputs":
        raise SpecError("readers: go with axis = 'outputs', which they read")
    indices = [_own_index(layer, side, index, width) for layer, side in layers]  # all are checked before one changes
    for (layer, side), own in zip(layers, indices, strict=True):
        _narrow(optimizer, layer, side, own)


def fit(network: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Give parameters and buffers of ``network`` (by their names in ``state_dict``) other shapes; values are undefined.

    So a network that was narrowed is built again: its weights are loaded afterwards.

    Raises:
        SpecError: there is no such tensor.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    known = network.state_dict()
    for name, shape in shapes.items():
        if name not in known:
            raise SpecError(f"shapes: the network has no tensor {name!r}")
        owner, _, attribute = name.rpartition(".")
        module, old = modules[owner], known[name]
        if len(shape) != old.dim():
            raise SpecError(f"shapes: {name} = {list(shape)}: must have {old.dim()} sizes, as {list(old.shape)} has")
        if tuple(old.shape) != tuple(shape):
            empty = torch.zeros(tuple(shape), dtype=old.dtype, device=old.device)
            _replace(None, module, attribute, empty)
            _describe(module)


def different_shapes(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Shape] | None:
    """The shapes of ``tensors`` that are not those of ``network``, by name; None: their names are not the network's."""
    own = network.state_dict()
    if own.keys() != tensors.keys():
        return None
    return {name: tuple(x.shape) for name, x in tensors.items() if x.shape != own[name].shape}


def _width(module: nn.Module, axis: str) -> int:
    if axis not in ("outputs", "inputs"):
        raise SpecError(f"axis = {axis!r}: must be 'outputs' or 'inputs'")
    if isinstance(module, nn.Conv2d):
        return module.out_channels if axis == "outputs" else module.in_channels
    if isinstance(module, nn.Linear):
        return module.out_features if axis == "outputs" else module.in_features
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        return module.num_features
    raise SpecError(f"{type(module).__name__}: only Conv2d, Linear and batch norms can be narrowed")


def _indices(module: nn.Module, axis: str, keep: Sequence[int] | Tensor, width: int) -> Tensor:
    try:
        index = torch.as_tensor(keep)
    except (TypeError, ValueError, RuntimeError):
        raise SpecError(f"keep = {keep!r}: must be indices or a mask") from None
    if index.dim() != 1 or index.is_floating_point() or index.is_complex():
        if index.numel():
            raise SpecError(f"keep = {index.tolist()}: must be indices or a mask, in one dimension")
        index = index.flatten().long()
    if index.dtype == torch.bool:
        if index.shape != (width,):
            raise SpecError(f"keep: a mask of {tuple(index.shape)} does not fit the {width} {axis} of {module}")
        index = index.nonzero().flatten()
    index = index.to("cpu", torch.int64)
    if not len(index):
        raise SpecError(f"keep: would remove all {width} {axis} of {module}; at least one must stay")
    if index.min() < 0 or index.max() >= width or len(index.unique()) < len(index):
        raise SpecError(
            f"keep = {index.tolist()}: must be different numbers from 0 to {width - 1}, the {axis} of {module}"
        )
    return index


def _own_index(module: nn.Module, axis: str, index: Tensor, width: int) -> Tensor:
    """``index`` among ``width`` outputs as the layer's own, which may be several inputs of a linear layer for each."""
    own = _width(module, axis)
    each, rest = divmod(own, width)
    if rest or (each > 1 and not isinstance(module, nn.Linear)):
        raise SpecError(f"{module} has {own} {axis}: they do not read {width} outputs")
    if isinstance(module, nn.Conv2d) and module.groups > 1 and not _is_depthwise(module):
        raise SpecError(f"{module}: of grouped convolutions only depthwise ones can be narrowed")
    return (index[:, None] * each + torch.arange(each)).flatten()


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1


def _narrow(optimizer: Optimizer | None, module: nn.Module, axis: str, index: Tensor) -> None:
    along_inputs = axis == "inputs" and isinstance(module, nn.Conv2d | nn.Linear) and not _is_depthwise(module)
    for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if tensor.dim() and (name == "weight" or not along_inputs):
            _select(optimizer, module, name, int(along_inputs), index)
    _describe(module)


def _select(optimizer: Optimizer | None, module: nn.Module, name: str, dim: int, index: Tensor) -> None:
    old = getattr(module, name)

    def kept(tensor: Tensor) -> Tensor:
        part = tensor.detach().index_select(dim, index.to(tensor.device))
        # In the very strides that a resumed training has: with others come other instructions, and other last bits.
        return torch.empty_like(part, memory_format=_memory_format(tensor)).copy_(part)

    new = _replace(optimizer, module, name, kept(old))
    if optimizer is not None and old in optimizer.state:
        state = optimizer.state.pop(old)
        optimizer.state[new] = {
            key: kept(value) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }


def _memory_format(tensor: Tensor) -> torch.memory_format:
    if tensor.dim() == 4:
        last = torch.empty(tensor.shape, device="meta", memory_format=torch.channels_last)
        if tensor.stride() == last.stride():
            return torch.channels_last
    return torch.contiguous_format


def _replace(optimizer: Optimizer | None, module: nn.Module, name: str, value: Tensor) -> Tensor:
    """Put ``value`` in the place of a parameter or buffer; the optimiser's groups follow, in the same order."""
    old = getattr(module, name)
    if not isinstance(old, nn.Parameter):
        setattr(module, name, value)
        return value
    new = nn.Parameter(value, requires_grad=old.requires_grad)
    setattr(module, name, new)
    for group in optimizer.param_groups if optimizer is not None else ():
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    return new


def _describe(module: nn.Module) -> None:
    """Let a layer's own numbers say what its weights are."""
    if isinstance(module, nn.Conv2d):
        if module.groups > 1 and module.weight.shape[1] == 1:
            module.groups = module.weight.shape[0]
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        known = next((x for x in (module.weight, module.running_mean) if x is not None), None)
        if known is not None:  # else nothing of it says a width
            module.num_features = known.shape[0]
