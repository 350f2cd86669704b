"""ExpandNets' way to train: a network's layers become chains before training and single layers again after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from thriftylib.errors import SpecError
from thriftylib.method import Method, Parent
from thriftylib.papers.expandnets import QUANTILES, ExpandNetsOptions
from thriftylib.papers.expandnets_expansion import Expanded, Kind, contract_chain, expand_conv, expand_linear
from thriftylib.papers.networks_parts import uniform_norms

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset
    from thriftylib.method import Sample


class ExpandNets(Method):
    """Chains while training, one layer each in the end; perhaps without momentum at the start of each epoch."""

    def __init__(self, options: ExpandNetsOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        network = super().prepare(network, parent)
        if self.options.norm_start == "uniform":
            uniform_norms(network)
        convs = None if self.options.convs == "plain" else self.options.convs
        if convs is None and not self.options.linear:
            return network
        if parent is not None:
            raise SpecError(
                "method expandnets replaces layers, and with them the weights of its parent "
                f"{parent.record.run.configuration}: give it no parent, or convs = 'plain' and linear = False"
            )
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

    def finish(self, network: nn.Module, dataset: Dataset) -> nn.Module:
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
    image: bool = False,
    only: Sequence[str] = (),
) -> nn.Module:
    """Replace the convolutions and linear layers of ``network`` by chains, in place; returns ``network``.

    Args:
        convs: "cl" or "ck": how all convolutions are expanded; None: they are not.
        linear: whether the linear layers are, all but the last, the classifier, which never is.
        image: whether the first chain layer of the first convolution, which reads the image, is widened too.
        only: names of the modules (``features.0``) within which layers are expanded; empty: everywhere.

    What is already a chain stays one: a second call may expand other layers in another way.

    Raises:
        SpecError: a layer cannot be expanded so, or there is none to expand.
    """
    named = list(network.named_modules(remove_duplicate=False))  # a shared module under all of its names
    if unknown := [name for name in only if name not in dict(named)]:
        known = ", ".join(name for name, _ in network.named_children())
        raise SpecError(f"only = {unknown[0]!r}: the network has no such module; its parts: {known}")
    first = next((module for _, module in named if isinstance(module, nn.Conv2d)), None)
    classifier = next((module for _, module in reversed(named) if isinstance(module, nn.Linear)), None)
    done = {network}.union(*(module.modules() for _, module in named if isinstance(module, Expanded)))
    expanded: dict[nn.Module, nn.Module] = {}
    for name, module in named:
        if module in done or module in expanded:
            continue
        if only and not any(name == part or name.startswith(f"{part}.") for part in only):
            continue
        if isinstance(module, nn.Conv2d) and convs:
            expanded[module] = expand_conv(module, convs, rate, widens_input=image or module is not first)
        elif isinstance(module, nn.Linear) and linear and module is not classifier:
            expanded[module] = expand_linear(module, rate)
    if (convs or linear) and not expanded:
        raise SpecError(f"convs = {convs!r}, linear = {linear}: there is no such layer to expand")
    _replace(network, expanded)
    if not hasattr(network, "_expanded_hooks"):
        network._expanded_hooks = (
            network.register_forward_pre_hook(_begin_pass),
            network.register_forward_hook(_end_pass, always_call=True),
        )
    return network


def contract(module: nn.Module) -> nn.Module:
    """``module`` with every chain multiplied into one layer by ``contract_chain``.

    Args:
        module: an expanded network, changed in place; or an expanded layer.

    Raises:
        SpecError: a chain has come to hold something else than its layers.
    """
    if isinstance(module, Expanded):
        return contract_chain(module.chain)
    parts = list(module.modules())
    _replace(module, {part: contract_chain(part.chain) for part in parts if isinstance(part, Expanded)})
    for part in parts:
        for hook in part.__dict__.pop("_expanded_hooks", ()):
            hook.remove()
    return module


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
