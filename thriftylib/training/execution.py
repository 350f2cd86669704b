"""How the steps of a training are executed: one operation after another, compiled, or replayed as one CUDA graph.

- ``eager``: PyTorch's operators, one after another.
- ``graph``: a whole step (gather, augmentation, forward and backward pass, SGD) is captured once from static buffers
  and then replayed, so that nothing is launched one by one. Operations and random numbers are those of ``eager``.
- ``compiled``: the network's passes through ``torch.compile``, which rounds in other places.
- ``auto``: ``graph`` on a GPU where a run allows it, else ``eager``.

A short last batch is always eager. The first step of a faster way, and the first after a method has changed the
network, is executed eagerly too: where the two differ, or the faster one fails, training goes on from the eager step,
eagerly, and one line says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from thriftylib.errors import SpecError
from thriftylib.method import Method
from thriftylib.training.device import sent

if TYPE_CHECKING:
    from thriftylib.training.trainer import Trainer

Mode = Literal["eager", "compiled", "graph"]
Execution = Literal["auto", "eager", "compiled", "graph"]
EXECUTIONS = ("auto", "eager", "compiled", "graph")
TOLERANCE = {"graph": {"fp32": 1e-2, "bf16": 0.1}, "compiled": {"fp32": 5e-2, "bf16": 0.5}}
"""How far from an eager step another may end, as a fraction of what that changes; a wrong one is off by 1 or more.

Deep networks at their first weights amplify rounding: gradients in bf16 may be 0.4 off those in float64 (DACNN).
"""
WARM_UP = 3  # steps before a capture, for libraries that allocate or choose at their first call
State = dict[str, list[Tensor]]


class Executor:
    """Executes the steps of one training, and knows how: ``mode`` now, and ``why`` that is not what was asked for.

    Raises:
        SpecError: ``asked`` is none of ``EXECUTIONS``.
    """

    def __init__(self, trainer: Trainer, asked: str) -> None:
        if asked not in EXECUTIONS:
            raise SpecError(f"execution = {asked!r}: must be one of {', '.join(EXECUTIONS)}")
        self.trainer, self.mode, self.why = trainer, "eager", ""
        self.apart: float | None = None  # of the faster way's first step from the eager one, as a fraction
        self._ran: dict[Mode, None] = {}
        self._faster: Callable[[Tensor], None] | None = None
        self._seen: list[object] = []
        self._is_watched = type(trainer.method).after_step is not Method.after_step  # may replace a tensor
        if asked == "compiled":
            self.mode = "compiled"
        elif asked != "eager":
            fault = obstacle(trainer)
            self.mode = "eager" if fault else "graph"
            self.why = f"no CUDA graph, {fault}" if fault and (asked, trainer.device.type) != ("auto", "cpu") else ""

    def describe(self) -> str:
        """How the full batches were executed so far, for the record."""
        return ", ".join(self._ran) or "eager"

    def step(self, index: Tensor, say: Callable[[str], None]) -> None:
        """One optimiser step on the training images ``index``, (N,); ``say`` receives why a faster way is left."""
        trainer = self.trainer
        if self.mode == "eager" or len(index) < trainer.recipe.batch_size:
            trainer.train_step(index, trainer.network)
            if len(index) == trainer.recipe.batch_size:
                self._ran[self.mode] = None
            return
        if self._faster is None or ((self._is_watched or not trainer.batch) and self._seen != _addresses(trainer)):
            self._begin(index, say)
        else:
            self._faster(index)
        self._ran[self.mode] = None

    def _begin(self, index: Tensor, say: Callable[[str], None]) -> None:
        """Take the faster way, if its first step is the eager one; else end it."""
        trainer, self._faster = self.trainer, None
        before = _state(trainer)
        trainer.train_step(index, trainer.network)
        expected = _state(trainer)
        try:
            _put_back(trainer, before)
            self._faster = {"graph": Replayed, "compiled": Compiled}[self.mode](trainer)
            _put_back(trainer, before)  # a capture has executed steps
            self._faster(index)
            self.apart, allowed = difference(before, expected, _state(trainer)), TOLERANCE[self.mode][trainer.precision]
            fault = "" if self.apart <= allowed else f"its first step is {self.apart:.1e} off, more than {allowed:g}"
        except Exception as error:  # whatever a compiler or a driver raises: the eager step is done
            fault = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        if fault:
            self._faster = None
            _put_back(trainer, expected)
            self.why, self.mode = f"goes on eagerly, since {self.mode} does not work here ({fault})", "eager"
            say(self.why)
        self._seen = _addresses(trainer)


def obstacle(trainer: Trainer) -> str | None:
    """Why a step of this training cannot be captured and replayed; None: it can."""
    if trainer.device.type != "cuda":
        return "which needs a GPU"
    return varies(trainer)


def varies(trainer: Trainer) -> str | None:
    """What of a step the host decides anew each time, so that a replay would repeat an old decision; None: nothing."""
    if trainer.recipe.augment.autoaugment:
        return "since AutoAugment decides on the CPU which operation comes"
    if trainer.method.varies:
        return f"since the method {trainer.run.method.name} changes what the network computes from step to step"
    if type(trainer.optimizer) is not SGD or any(
        g["dampening"] or g["maximize"] for g in trainer.optimizer.param_groups
    ):
        return "since its optimiser is not plain SGD"
    return None


class Compiled:
    """Steps with the network's passes through ``torch.compile``, channels last throughout."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        # Inductor leaves channels_last where all convolutions are narrow or grouped; the engine's maps keep it.
        options = {"force_layout_optimization": True}
        self.network = torch.compile(trainer.network, dynamic=False, options=options)

    def __call__(self, index: Tensor) -> None:
        self.trainer.train_step(index, self.network)


