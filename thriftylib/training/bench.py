"""How fast our engine trains a ThriftyNet beside the authors' formulation of the same network and training step.

Both learn from random images of CIFAR-10's shape, so no data set is needed. The variants take turns, step by step in
one process, so a slow moment of the machine hits all of them, and each round gives one ratio. Peak memory is that of a
fresh process for each variant. Nothing is timed before both are seen to compute the same.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from thriftylib.errors import ThriftyError
from thriftylib.evidence.bench import BenchRecord, Variant
from thriftylib.spec import Augment, Recipe, Run
from thriftylib.training.data import Dataset, Split
from thriftylib.training.device import device_name
from thriftylib.training.engine import Trainer
from thriftylib.training.outcome import commit, versions
from thriftylib.training.progress import Report

AUTHORS = "authors"
# Relative differences that count as the same. Rounding alone changes the gradients by up to 3e-3: where two pixels of a
# max-pool are nearly equal, it decides which of them receives the gradient.
SAME = {"logits": 1e-4, "gradients": 1e-2}


class AuthorsFormulation(nn.Module):
    """The mb1, tanh network written plainly after the authors' code, operation by operation: (N, 3, H, W) to (N, 10).

    Its state_dict is that of :class:`thriftylib.papers.thriftynet.ThriftyNet`.
    """

    def __init__(self, filters: int, iterations: int, history: int, pool: int, classes: int = 10) -> None:
        super().__init__()
        self.filters, self.history, self.pool = filters, history, pool
        depthwise = nn.Conv2d(filters, filters, 3, padding=1, groups=filters, bias=False)
        self.convs = nn.ModuleList([nn.Sequential(depthwise, nn.Conv2d(filters, filters, 1, bias=False))])
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters) for _ in range(iterations))
        self.alpha = nn.Parameter(torch.zeros(iterations, history + 1))
        self.activation = nn.Tanh()
        self.downsample = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Linear(filters, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        padded = torch.zeros(x.shape[0], self.filters - x.shape[1], *x.shape[2:])
        states: list[Tensor | None] = [None] * (self.history - 1) + [torch.cat([x, padded], dim=1)]
        for t, norm in enumerate(self.norms):
            a = self.alpha[t, 0] * self.activation(self.convs[0](states[-1]))
            for i, state in enumerate(states):
                if state is not None:
                    a = a + self.alpha[t, i + 1] * state
            states = [*states[1:], norm(a)]
            if t % self.pool == self.pool - 1:
                states = [None if state is None else self.downsample(state) for state in states]
        pooled = self.head[0](states[-1])
        return self.head[1](pooled.view(pooled.shape[0], -1))


def bench_train(
    *,
    filters: int = 172,
    iterations: int = 20,
    batch_size: int = 100,
    rounds: int = 5,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Training steps of the authors' formulation, of our engine in fp32 and, where the CPU computes in it, in bf16.

    The network is the mb1, tanh ThriftyNet with history 5 and a pool each ``iterations // 5``, on 32x32 images; the
    defaults are the 40K network of 20 iterations. A step is augmentation, forward, backward and SGD; the first of each
    variant is not counted.

    Args:
        rounds: counted steps of each variant.
        threads: of the CPU; None: as PyTorch is set.
        report: receives a line of progress now and then.

    Raises:
        SpecError: a size that no network or recipe has.
        ThriftyError: the variants do not compute the same.
    """
    before = torch.get_num_threads()
    threads = threads or before
    run = _run(filters, iterations, batch_size, images=(rounds + 2) * batch_size)  # an epoch must not end
    torch.set_num_threads(threads)
    try:
        _check_same(run)
        bf16 = ["bf16"] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else []
        speeds: dict[str, list[float]] = {name: [] for name in (AUTHORS, "fp32", *bf16)}
        report("peak memory, each variant in a process of its own")
        peaks = {name: _peak(run, name, threads) for name in speeds}
        trainings = {name: training(run, name) for name in speeds}
        for number in range(rounds + 1):
            for name, steps in trainings.items():
                started = time.perf_counter()
                next(steps)
                if number:
                    speeds[name].append(round(batch_size / (time.perf_counter() - started), 2))
            if number:
                told = ", ".join(f"{name} {speed[-1]:.1f}" for name, speed in speeds.items())
                report(f"round {number}/{rounds}, images/s: {told}")
    finally:
        torch.set_num_threads(before)
    return BenchRecord(
        name="train",
        what=f"training steps, ThriftyNet mb1, {filters} filters, {iterations} iterations, batch {batch_size}, 32x32",
        baseline=AUTHORS,
        variants={
            name: Variant(
                what="the authors' formulation" if name == AUTHORS else "our engine",
                precision="bf16" if name == "bf16" else "fp32",
                images_per_second=speeds[name],
                peak_bytes=peaks[name],
            )
            for name in speeds
        },
        device=device_name(torch.device("cpu")),
        threads=threads,
        versions=versions(),
        commit=commit(),
        date=datetime.now(UTC).date().isoformat(),
    )


