"""What this machine is, and whether it computes what it should: one network of each paper, on digits.

The references are PyTorch's plain operators on the CPU: in float64 for a single pass, in fp32 for an epoch. Errors are
norms of differences over norms. What is allowed leaves room for the rounding of deep networks (fp32 convolutions on a
GPU are TF32, PyTorch's default); a wrong kernel, image, learning rate or layout is off by 1 or more.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.datasets.facts import DATASETS
from thriftylib.datasets.load import load
from thriftylib.datasets.releases import present
from thriftylib.errors import ThriftyError
from thriftylib.evidence.records import record_path
from thriftylib.experiments.base import EXPERIMENTS
from thriftylib.paths import data_root
from thriftylib.running.estimates import CPU, modelled_epoch
from thriftylib.running.folders import OutputFolders
from thriftylib.running.processes import follow_parent
from thriftylib.spec import Augment, Run
from thriftylib.training import fast_path
from thriftylib.training.checkpoint import checkpoint_path
from thriftylib.training.device import Precision, autocast, device_name
from thriftylib.training.engine import train
from thriftylib.training.evaluation import as_input
from thriftylib.training.execution import TOLERANCE, Execution
from thriftylib.training.progress import Progress
from thriftylib.training.provenance import versions
from thriftylib.training.trainer import Trainer, build

ALLOWED: Mapping[str, tuple[float, float, float]] = {
    "fp32": (1e-3, 1e-2, 0.05),
    "TF32": (2e-2, 0.15, 0.1),
    "bf16": (0.1, 0.6, 0.15),
}
"""Errors of logits and gradients of one pass, and of the losses after an epoch.

