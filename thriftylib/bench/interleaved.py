"""What every bench shares: training steps of several ways to do one thing, in turns.

All learn from random images of CIFAR-10's shape, so no data set is needed. The variants take turns, round by round, so
a slow moment of the machine hits all of them, and each round gives one ratio. Trainings side by side need processes of
their own, which wait while others have their turn. Peak memory is that of a fresh process for each variant. Nothing is
timed before all are seen to compute the same.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from thriftylib.bench.record import BenchRecord, Variant
from thriftylib.datasets.load import Dataset, Split
from thriftylib.errors import ThriftyError
from thriftylib.spec import Run
from thriftylib.training.device import Precision, device_name, keep_freed_memory
from thriftylib.training.progress import Progress
from thriftylib.training.provenance import provenance, versions
from thriftylib.training.trainer import Trainer

# Relative differences that count as the same. Rounding alone changes the gradients by up to 3e-3: where two pixels of a
# max-pool are nearly equal, it decides which of them receives the gradient.
SAME = {"logits": 1e-4, "gradients": 1e-2}


@dataclass(frozen=True)
class Way:
    """One way to train a run: a step for each ``next``."""

    what: str
    steps: Callable[[Run], Iterator[None]]
    precision: Precision = "fp32"
    at_once: int = 1  # trainings side by side, which share out the threads


def measure(
    name: str,
    what: str,
    run: Run,
    ways: Mapping[str, Way],
    *,
    rounds: int,
    steps: int = 1,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Time ``rounds`` rounds of ``steps`` training steps of each way; the first is the baseline, a first round is lost.

    Args:
        threads: of the CPU; None: as PyTorch is set.
        report: receives a line of progress now and then.
    """
    before = torch.get_num_threads()
    threads = threads or before
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in every training of ours; here the others have it too
    speeds: dict[str, list[float]] = {key: [] for key in ways}
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        report("peak memory, each variant in a process of its own")
        peaks = {key: _peak(run, way, threads) for key, way in ways.items()}
        trainings = {
            key: _Training(run, way) if way.at_once == 1 else stack.enter_context(_SideBySide(run, way, threads))
            for key, way in ways.items()
        }
        for number in range(rounds + 1):
            for key, training in trainings.items():
                started = time.perf_counter()
                training.advance(steps)
                seconds = time.perf_counter() - started
                if number:
                    speeds[key].append(round(ways[key].at_once * steps * run.recipe.batch_size / seconds, 2))
            if number:
                told = ", ".join(f"{key} {speed[-1]:.1f}" for key, speed in speeds.items())
                report(f"round {number}/{rounds}, images/s: {told}")
    return BenchRecord(
        name=name,
        what=what,
        baseline=next(iter(ways)),
        variants={
            key: Variant(what=way.what, precision=way.precision, images_per_second=speeds[key], peak_bytes=peaks[key])
            for key, way in ways.items()
        },
        device=device_name(torch.device("cpu")),
        threads=threads,
        versions=versions(),
        commit=provenance().commit,
        date=datetime.now(UTC).date().isoformat(),
    )


class _Training:
    """One training in this process."""

    def __init__(self, run: Run, way: Way) -> None:
        self.steps = way.steps(run)

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            next(self.steps)