def _run(filters: int, iterations: int, batch_size: int, images: int) -> Run:
    recipe = Recipe(
        name="bench",
        epochs=1,
        batch_size=batch_size,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule={"kind": "constant"},
        augment=Augment(crop=4, flip=True),
    )
    network = {"name": "thriftynet", "options": {"filters": filters, "iterations": iterations}}
    return Run(network=network, data={"name": "cifar10", "train_images": images}, recipe=recipe)


def _images(run: Run) -> tuple[Tensor, Tensor]:
    """Random uint8 images (N, 3, 32, 32) and labels (N,)."""
    generator, info = torch.Generator().manual_seed(0), run.data.info
    shape = (run.data.training_images, *info.image_shape)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randint(len(info.classes), shape[:1], generator=generator)


class _AuthorsImages(TorchDataset):
    """Images one by one through PIL and torchvision's transforms, as torchvision's CIFAR10 gives them."""

    def __init__(self, run: Run) -> None:
        from torchvision import transforms  # takes a second to import

        images, labels = _images(run)
        info, augment = run.data.info, run.recipe.augment
        self.pixels, self.labels = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
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


def training(run: Run, variant: str) -> Iterator[None]:
    """A training of which each ``next`` is a step."""
    return _authors_training(run) if variant == AUTHORS else _our_training(run, variant)


def _authors_training(run: Run) -> Iterator[None]:
    recipe = run.recipe
    network = _authors_network(run).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    criterion = nn.CrossEntropyLoss()
    running_loss, correct = 0.0, 0
    for images, labels in DataLoader(_AuthorsImages(run), batch_size=recipe.batch_size, shuffle=True):
        optimizer.zero_grad()
        logits = network(images)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()
        yield


def _our_training(run: Run, precision: str) -> Iterator[None]:
    trainer = _trainer(run, precision)
    report = Report(run, trainer.steps, 0, shown=False)
    while True:
        trainer.step(report)
        yield


def _trainer(run: Run, precision: str) -> Trainer:
    split = Split(*_images(run))
    return Trainer(run, Dataset(run.data.info, split, split, None), torch.device("cpu"), precision)


def _authors_network(run: Run) -> AuthorsFormulation:
    """With the weights that our engine starts from."""
    options = run.options
    network = AuthorsFormulation(options.filters, options.iterations, options.history, options.pool)
    network.load_state_dict(_trainer(run, "fp32").network.state_dict())
    return network


def _check_same(run: Run) -> None:
    """Both formulations give the same logits and gradients for one batch, up to fp32 rounding."""
    images, labels = (tensor[: run.recipe.batch_size] for tensor in _images(run))
    inputs = images.float() / 127.5 - 1
    found = []
    for network in (_authors_network(run), _trainer(run, "fp32").network):
        logits = network.train()(inputs)
        F.cross_entropy(logits, labels).backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        found.append({"logits": logits.detach(), "gradients": gradients})
    theirs, ours = found
    for name, tolerance in SAME.items():
        difference = ((ours[name] - theirs[name]).norm() / theirs[name].norm()).item()
        if not difference < tolerance:
            raise ThriftyError(
                f"{name} differ from those of the authors' formulation by {difference:.1e} of their norm"
            )


def _peak(run: Run, variant: str, threads: int) -> int | None:
    """Bytes that two steps need at most in a fresh process, beside what it held before; None where unknown."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure_peak, run.model_dump(mode="json"), variant, threads).result()


def _measure_peak(run: dict, variant: str, threads: int) -> int | None:
    torch.set_num_threads(threads)
    steps = training(Run.model_validate(run), variant)
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