Deep networks at their first weights amplify rounding: DACNN's gradients in bf16 are 0.4 off on a CPU.
"""
IMAGES = 64
"""Of the pass; the epochs are of all digits."""
_CPU = torch.device("cpu")
_POLL, _PATIENCE = 0.002, 120.0  # seconds


@dataclass(frozen=True)
class Finding:
    """One check: its error beside what is allowed (None: it is no matter of size), and a word on it."""

    what: str
    network: str
    ok: bool
    error: float | None = None
    allowed: float | None = None
    note: str = ""

    @classmethod
    def of(cls, what: str, network: str, error: float, allowed: float, note: str = "") -> Finding:
        """The check that an error, which may be NaN, is no more than ``allowed``."""
        return cls(what, network, error <= allowed, error, allowed, note)


def machine(device: torch.device, data: Path | None = None) -> dict[str, str]:
    """What a report of a fault should say of this machine, by name."""
    here = {
        "device": device_name(device),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "processor": f"{os.cpu_count()} threads, {torch.get_num_threads()} of them PyTorch's",
        "C compiler": fast_path.function("compiled", "compiler_version")() or "not asked for",
    }
    if device.type == "cuda":
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
        seen = torch.cuda.get_device_properties(device)
        here["GPU"] = f"compute capability {seen.major}.{seen.minor}, {seen.multi_processor_count} multiprocessors"
        here["GPU memory"] = f"{free:.1f} GiB free of {total:.1f} GiB"
        here["CUDA"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, driver {_driver()}"
        here["GPUs that torch sees"] = str(torch.cuda.device_count())
    here["bf16"] = "yes" if has_bf16(device) else "no fast one: fp32 alone is checked"
    here["TF32 in convolutions"] = "yes" if torch.backends.cudnn.allow_tf32 and device.type == "cuda" else "no"
    here["free disk"] = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB here"
    root = data_root(data)
    found = [name for name in DATASETS if name != "digits" and present(name, root)]
    here["data sets"] = f"{', '.join(found) or 'none'} in {root}; digits are bundled with scikit-learn"
    return here


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is a precision to train in on ``device``."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def patients() -> list[Run]:
    """One run of each paper that trains on digits from its start: the one that is modelled to be the shortest.

    An epoch without augmentation, whose random numbers depend on the device.
    """
    shortest: dict[str, Run] = {}
    for experiment in EXPERIMENTS.values():
        for run in (configuration.run for configuration in experiment.configurations("smoke")):
            other = shortest.get(experiment.paper)
            if run.recipe and not run.parent and (other is None or _modelled(run) < _modelled(other)):
                shortest[experiment.paper] = run
    return [
        run.model_copy(update={"recipe": run.recipe.model_copy(update={"augment": Augment(), "epochs": 1})})
        for run in shortest.values()
    ]


def examine(device: torch.device, say: Callable[[str], None] = lambda line: None) -> Iterator[Finding]:
    """Every check on ``device``, one after the other."""
    runs = patients()
    precisions: list[Precision] = ["fp32", *(["bf16"] if has_bf16(device) else [])]
    for run in runs:
        say(f"{run.network.name}: forward and backward pass, an epoch of digits")
        yield from _one_pass(run, device, precisions)
        yield from _epochs(run, device, precisions)
    first = min(runs, key=_modelled)
    say(f"{first.network.name}: torch.compile")
    yield _compiled(first, device)
    say(f"{first.network.name}: killed, and resumed from its checkpoint")
    yield _killed(first, device)


def _modelled(run: Run) -> float:
    return modelled_epoch(run, CPU) * run.epochs


def _one_pass(run: Run, device: torch.device, precisions: list[Precision]) -> Iterator[Finding]:
    """Logits and gradients of a batch, batch norms with its statistics, against float64 on the CPU."""
    dataset = load(run.data, seed=run.seed)
    _, network = build(run, None)
    images, labels = as_input(dataset.train.images[:IMAGES], dataset, "fp32"), dataset.train.labels[:IMAGES]
    reference = _gradients(copy.deepcopy(network).double(), images.double(), labels)
    asked = run.options.fast
    for precision in precisions:
        own = copy.deepcopy(network).to(device, memory_format=torch.channels_last)
        fast_path.accelerate(own, asked, precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        x = images.to(device, dtype, memory_format=torch.channels_last)
        with autocast(device, precision):
            found = _gradients(own, x, labels.to(device))
        note = fast_path.describe(own) or ""
        for what, mine, right, allowed in zip(
            ("forward", "gradients"), found, reference, _allowed(precision, device), strict=False
        ):
            yield Finding.of(f"{what} in {precision}", run.network.name, _apart(mine, right), allowed, note)


def _allowed(precision: Precision, device: torch.device) -> tuple[float, float, float]:
    tf32 = precision == "fp32" and device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return ALLOWED["TF32" if tf32 else precision]


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    for module in network.train().modules():
        if isinstance(module, nn.Dropout | nn.RReLU):  # which draw other numbers on each device
            module.eval()
    logits = network(images)
    gradients = torch.autograd.grad(
        F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels), list(network.parameters())
    )
    return [logits.detach()], list(gradients)


def _apart(ours: list[Tensor], right: list[Tensor]) -> float:
    """The norm of the difference over the norm."""
    both = [torch.cat([x.double().cpu().flatten() for x in tensors]) for tensors in (ours, right)]
    return float((both[0] - both[1]).norm() / both[1].norm())


def _epochs(run: Run, device: torch.device, precisions: list[Precision]) -> Iterator[Finding]:
    """An epoch as a training here would execute it, against plain operators on the CPU; and how it was executed.

    On a CPU only in fp32, which trains there, and of what a fast path serves: else the two would be the same.
    """
    if device.type == "cpu":
        precisions = ["fp32"] if run.options.fast else []
    plain = _epoch(run, _CPU, "fp32", "eager", plain=True)[0] if precisions else {}
    for precision in precisions:
        numbers, trainer = _epoch(run, device, precision, "auto")
        error = max(abs(numbers[name] - right) / abs(right) for name, right in plain.items())
        note = ", ".join(filter(None, (trainer.executor.describe(), fast_path.describe(trainer.network))))
        yield Finding.of(f"epoch in {precision}", run.network.name, error, _allowed(precision, device)[2], note)
        if device.type == "cuda":
            yield _execution(trainer, "graph")


def _epoch(
    run: Run, device: torch.device, precision: Precision, execution: Execution, *, plain: bool = False
) -> tuple[dict[str, float], Trainer]:
    """The losses of an epoch."""
    dataset = load(run.data, device=device, seed=run.seed)
    trainer = Trainer(run, dataset, device, precision, execution=execution)
    if plain:
        fast_path.restore(trainer.network)
    progress = Progress(run, trainer.steps, 0, shown=False)
    while not trainer.finished:
        trainer.step(progress)
    return {name: trainer.series[name][0] for name in ("train_loss", "test_loss")}, trainer


def _execution(trainer: Trainer, mode: Execution) -> Finding:
    """Whether the steps were executed so, and how far the first was from the eager one."""
    executor, name = trainer.executor, trainer.run.network.name
    error = math.nan if executor.apart is None else executor.apart
    ok = executor.describe() == mode
    return Finding(f"{mode} in {trainer.precision}", name, ok, error, TOLERANCE[mode][trainer.precision], executor.why)


def _compiled(run: Run, device: torch.device) -> Finding:
    _, trainer = _epoch(run, device, "fp32", "compiled")
    return _execution(trainer, "compiled")


def _killed(run: Run, device: torch.device) -> Finding:
    """A training that is killed and goes on, against one that is not: weights."""
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = (OutputFolders.below(Path(folder) / name) for name in ("whole", "killed"))
        _train(run.model_dump(mode="json"), whole, str(device))
        process = multiprocessing.get_context("spawn").Process(
            target=_child, args=(run.model_dump(mode="json"), killed, str(device))
        )
        process.start()
        deadline, path = time.monotonic() + _PATIENCE, checkpoint_path(killed.checkpoints, run.id)
        while process.is_alive() and not path.exists() and time.monotonic() < deadline:
            time.sleep(_POLL)
        process.kill()
        process.join()
        if record_path(killed.results, run.id).exists() or not path.exists():
            return Finding("kill and resume", run.network.name, False, note="no checkpoint was there to be killed at")
        _train(run.model_dump(mode="json"), killed, str(device))
        weights = [_weights(folders, run) for folders in (whole, killed)]
    error = _apart(weights[1], weights[0])
    allowed = 0.0 if device.type == "cpu" else _allowed("fp32", device)[0]
    return Finding.of(
        "kill and resume",
        run.network.name,
        error,
        allowed,
        "weights; bit-identical on a CPU" if not allowed else "weights",
    )


def _weights(folders: OutputFolders, run: Run) -> list[Tensor]:
    from safetensors.torch import load_file

    return [x for _, x in sorted(load_file(folders.weights / f"{run.id}.safetensors").items()) if x.is_floating_point()]


def _train(run: dict[str, Any], folders: OutputFolders, device: str) -> None:
    places = {"results": folders.results, "weights": folders.weights, "checkpoints": folders.checkpoints}
    made = train(
        Run.model_validate(run),
        **places,
        device=device,
        precision="fp32",
        execution="eager",
        progress=False,
        checkpoint_every=0.0,
    )
    if made.record is None:
        raise ThriftyError(f"stopped by {made.stopped}")


def _child(run: dict[str, Any], folders: OutputFolders, device: str) -> None:
    follow_parent()
    _train(run, folders, device)


def _driver() -> str:
    try:
        return re.search(r"\d{3}\.\d[\d.]*", Path("/proc/driver/nvidia/version").read_text())[0]
    except (OSError, TypeError):  # no such file, or without a number
        return "unknown"
