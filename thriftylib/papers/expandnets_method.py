"""ExpandNets' way to train: a network's layers become chains before training and single layers again after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from thriftylib.errors import SpecError
from thriftylib.merging import contract_chain
from thriftylib.method import Method, Parent
from thriftylib.papers.expandnets import ExpandNetsOptions
from thriftylib.papers.expandnets_expansion import Expanded, Kind, expand_conv, expand_linear
from thriftylib.papers.networks_parts import uniform_norms

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset
    from thriftylib.method import Sample

_FRACTIONS = {"min": 0.0, "5": 0.05, "25": 0.25, "50": 0.5, "75": 0.75, "95": 0.95, "max": 1.0}
QUANTILES = {f"cosine_{name}": fraction for name, fraction in _FRACTIONS.items()}
"""The record's series of gradient confusion: quantiles over the pairs of mini-batches."""


class ExpandNets(Method):
    """Chains while training, one layer each in the end; perhaps without momentum at the start of each epoch."""

    def __init__(self, options: ExpandNetsOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        network = super().prepare(network, parent)
        if self.options.norm_start == "uniform":
            uniform_norms(network)
        options = self.options.model_dump(include={"convs", "linear", "rate", "image", "only"})
        options["convs"] = None if options["convs"] == "plain" else options["convs"]
        if not (options["convs"] or options["linear"]):
            return network
        if parent is not None:
            raise SpecError(
                "method expandnets replaces layers, and with them the weights of its parent "
                f"{parent.record.run.configuration}: give it no parent, or convs = 'plain' and linear = False"
            )
        return expand(network, **options)

    def epoch_starts(self, network: nn.Module, optimizer: Optimizer, epoch: int) -> None:
        if self.options.reset_momentum:
            for state in optimizer.state.values():
                state["momentum_buffer"].zero_()

    def epoch_ends(self, network: nn.Module, optimizer: Optimizer, epoch: int, sample: Sample) -> Mapping[str, float]:
        """Gradient confusion: quantiles of the cosine between two mini-batches' gradients, of what is trained."""

        def gradient(number: int) -> Tensor:
            return torch.cat([g.flatten() for g in torch.autograd.grad(sample(number), list(network.parameters()))])

        if not self.options.confusion:
            return {}
        pairs = [(gradient(2 * i), gradient(2 * i + 1)) for i in range(self.options.confusion)]
        cosines = torch.stack([F.cosine_similarity(*pair, dim=0) for pair in pairs])
        fractions = torch.tensor(list(QUANTILES.values()))
        return dict(zip(QUANTILES, cosines.cpu().quantile(fractions).tolist(), strict=True))  # a GPU is waited for once

    def finish(self, network: nn.Module, dataset: Dataset) -> nn.Module:
        return contract(network)


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

    What is already a chain stays one: a second call may expand other layers in another way.

    Args:
        convs: "cl" or "ck": how all convolutions are expanded; None: they are not.
        linear: whether the linear layers are, all but the last, the classifier, which never is.
        image: whether the first chain layer of the first convolution, which reads the image, is widened too.
        only: names of the modules (``features.0``) within which layers are expanded; empty: everywhere.

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
        elsewhere = only and not any(name == part or name.startswith(f"{part}.") for part in only)
        if elsewhere or module in done or module in expanded:
            continue
        if isinstance(module, nn.Conv2d) and convs:
            expanded[module] = expand_conv(module, convs, rate, widens_input=image or module is not first)
        elif isinstance(module, nn.Linear) and linear and module is not classifier:
            expanded[module] = expand_linear(module, rate)
    if (convs or linear) and not expanded:
        raise SpecError(f"convs = {convs!r}, linear = {linear}: there is no such layer to expand")
    _replace(network, expanded)
    if not hasattr(network, "_expanded_hooks"):
        begin, end = partial(_in_pass, True), partial(_in_pass, False)
        hooks = network.register_forward_pre_hook(begin), network.register_forward_hook(end, always_call=True)
        network._expanded_hooks = hooks
    return network


def contract(module: nn.Module) -> nn.Module:
    """``module`` with every chain merged into one layer by ``contract_chain``.

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
    """A module that is used at many places is replaced at each by the same one."""
    for parent in list(network.modules()):
        for name, child in parent._modules.items():  # named_children leaves out a module's second name
            if child in found:
                parent._modules[name] = found[child]


def _in_pass(begins: bool, network: nn.Module, *_: object) -> None:
    """Keep the products from the beginning of a forward pass to its end."""
    for module in network.modules():
        if isinstance(module, Expanded):
            module.keeps, module.kept = begins, None
