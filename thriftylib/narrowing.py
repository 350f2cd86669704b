"""Narrower layers: channels and neurons removed from a network in place, and from what its optimiser keeps of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    if axis not in ("outputs", "inputs"):
        raise SpecError(f"axis = {axis!r}: must be 'outputs' or 'inputs'")
    width = getattr(module, _sizes(module)[axis])
    index = _indices(module, axis, keep, width)
    layers = [(module, axis), *((reader, "inputs") for reader in readers)]
    if len(layers) > 1 and axis != "outputs":
        raise SpecError("readers: go with axis = 'outputs', which they read")
    indices = [_own_index(layer, side, index, width) for layer, side in layers]  # all are checked before one changes
    for (layer, side), own in zip(layers, indices, strict=True):
        _narrow(optimizer, layer, side, own)


def fit(network: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Give tensors of ``network`` (by their names in ``state_dict``) other shapes, for weights that are loaded next.

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


def match_cost(shares: Tensor, channels: Tensor, cost: Callable[[list[int]], int], target: int) -> list[int]:
    """Widths in the proportion of ``shares`` of ``channels``, (layers,) each, at a ``cost`` as near to ``target``.

    No single channel more or less would bring it nearer.
    """

    def scaled(factor: float) -> list[int]:
        return (factor * shares * channels).round().clamp(min=1).minimum(channels).int().tolist()

    low, high = 0.0, float(1 / shares.min())
    for _ in range(50):  # as near as rounding all layers together comes
        middle = (low + high) / 2
        low, high = (middle, high) if cost(scaled(middle)) <= target else (low, middle)
    widths = scaled(low)
    while True:
        near = [[w + step * (i == j) for j, w in enumerate(widths)] for i in range(len(widths)) for step in (1, -1)]
        possible = [each for each in near if all(1 <= w <= c for w, c in zip(each, channels.tolist(), strict=True))]
        nearest = min(possible, key=lambda each: abs(cost(each) - target), default=widths)
        if abs(cost(nearest) - target) >= abs(cost(widths) - target):
            return widths
        widths = nearest


def different_shapes(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Shape] | None:
    """The shapes of ``tensors`` that are not those of ``network``, by name; None: their names are not the network's."""
    own = network.state_dict()
    if own.keys() != tensors.keys():
        return None
    return {name: tuple(x.shape) for name, x in tensors.items() if x.shape != own[name].shape}


def _sizes(module: nn.Module) -> dict[str, str]:
    """The attributes of a layer that say its outputs and inputs."""
    if isinstance(module, nn.Conv2d):
        return {"outputs": "out_channels", "inputs": "in_channels"}
    if isinstance(module, nn.Linear):
        return {"outputs": "out_features", "inputs": "in_features"}
    if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        return {"outputs": "num_features", "inputs": "num_features"}
    raise SpecError(f"{type(module).__name__}: only Conv2d, Linear and batch norms can be narrowed")


def _indices(module: nn.Module, axis: str, keep: Sequence[int] | Tensor, width: int) -> Tensor:
    try:
        index = torch.as_tensor(keep)
    except (TypeError, ValueError, RuntimeError):
        raise SpecError(f"keep = {keep!r}: must be indices or a mask") from None
    if not index.numel():
        raise SpecError(f"keep: would remove all {width} {axis} of {module}; at least one must stay")
    if index.dim() != 1 or index.is_floating_point() or index.is_complex():
        raise SpecError(f"keep = {index.tolist()}: must be indices or a mask, in one dimension")
    if index.dtype == torch.bool:
        if len(index) != width:
            raise SpecError(f"keep: a mask of {tuple(index.shape)} does not fit the {width} {axis} of {module}")
        return _indices(module, axis, index.nonzero().flatten(), width)
    index = index.to("cpu", torch.int64)
    if index.min() < 0 or index.max() >= width or len(index.unique()) < len(index):
        raise SpecError(
            f"keep = {index.tolist()}: must be different numbers from 0 to {width - 1}, the {axis} of {module}"
        )
    return index


def _own_index(module: nn.Module, axis: str, index: Tensor, width: int) -> Tensor:
    """``index`` among ``width`` outputs as the layer's own, which may be several inputs of a linear layer for each."""
    own = getattr(module, _sizes(module)[axis])
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

    def kept(tensor: Tensor) -> Tensor:
        part = tensor.detach().index_select(int(along_inputs), index.to(tensor.device))
        # In the very strides that a resumed training has: with others come other instructions, and other last bits.
        last = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
        same = tensor.stride() == torch.empty_like(tensor, device="meta", memory_format=last).stride()
        order = last if same else torch.contiguous_format
        return torch.empty_like(part, memory_format=order).copy_(part)

    for name, old in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        if old.dim() and (name == "weight" or not along_inputs):
            new = _replace(optimizer, module, name, kept(old))
            if optimizer is not None and old in optimizer.state:
                state = optimizer.state.pop(old)
                optimizer.state[new] = {
                    key: kept(value) if isinstance(value, Tensor) and value.shape == old.shape else value
                    for key, value in state.items()
                }
    _describe(module)


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