class Replayed:
    """Steps that read static buffers alone: images' numbers and learning rates; replayed without the host's part."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, groups = trainer, trainer.optimizer.param_groups
        self.index = torch.arange(trainer.recipe.batch_size, device=trainer.device)
        self.rates = torch.zeros(len(groups), device=trainer.device)
        self._rates: list[float] = []
        trainer.seed(trainer.epoch, trainer.batch)
        self.replay = capture(self._step, trainer.device, trainer.generator)
        self.gradients = [(each, each.grad) for group in groups for each in group["params"]]

    def __call__(self, index: Tensor) -> None:
        trainer = self.trainer
        trainer.seed(trainer.epoch, trainer.batch)
        if not trainer.network.training:
            trainer.network.train()
        self.index.copy_(index)
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        if rates != self._rates:
            self._rates = rates
            self.rates.copy_(sent(torch.tensor(rates), trainer.device), non_blocking=True)
        self.replay()
        for parameter, gradient in self.gradients:  # a short batch has its own
            parameter.grad = gradient

    def _step(self) -> None:
        self.trainer.find_gradients(self.index, self.trainer.network)
        sgd(self.trainer.optimizer, self.rates)


def capture(step: Callable[[], None], device: torch.device, generator: torch.Generator) -> Callable[[], None]:
    """``step`` as a CUDA graph; calling what is returned replays it with ``generator`` as it is seeded then."""
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)  # PyTorch's own one, from which layers draw, always is
        with torch.cuda.graph(graph):
            step()
    return graph.replay


@torch.no_grad()
def sgd(optimizer: Optimizer, rates: Tensor) -> None:
    """A step of ``torch.optim.SGD`` with the learning rates of its groups in a tensor, (groups,): the same numbers.

    PyTorch's own step reads such a tensor on the host. Without dampening.
    """
    for group, rate in zip(optimizer.param_groups, rates.neg().unbind(), strict=True):
        for parameter in group["params"]:
            if (gradient := parameter.grad) is None:
                continue
            if group["weight_decay"]:
                gradient = gradient.add(parameter, alpha=group["weight_decay"])
            if group["momentum"]:
                momentum = optimizer.state[parameter]["momentum_buffer"]
                momentum.mul_(group["momentum"]).add_(gradient)
                gradient = gradient.add(momentum, alpha=group["momentum"]) if group["nesterov"] else momentum
            parameter.addcmul_(gradient, rate)  # rounded once, as add_ with a factor is


def difference(before: State, expected: State, found: State) -> float:
    """How far ``found`` is from ``expected``, as a fraction of what changed since ``before``: of all kinds the largest.

    Without the count of correct answers, of which rounding may turn one.
    """

    def norm(one: list[Tensor], other: list[Tensor]) -> float:
        return sum(float((x.double() - y.double()).square().sum()) for x, y in zip(one, other, strict=True)) ** 0.5

    kinds = before.keys() - {"correct"}
    apart = {kind: norm(found[kind], expected[kind]) for kind in kinds}
    if not all(map(math.isfinite, apart.values())):  # of which max() may lose sight
        return math.nan
    return max(apart[kind] / max(norm(expected[kind], before[kind]), 1e-300) for kind in kinds)


def _tensors(trainer: Trainer) -> State:
    """What a step changes."""
    return {
        "weights": list(trainer.network.parameters()),
        "momentum": [x for state in trainer.optimizer.state.values() for x in state.values() if torch.is_tensor(x)],
        "statistics": list(trainer.network.buffers()),
        "loss": [trainer.sums[:1]],
        "correct": [trainer.sums[1:]],
    }


def _state(trainer: Trainer) -> State:
    return {kind: [x.detach().clone() for x in tensors] for kind, tensors in _tensors(trainer).items()}


@torch.no_grad()
def _put_back(trainer: Trainer, state: State) -> None:
    for kind, tensors in _tensors(trainer).items():
        for x, value in zip(tensors, state[kind], strict=True):
            x.copy_(value)


def _addresses(trainer: Trainer) -> list[object]:
    """Where all of it is, what is trained, and how: what a captured step has fixed."""
    found: list[object] = [x.data_ptr() for tensors in _tensors(trainer).values() for x in tensors]
    found += [parameter.requires_grad for parameter in trainer.network.parameters()]
    for group in trainer.optimizer.param_groups:
        found += [len(group["params"]), *(group[name] for name in ("weight_decay", "momentum", "nesterov"))]
    return found
