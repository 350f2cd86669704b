"""ExpandNets' way to train: a network's layers become chains before training and single layers again after it.

The operation itself is in :mod:`thriftylib.papers.expandnets_chains`, the paper's networks for CIFAR are in
:mod:`thriftylib.papers.expandnets_smallnet`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from thriftylib.errors import SpecError
from thriftylib.method import Method
from thriftylib.options import MethodOptions
from thriftylib.papers.expandnets_chains import Expanded, ExpandedConv2d, Kind, expand_conv, expand_linear, fold
from thriftylib.spec import Positive

if TYPE_CHECKING:
    from thriftylib.method import Sample


QUANTILES = {
    "cosine_min": 0.0,
    "cosine_5": 0.05,
    "cosine_25": 0.25,
    "cosine_50": 0.5,
    "cosine_75": 0.75,
    "cosine_95": 0.95,
    "cosine_max": 1.0,
}
"""The record's series of gradient confusion: quantiles over the pairs of mini-batches."""


class ExpandNetsOptions(MethodOptions, method="expandnets"):
    """Train a network's layers as chains and contract them at the end; the defaults change nothing.

    ``convs`` and ``linear`` say which layers are expanded, ``only`` within which modules; see :func:`expand`.
    """

    convs: Literal["plain", "cl", "ck"] = "plain"
    linear: bool = False  # the linear layers, except the classifier
    rate: Positive = 4.0
    image: bool = (
        False  # True: the chain that reads the image is as wide as the others; authors: in ImageNet's code only
    )
    only: Annotated[tuple[str, ...], Field(strict=False)] = ()
    reset_momentum: bool = False  # at each epoch; True: the authors' CIFAR code, which makes a new optimiser each epoch
    confusion: Annotated[int, Field(ge=0)] = 0  # pairs of mini-batches whose gradients are compared after each epoch

    def start(self) -> ExpandNets:
        """The hooks of one training."""
        return ExpandNets(self)


class ExpandNets(Method):
    """Chains while training, one layer each in the end; perhaps without momentum at the start of each epoch."""

    def __init__(self, options: ExpandNetsOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module) -> nn.Module:
        convs = None if self.options.convs == "plain" else self.options.convs
        if convs is None and not self.options.linear:
            return network
        return expand(network, convs=convs, **self.options.model_dump(include={"linear", "rate", "image", "only"}))

    def epoch_starts(self, network: nn.Module, optimizer: Optimizer, epoch: int) -> None:
        if self.options.reset_momentum:
            for state in optimizer.state.values():
                state["momentum_buffer"].zero_()

    def epoch_ends(self, network: nn.Module, optimizer: Optimizer, epoch: int, sample: Sample) -> Mapping[str, float]:
        """Gradient confusion: how the cosines between the gradients of two mini-batches each are distributed.

        The gradients are those of the parameters being trained, at the weights that the epoch ends with (READINGs).
        """
        if not self.options.confusion:
            return {}
        cosines = torch.stack(
            [
                F.cosine_similarity(*(_gradient(network, sample(number)) for number in (2 * i, 2 * i + 1)), dim=0)
                for i in range(self.options.confusion)
            ]
        )
        shares = torch.tensor(list(QUANTILES.values()), device=cosines.device)
        return dict(zip(QUANTILES, cosines.quantile(shares).tolist(), strict=True))

    def finish(self, network: nn.Module) -> nn.Module:
        return contract(network)


def _gradient(network: nn.Module, loss: Tensor) -> Tensor:
    """Of all parameters, as one row."""
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(network.parameters()))])


def expand(
    network: nn.Module,
    *,
    convs: Kind | None = None,
    linear: bool = False,
    rate: float = 4.0,
    image: bool = True,
    only: Sequence[str] = (),
) -> nn.Module:
    """Replace the convolutions and linear layers of ``network`` by chains, in place; returns ``network``.

    Args:
        convs: "cl" or "ck": how all convolutions are expanded; None: they are not.
        linear: whether the linear layers are, all but the last, the classifier, which never is.
        image: whether the first chain layer of the first convolution, which reads the image, is widened too.
        only: names of the modules (``features.0``) within which layers are expanded; empty: everywhere.

    Raises:
        SpecError: a layer cannot be expanded so, or there is none to expand.
    """
    named = list(network.named_modules())
    if unknown := [name for name in only if name not in dict(named)]:
        known = ", ".join(name for name, _ in network.named_children())
        raise SpecError(f"only = {unknown[0]!r}: the network has no such module; its parts: {known}")
    first = next((module for _, module in named if isinstance(module, nn.Conv2d)), None)
    classifier = next((module for _, module in reversed(named) if isinstance(module, nn.Linear)), None)
    expanded: dict[nn.Module, nn.Module] = {}
    for name, module in named:
        if only and not any(name == part or name.startswith(f"{part}.") for part in only):
            continue
        if isinstance(module, nn.Conv2d) and convs:
            expanded[module] = expand_conv(module, convs, rate, widens_input=image or module is not first)
        elif isinstance(module, nn.Linear) and linear and module is not classifier:
            expanded[module] = expand_linear(module, rate)
    if (convs or linear) and not expanded:
        raise SpecError(f"convs = {convs!r}, linear = {linear}: there is no such layer to expand")
    _replace(network, expanded)
    network.register_forward_pre_hook(_begin_pass)
    network.register_forward_hook(_end_pass, always_call=True)
    return network


