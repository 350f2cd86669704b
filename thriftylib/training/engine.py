"""How any network is trained: the one loop behind every record, from the data to the record.

:func:`train` reads from top to bottom: lock, data, network, epochs, checkpoints, the kept network, the record. One step
and one epoch are :class:`thriftylib.training.trainer.Trainer`'s.

The order of images, their augmentation and every other random number come from streams named by run, epoch and batch
(:mod:`thriftylib.training.streams`), and the learning rate from the finished epochs alone. So a checkpoint holds
weights, momentum and counters, and a run that is killed at any step ends, on a CPU with a fixed number of threads,
bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from thriftylib.datasets.load import load
from thriftylib.errors import CheckpointError, SpecError
from thriftylib.escaping import tell
from thriftylib.evidence.records import Record, Session, load_record, record_path, save_record
from thriftylib.paths import check_writable, results_dir, weights_dir
from thriftylib.spec import Run
from thriftylib.training import fast_path
from thriftylib.training.checkpoint import ANEW, checkpoint_path, load_checkpoint, save_checkpoint, set_aside
from thriftylib.training.device import check_memory, choose_device, choose_precision, keep_freed_memory
from thriftylib.training.execution import Execution
from thriftylib.training.finishing import find_parent, keep, make_record, save_weights
from thriftylib.training.hooks import as_network, as_numbers
from thriftylib.training.progress import Progress
from thriftylib.training.provenance import provenance
from thriftylib.training.sessions import Trace, alone, begin, differences, with_lost_work
from thriftylib.training.signals import collect_signals
from thriftylib.training.trainer import Trainer, build

provenance()  # now: a commit made later, while this process trains, is not the code that it has loaded


@dataclass(frozen=True)
class Trained:
    """What a call of :func:`train` came to: a finished run's record; or none yet, and a checkpoint to go on from.

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
    execution: Execution = "auto",
    threads: int | None = None,
    progress: bool = True,
    checkpoint_every: float = 120.0,
    anew: bool = False,
) -> Trained:
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
        execution: of steps; see :mod:`thriftylib.training.execution`. No part of the run; the record says what ran.
        threads: of a CPU; None: as PyTorch is set. The last digits depend on it, so the record states it.
        progress: report on standard error.
        checkpoint_every: seconds between checkpoints.
        anew: set a checkpoint aside that cannot be gone on from, and start at the first step.

    Raises:
        BusyError: another process trains the run in the same folder.
        CheckpointError: the checkpoint is another run's, unreadable, or of another precision.
        SpecError: the network costs something else than its closed form says.
        OutputError: nothing can be written in one of the folders; before the first step.
        ThriftyError: the data, the device or the parent's weights cannot be used.
    """
    deadline = None if budget is None else time.monotonic() + budget
    where = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if where.type == "cpu":
        keep_freed_memory()
    session = begin(where, choose_precision(precision, where))
    dataset = load(run.data, root=data, device=where, seed=run.seed)
    generators = torch.random.fork_rng(devices=[where] if where.type == "cuda" else [])
    with generators, collect_signals() as signals, alone(results, run.id) as trace:
        if (path := record_path(results, run.id)).exists():  # another process has just finished it
            return Trained(load_record(path))
        folders = [(results, weights or results / "weights"), (results_dir(), weights_dir())]
        parent = find_parent(run, folders) if run.parent else None
        if run.recipe is None:
            check_writable(record_path(results, run.id))
            began = time.monotonic()
            method, network = build(run, parent)
            network = network.to(where, memory_format=torch.channels_last).eval()
            measured = as_numbers("measure", method.measure(network, dataset), lists=True)
            session = session.model_copy(update={"seconds": time.monotonic() - began})
            record = make_record(run, [session], measured)
            save_record(record, results)
            return Trained(record, "signal" if signals else None)

        if not run.method:  # a method may train another network
            least = run.recipe.batch_size * run.cost.activation_bytes() / 8  # in bf16, and some computed anew
            check_memory(where, least + 3 * run.cost.weight_bytes())
        # The network, prepared by its method, at its first step or where a checkpoint left it.
        fresh = partial(Trainer, run, dataset, where, session.precision, parent, execution)
        trainer = fresh()
        path = checkpoint_path(checkpoints, run.id) if checkpoints else None
        aside = None
        try:
            earlier = _resume(trainer, path, trace)
        except CheckpointError:
            if not anew:
                raise
            aside, trainer = set_aside(path), fresh()
            earlier = _resume(trainer, path, trace)
        resumed_at = trainer.seconds
        session = session.model_copy(update={"fast": fast_path.describe(trainer.network)})
        trace.describe([*earlier, session])

        def sessions() -> list[Session]:
            seconds, execution = trainer.seconds - resumed_at, trainer.executor.describe()
            return [*earlier, session.model_copy(update={"seconds": seconds, "execution": execution})]

        def save() -> str:
            """Write a checkpoint; returns why that failed, which ends no training, or nothing."""
            tensors, values = trainer.state()
            values |= {"sessions": [each.model_dump(mode="json") for each in sessions()], "saved": time.time()}
            try:
                save_checkpoint(path, run.id, tensors, values)
            except (OSError, TypeError, ValueError, RuntimeError) as error:
                return getattr(error, "strerror", None) or " ".join(str(error).split())
            return ""

        # What cannot be written is found now, and not after the last epoch.
        tensors, values = trainer.state()
        size = 2 * sum(x.numel() * x.element_size() for x in tensors.values())
        try:
            json.dumps(values)
        except (TypeError, ValueError) as error:
            raise SpecError(f"run {run.id}: its method's state is no JSON ({error})") from None
        for place in filter(None, (path, weights and weights / f"{run.id}.safetensors", record_path(results, run.id))):
            check_writable(place, size + 2**16)

        # All epochs, step by step; each epoch ends with an evaluation.
        with Progress(run, trainer.steps * run.epochs, trainer.position, shown=progress) as shown:
            if where.type == "cpu" and (hint := fast_path.hint(trainer.network)):
                shown.say(hint)
            if trainer.executor.why:
                shown.say(trainer.executor.why)
            if aside:
                shown.say(f"starts anew: the checkpoint that it cannot go on from is {aside}")
            if earlier and (changed := differences(earlier[-1], session)):
                shown.say(f"goes on elsewhere than it stopped: {changed}")
            saved = time.monotonic()
            while not trainer.finished:
                trainer.step(shown)
                trace.beat()
                now = time.monotonic()
                stopped = "signal" if signals else "budget" if deadline and now >= deadline else None
                fault = ""
                if path and not trainer.finished and (stopped or now - saved >= checkpoint_every):
                    if fault := save():
                        shown.say(f"its checkpoint could not be written ({fault}): {path}")
                    saved = time.monotonic()
                if stopped and not trainer.finished:
                    then = "the same command goes on from its checkpoint" if path else "it starts anew: no checkpoints"
                    if fault:
                        then = "the same command goes on from its last checkpoint, or starts anew where there is none"
                    shown.say(f"stopped by {stopped} in epoch {trainer.epoch + 1}/{run.epochs}; {then}")
                    trace.lost = path is None or bool(fault)
                    return Trained(None, stopped)
        if path and (fault := save()):  # should the method fail at its end, the training is not lost
            tell(f"run {run.id}: its checkpoint could not be written ({fault}): {path}")

        # What is kept: the network as its method finishes it, its weights, its accuracy, its measured numbers.
        began = time.monotonic()
        network = fast_path.restore(trainer.network).eval()
        network = as_network("finish", trainer.method.finish(network, dataset))
        tensors = {name: x.detach().cpu().contiguous().clone() for name, x in network.state_dict().items()}
        kept = keep(run, network, dataset, where, session.precision)
        measured = as_numbers("measure", trainer.method.measure(network.eval(), dataset), lists=True)
        trainer.other_seconds += time.monotonic() - began
        record = make_record(
            run,
            sessions(),
            measured,
            series=trainer.series,
            diverged=trainer.diverged,
            images_per_second=trainer.images_per_second,
            weights=save_weights(tensors, weights, run.id) if weights else None,
            kept=kept,
        )
        save_record(record, results)
        if path:
            path.unlink(missing_ok=True)
        return Trained(record, "signal" if signals else None)


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
        raise CheckpointError(f"{path}: lacks {error}; {ANEW}") from None
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path}: does not fit ({' '.join(str(error).split())}); {ANEW}") from None
