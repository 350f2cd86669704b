"""The hooks through which a paper changes training; the engine calls them and knows nothing else of any paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    Sample = Callable[[int], Tensor]
    """The loss (0-d, differentiable) of the i-th mini-batch drawn only to look at it, as a step would see it."""


class Method:
    """Training as usual: subclass it beside a paper's network and override what the paper changes.

    A method is made anew for each run by its :class:`thriftylib.options.MethodOptions`. What it must remember over
    a kill goes through :meth:`state` and :meth:`restore`.
    """

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network that is trained in place of ``network`` (expanded, narrowed, ...); called once, at first."""
        return network

    def epoch_starts(self, network: nn.Module, optimizer: Optimizer, epoch: int) -> None:
        """Before the first step of ``epoch`` (from 0): reset momentum, narrow layers with their optimiser state, ..."""

    def after_step(self, network: nn.Module, optimizer: Optimizer, learning_rate: float) -> None:
        """After each optimiser step, with the rate it used: a proximal step on the weights, ..."""

    def epoch_ends(self, network: nn.Module, optimizer: Optimizer, epoch: int, sample: Sample) -> Mapping[str, float]:
        """After the epoch's evaluation: numbers for the record's own series (neurons alive, cosines of gradients, ...).

        ``sample`` leaves no trace: no gradient, no step, and batch-norm statistics as they were.
        """
        return {}

    def finish(self, network: nn.Module) -> nn.Module:
        """The network that is evaluated last and whose weights are kept (contracted, ...)."""
        return network

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """What a checkpoint must keep: tensors by name, and JSON values."""
        return {}, {}

    def restore(self, network: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> nn.Module:
        """Undo :meth:`state`; returns the network with the shape it had then (layers may have been narrowed)."""
        return network
