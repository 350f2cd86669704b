"""How any network is trained: the one loop behind every record.

The order of images, their augmentation and every other random number come from streams named by run, epoch and batch
(:mod:`thriftylib.training.streams`), and the learning rate from the finished epochs alone. So a checkpoint holds
weights, momentum and counters, and a run that was killed at any step ends, on a CPU with a fixed number of threads,
with the bits of one that was not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from thriftylib.evidence.records import Record, save_record
from thriftylib.paths import results_dir, weights_dir
from thriftylib.spec import Run
from thriftylib.training import kernels
from thriftylib.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from thriftylib.training.data import load
from thriftylib.training.device import choose_device, choose_precision, keep_freed_memory
from thriftylib.training.outcome import make_record, parent_weights, save_weights
from thriftylib.training.progress import Report
from thriftylib.training.signals import collect_signals
from thriftylib.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """A finished run's record; or, when ``stopped``, none yet and a checkpoint to go on from."""

    record: Record | None
    stopped: Literal["budget", "signal"] | None = None


def train(
    run: Run,
    *,
    data: Path | None = None,
    device: str = "auto",
    results: Path,
    weights: Path | None = None,
    checkpoints: Path | None = None,
    budget: float | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    threads: int | None = None,
    progress: bool = True,
    checkpoint_every: float = 120.0,
) -> Outcome:
    """Train one run to its end, or until the budget or a signal stops it; goes on from a checkpoint if there is one.

    Args:
        data: folder of the data sets; see :func:`thriftylib.paths.data_root`.
        device: auto, cpu, cuda or cuda:N.
        results: folder that receives the record (``runs/<id>.json``).
        weights: folder that receives the final weights (``<id>.safetensors``); None: not kept.
        checkpoints: folder of checkpoints; None: a killed run starts anew.
        budget: seconds of this call; None: to the end.
        precision: of convolutions and activations; weights, their gradients' sums and batch-norm statistics are fp32.
        threads: of a CPU; None: as PyTorch is set. The last digits depend on it, so the record states it.
        progress: report on standard error.
        checkpoint_every: seconds between checkpoints.

    Raises:
        ThriftyError: the data, the device or a checkpoint cannot be used.
    """
    deadline = None if budget is None else time.monotonic() + budget
    chosen = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if chosen.type == "cpu":
        keep_freed_memory()
    dataset = load(run.data, root=data, device=chosen, seed=run.seed)
    with torch.random.fork_rng(devices=[chosen] if chosen.type == "cuda" else []), collect_signals() as received:
        places = [(results, weights or results / "weights"), (results_dir(), weights_dir())]
        start = parent_weights(run, places) if run.parent else None
        trainer = Trainer(run, dataset, chosen, choose_precision(precision, chosen), start)
        path = checkpoint_path(checkpoints, run.id) if checkpoints else None
        if path and path.exists():
            trainer.restore(*load_checkpoint(path, run.id))
        saved = time.monotonic()
        with Report(run, trainer.steps * run.recipe.epochs, trainer.position, shown=progress) as report:
            if chosen.type == "cpu" and (missing := kernels.hint(trainer.network)):
                report.say(missing)
            while not trainer.finished:
                trainer.step(report)
                now = time.monotonic()
                stopped = "signal" if received else "budget" if deadline and now >= deadline else None
                if path and not trainer.finished and (stopped or now - saved >= checkpoint_every):
                    save_checkpoint(path, run.id, *trainer.state())
                    saved = time.monotonic()
                if stopped and not trainer.finished:
                    report.say(f"stopped by {stopped} in epoch {trainer.epoch + 1}/{run.recipe.epochs}; {_next(path)}")
                    return Outcome(None, stopped)
        network = trainer.method.finish(trainer.network)
        kept = save_weights(network, weights, run.id) if weights else None
        record = make_record(
            run,
            trainer.series,
            diverged=trainer.diverged,
            images_per_second=trainer.images_per_second,
            seconds=trainer.train_seconds + trainer.other_seconds,
            device=chosen,
            precision=trainer.precision,
            sittings=trainer.sittings,
            weights=kept,
        )
        save_record(record, results)
        if path:
            path.unlink(missing_ok=True)
        return Outcome(record)


def _next(path: Path | None) -> str:
    return "the same command goes on from its checkpoint" if path else "without a checkpoint folder it starts anew"
