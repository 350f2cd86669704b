"""How any network is trained: the one loop behind every record.

The order of images, their augmentation and every other random number come from streams named by run, epoch and batch
(:mod:`thriftylib.training.streams`), and the learning rate from the finished epochs alone. So a checkpoint holds
weights, momentum and counters, and a run that is killed at any step ends, on a CPU with a fixed number of threads,
bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from thriftylib.datasets.load import Dataset, load
from thriftylib.errors import CheckpointError
from thriftylib.evidence.records import Record, Session, load_record, record_path, save_record
from thriftylib.evidence.series import SERIES
from thriftylib.method import Parent
from thriftylib.paths import results_dir, weights_dir
from thriftylib.spec import Run
from thriftylib.training import fast_path
from thriftylib.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from thriftylib.training.device import choose_device, choose_precision, keep_freed_memory
from thriftylib.training.finishing import find_parent, keep, make_record, save_weights, weights_of
from thriftylib.training.measured import plain
from thriftylib.training.progress import Report
from thriftylib.training.provenance import provenance
from thriftylib.training.sessions import Trace, alone, begin, differences, served_by, with_lost_work
from thriftylib.training.signals import collect_signals
from thriftylib.training.trainer import Trainer, is_network, start

provenance()  # now: a commit made later, while this process trains, is not the code that it has loaded


@dataclass(frozen=True)
class Outcome:
    """A finished run's record; or none yet, and a checkpoint to go on from.

    ``stopped`` is also "signal" where one came while a finished training was counted and measured.
    """

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

    A run without a recipe is measured only.

    Args:
        data: folder of the data sets; see :func:`thriftylib.paths.data_root`.
        device: auto, cpu, cuda or cuda:N.
        results: folder that receives the record (``runs/<id>.json``).
        weights: folder that receives the kept network's weights (``<id>.safetensors``); None: not kept.
        checkpoints: folder of checkpoints; None: a killed run starts anew.
        budget: seconds of this call; None: to the end.
        precision: of convolutions and activations; weights, their gradients' sums and batch-norm statistics are fp32.
        threads: of a CPU; None: as PyTorch is set. The last digits depend on it, so the record states it.
        progress: report on standard error.
        checkpoint_every: seconds between checkpoints.

    Raises:
        BusyError: another process trains the run in the same folder.
        CheckpointError: the checkpoint is another run's, unreadable, or of another precision.
        SpecError: the network costs something else than its closed form says.
        ThriftyError: the data, the device or the parent's weights cannot be used.
    """
    deadline = None if budget is None else time.monotonic() + budget
    chosen = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if chosen.type == "cpu":
        keep_freed_memory()
    session = begin(chosen, choose_precision(precision, chosen))
    dataset = load(run.data, root=data, device=chosen, seed=run.seed)
    places = [(results, weights or results / "weights"), (results_dir(), weights_dir())]
    devices = [chosen] if chosen.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), collect_signals() as received, alone(results, run.id) as trace:
        if (path := record_path(results, run.id)).exists():  # another process has just finished it
            return Outcome(load_record(path))
        parent = find_parent(run, places) if run.parent else None
        if run.recipe is None:
            record = _measure(run, dataset, chosen, parent, session, results)
            return Outcome(record, "signal" if received else None)
        trainer = Trainer(run, dataset, chosen, session.precision, parent)
        session = served_by(session, trainer.network)
        path = checkpoint_path(checkpoints, run.id) if checkpoints else None
        before = _resume(trainer, path, trace)
        carried = trainer.seconds
        trace.describe([*before, session])

        def sessions() -> list[Session]:
            return [*before, session.model_copy(update={"seconds": trainer.seconds - carried})]

        def save() -> float:
            values = {"sessions": [each.model_dump(mode="json") for each in sessions()], "saved": time.time()}
            tensors, own = trainer.state()
            save_checkpoint(path, run.id, tensors, own | values)
            return time.monotonic()

        saved = time.monotonic()
        with Report(run, trainer.steps * run.recipe.epochs, trainer.position, shown=progress) as report:
            if chosen.type == "cpu" and (missing := fast_path.hint(trainer.network)):
                report.say(missing)
            if before and (changed := differences(before[-1], session)):
                report.say(f"goes on elsewhere than it stopped: {changed}")
            while not trainer.finished:
                trainer.step(report)
                trace.beat()
                now = time.monotonic()
                stopped = "signal" if received else "budget" if deadline and now >= deadline else None
                if path and not trainer.finished and (stopped or now - saved >= checkpoint_every):
                    saved = save()
                if stopped and not trainer.finished:
                    report.say(f"stopped by {stopped} in epoch {trainer.epoch + 1}/{run.recipe.epochs}; {_next(path)}")
                    trace.lost = path is None
                    return Outcome(None, stopped)
        if path:
            save()  # should the method fail at its end, the training is not lost
        began = time.monotonic()
        network = fast_path.restore(trainer.network).eval()
        network = is_network("finish", trainer.method.finish(network, dataset))
        tensors = weights_of(network)
        kept = keep(run, network, dataset, chosen, session.precision)
        measured = plain("measure", trainer.method.measure(network.eval(), dataset), lists=True)
        trainer.other_seconds += time.monotonic() - began
        record = make_record(
            run,
            trainer.series,
            diverged=trainer.diverged,
            images_per_second=trainer.images_per_second,
            sessions=sessions(),
            weights=save_weights(tensors, weights, run.id) if weights else None,
            kept=kept,
            measured=measured,
        )
        save_record(record, results)
        if path:
            path.unlink(missing_ok=True)
        return Outcome(record, "signal" if received else None)


def _resume(trainer: Trainer, path: Path | None, trace: Trace) -> list[Session]:
    """Go on from a checkpoint, if there is one; returns the sessions before this one."""
    if path is None or not path.exists():
        return with_lost_work([], 0.0, trace)
    tensors, values = load_checkpoint(path, trainer.run.id)
    try:
        trainer.restore(tensors, values)
        sessions = [Session.model_validate(each) for each in values["sessions"]]
        return with_lost_work(sessions, values["saved"], trace)
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error}; delete it to start this run anew") from None


def _measure(
    run: Run, dataset: Dataset, device: torch.device, parent: Parent | None, session: Session, results: Path
) -> Record:
    """A run without a recipe: what its method measures of the prepared network, or of the data alone."""
    began = time.monotonic()
    method, network = start(run, parent)
    network = network.to(device, memory_format=torch.channels_last).eval()
    measured = plain("measure", method.measure(network, dataset), lists=True)
    session = session.model_copy(update={"seconds": time.monotonic() - began})
    series = dict.fromkeys(SERIES, ())
    record = make_record(run, series, diverged=False, images_per_second=0.0, sessions=[session], measured=measured)
    save_record(record, results)
    return record


def _next(path: Path | None) -> str:
    return "the same command goes on from its checkpoint" if path else "without a checkpoint folder it starts anew"