def contract(module: nn.Module) -> nn.Module:
    """``module`` with every chain multiplied into one layer, in float64 and then in the chain's precision.

    Args:
        module: an expanded network, changed in place; an expanded layer; or a plain ``nn.Sequential`` of convolutions
            or of linear layers, itself a chain.

    Raises:
        SpecError: a ``nn.Sequential`` is no chain that one layer could replace.
    """
    if isinstance(module, Expanded):
        return _one_layer(module.chain)
    found = {part: _one_layer(part.chain) for part in module.modules() if isinstance(part, Expanded)}
    if not found and isinstance(module, nn.Sequential):
        return _one_layer(module)
    _replace(module, found)
    return module


def _one_layer(chain: nn.Sequential) -> nn.Conv2d | nn.Linear:
    _check_chain(chain)
    first = chain[0]
    with torch.no_grad():
        weight, bias = fold(deepcopy(chain).double())
    if isinstance(first, nn.Linear):
        one: nn.Conv2d | nn.Linear = nn.Linear(first.in_features, chain[-1].out_features, bias=bias is not None)
    else:
        like = ExpandedConv2d(chain)
        one = nn.Conv2d(
            like.in_channels,
            like.out_channels,
            like.kernel_size,
            stride=like.stride,
            padding=like.padding,
            groups=like.groups,
            bias=bias is not None,
        )
    one.weight = nn.Parameter(weight.to(first.weight.dtype))
    if bias is not None:
        one.bias = nn.Parameter(bias.to(first.weight.dtype))
    return one


def _check_chain(chain: nn.Sequential) -> None:
    if not len(chain):
        raise SpecError("an empty nn.Sequential is no chain of layers")
    kind = type(chain[0])
    for i, layer in enumerate(chain):
        if type(layer) is not kind or kind not in (nn.Conv2d, nn.Linear):
            raise SpecError(
                f"layer {i} of the chain is {type(layer).__name__}: a chain that one layer can replace has nothing but "
                "Conv2d layers or nothing but Linear layers, no activation or normalisation between them"
            )
        if (layer.bias is None) != (chain[0].bias is None):
            raise SpecError(f"layer {i} of the chain: all layers must have a bias, or none")
        if kind is nn.Linear:
            continue
        if layer.dilation != (1, 1) or layer.padding_mode != "zeros" or layer.groups != chain[0].groups:
            raise SpecError(
                f"layer {i} of the chain, {layer}: needs dilation 1, zero padding and the first one's groups"
            )
        if i and layer.padding != (0, 0):
            raise SpecError(
                f"layer {i} of the chain pads its own input by {layer.padding}: all padding must be on the first "
                "layer, else the chain differs from its product at the border"
            )
        if any(after.kernel_size != (1, 1) for after in chain[i + 1 :]) and layer.stride != (1, 1):
            raise SpecError(
                f"layer {i} of the chain has stride {layer.stride}: after a stride only 1x1 layers may follow"
            )


def _replace(network: nn.Module, found: Mapping[nn.Module, nn.Module]) -> None:
    """A module that stands at many places is replaced at each by the same one."""
    for parent in list(network.modules()):
        for name, child in parent._modules.items():  # named_children leaves out a module's second name
            if child in found:
                parent._modules[name] = found[child]


def _begin_pass(network: nn.Module, inputs: object) -> None:
    _set_keeps(network, True)


def _end_pass(network: nn.Module, inputs: object, output: object) -> None:
    _set_keeps(network, False)


def _set_keeps(network: nn.Module, keeps: bool) -> None:
    for module in network.modules():
        if isinstance(module, Expanded):
            module.keeps, module.kept = keeps, None
