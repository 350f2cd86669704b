"""The hooks through which a paper changes training; the engine calls them and knows nothing else of any paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thriftylib.errors import RecordError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from thriftylib.datasets.load import Dataset
    from thriftylib.evidence.records import Record

    Sample = Callable[[int], Tensor]
    """The loss (0-d, differentiable) of the i-th mini-batch drawn only to look at it, as a step would see it."""


@dataclass(frozen=True)
class Parent:
    """The finished run whose trained weights another run starts from: its record, and its weights by name."""

    record: Record
    tensors: Mapping[str, Tensor]

    def load(self, network: nn.Module) -> None:
        """Load the weights into ``network``, narrowed first where the parent's kept network is narrower.

        Raises:
            RecordError: they are those of another network; names the first difference.
        """
        from thriftylib.narrowing import different_shapes, fit  # imports torch

        if self.record.kept and self.record.kept.shapes:
            fit(network, self.record.kept.shapes)
        different = different_shapes(network, self.tensors)
        if different is None or different:
            names = different or network.state_dict().keys() ^ self.tensors.keys()
            raise RecordError(
                f"the parent {self.record.run.configuration} is another network; first difference: {min(names)}"
            )
        network.load_state_dict(dict(self.tensors))


class Method:
    """Training as usual: subclass it beside a paper's network and override what the paper changes.

    A method is made anew for each run by its :class:`thriftylib.options.MethodOptions`. What it must remember over
    a kill goes through :meth:`state` and :meth:`restore`.
    """

    varies = False
    """Whether what ``forward`` computes depends on state in Python that changes from step to step, such as a counter.

    A step is then never captured to be replayed. Networks that are narrowed, or get other tensors, are captured anew.
    """

    def prepare(self, network: nn.Module, parent: Parent | None) -> nn.Module:
        """The network that is trained in place of ``network`` (expanded, narrowed, ...).

        Called before the first step, and again before a checkpoint is loaded. ``parent`` is there if the run names one;
        this default loads its weights.
        """
        if parent is not None:
            parent.load(network)
        return network

    def epoch_starts(self, network: nn.Module, optimizer: Optimizer, epoch: int) -> None:
        """Before the first step of ``epoch`` (from 0): reset momentum, narrow layers with their optimiser state, ...

        :func:`thriftylib.narrowing.narrow` narrows a layer. A checkpoint keeps shapes and the optimiser's groups by
        itself; a parameter that is added to the optimiser must be the network's.
        """

    def after_step(self, network: nn.Module, optimizer: Optimizer, learning_rate: float) -> None:
        """After each optimiser step, with the learning rate it used: a proximal step on the weights, ..."""

    def epoch_ends(self, network: nn.Module, optimizer: Optimizer, epoch: int, sample: Sample) -> Mapping[str, float]:
        """After the epoch's evaluation: numbers for the record's own series (neurons alive, cosines of gradients, ...).

        ``sample`` leaves no trace: no gradient, no step, and batch-norm statistics as they were.
        """
        return {}

    def finish(self, network: nn.Module, dataset: Dataset) -> nn.Module:
        """The network that is kept: counted, evaluated and saved (merged, narrowed, ...)."""
        return network

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        """Numbers or lists of the kept network, by name, for the record (neurons left, scores, entropies, ...).

        Of a run without a recipe they are all that it yields; ``network`` is then the prepared one.
        """
        return {}

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """What a checkpoint must keep: tensors by name, and JSON values."""
        return {}, {}

    def restore(self, network: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> nn.Module:
        """Undo :meth:`state`; returns the network. Layers that :func:`thriftylib.narrowing.narrow` narrowed follow."""
        return network