class _SideBySide:
    """Some trainings at once, each in a process that waits for the next call."""

    def __init__(self, run: Run, way: Way, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.ends, self.processes = [], []
        for _ in range(way.at_once):
            end, other = context.Pipe()
            arguments = (other, run.model_dump(mode="json"), way, threads // way.at_once)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            other.close()
            self.ends.append(end)
            self.processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self.ends:
            end.close()
        for process in self.processes:
            process.join()

    def advance(self, steps: int) -> None:
        try:
            for end in self.ends:
                end.send(steps)
            for end in self.ends:
                end.recv()
        except (EOFError, OSError):
            raise ThriftyError("one of the trainings side by side has died") from None


def _serve(end: Connection, run: dict[str, Any], way: Way, threads: int) -> None:
    """In the process: as many steps as asked for, again and again."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    training = _Training(Run.model_validate(run), way)
    while True:
        try:
            wanted = end.recv()
        except (EOFError, OSError):  # nobody asks any more
            return
        training.advance(wanted)
        with suppress(OSError):
            end.send(None)


def images(run: Run) -> tuple[Tensor, Tensor]:
    """Random uint8 images (N, 3, 32, 32) and labels (N,)."""
    generator, info = torch.Generator().manual_seed(0), run.data.info
    shape = (run.data.training_images, *info.image_shape)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(len(info.classes), shape[:1], generator=generator)


class PlainImages(TorchDataset):
    """Images one by one through PIL and torchvision's transforms, as torchvision's CIFAR10 gives them."""

    def __init__(self, run: Run) -> None:
        from torchvision import transforms  # takes a second to import

        pixels, labels = images(run)
        info, augment = run.data.info, run.recipe.augment
        self.pixels, self.labels = pixels.permute(0, 2, 3, 1).numpy(), labels.tolist()
        self.image = transforms.ToPILImage()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(info.image_shape[1], padding=augment.crop),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(info.mean, info.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.image(self.pixels[index])), self.labels[index]


def plain_training(run: Run, network: nn.Module) -> Iterator[None]:
    """PyTorch's usual loop over a ``DataLoader`` with its defaults."""
    recipe = run.recipe
    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    criterion = nn.CrossEntropyLoss()
    running_loss, correct = 0.0, 0
    for inputs, labels in DataLoader(PlainImages(run), batch_size=recipe.batch_size, shuffle=True):
        optimizer.zero_grad()
        logits = network(inputs)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
        yield


def our_training(run: Run, precision: Precision = "fp32") -> Iterator[None]:
    """Our engine."""
    training = trainer(run, precision)
    report = Progress(run, training.steps, 0, shown=False)
    while True:
        training.step(report)
        yield


def trainer(run: Run, precision: Precision = "fp32") -> Trainer:
    """Our engine before its first step."""
    split = Split(*images(run))
    return Trainer(run, Dataset(run.data.info, split, split, None), torch.device("cpu"), precision)


def check_same(run: Run, plain: nn.Module, ours: nn.Module, whose: str) -> None:
    """Both give the same logits and gradients for one batch, up to the rounding of their precision.

    Raises:
        ThriftyError: they do not; ``whose`` names the other side.
    """
    pixels, labels = (tensor[: run.recipe.batch_size] for tensor in images(run))
    inputs = pixels.to(next(ours.parameters()).dtype) / 127.5 - 1
    found = []
    for network in (plain, ours):
        logits = network.train()(inputs)
        F.cross_entropy(logits, labels).backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        found.append({"logits": logits.detach(), "gradients": gradients})
    theirs, ours = found
    for name, tolerance in SAME.items():
        difference = ((ours[name] - theirs[name]).norm() / theirs[name].norm()).item()
        if not difference < tolerance:
            raise ThriftyError(f"{name} differ from those of {whose} by {difference:.1e} of their norm")


def _peak(run: Run, way: Way, threads: int) -> int | None:
    """Bytes that two steps need at most in fresh processes, beside what these held before; None where unknown."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        peak = process.submit(_measure_peak, run.model_dump(mode="json"), way, threads // way.at_once).result()
    return peak and way.at_once * peak


def _measure_peak(run: dict[str, Any], way: Way, threads: int) -> int | None:
    keep_freed_memory()
    torch.set_num_threads(threads)
    steps = way.steps(Run.model_validate(run))
    before = _status_bytes("VmRSS")
    next(steps), next(steps)
    peak = _status_bytes("VmHWM")
    return peak - before if before and peak else None


def _status_bytes(field: str) -> int | None:
    """A line of Linux's account of this process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
