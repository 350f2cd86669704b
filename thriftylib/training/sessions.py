"""Sessions: who trains a run, from when to when, and that nobody else does at the same time.

A session is one call that trains a run. While it lasts it holds the run's lock in the folder of the results, and
leaves its description beside it, touched as training goes on. A session that is killed cannot say so. But the next one
finds the description, and so knows what code and machine the lost work was done with, and for how long.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from thriftylib.errors import BusyError, SpecError
from thriftylib.evidence.records import Session
from thriftylib.paths import write_atomically
from thriftylib.training import kernels
from thriftylib.training.device import Precision, device_name
from thriftylib.training.provenance import provenance, versions

_BEAT = 1.0  # seconds between two touches
_COMPARED = ("commit", "device", "threads", "versions", "fast")


def begin(device: torch.device, precision: Precision) -> Session:
    """This call's session before its first step: the code that was loaded, and where it runs."""
    return Session(
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        commit=provenance().commit,
        no_commit=provenance().reason,
        device=device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        versions=versions(),
        seconds=0.0,
    )


def served_by(session: Session, network: nn.Module) -> Session:
    """The session with the fast path that serves its network."""
    return session.model_copy(update={"fast": kernels.describe(network)})


def differences(before: Session, now: Session) -> str | None:
    """What of code and machine changed between two sessions, in one line; None: nothing."""
    changed = [name for name in _COMPARED if getattr(before, name) != getattr(now, name)]
    if not changed:
        return None
    return "; ".join(f"{name} was {_text(getattr(before, name))}, is {_text(getattr(now, name))}" for name in changed)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {number}" for name, number in sorted(value.items()))
    return "none" if value is None else str(value)


@dataclass
class Trace:
    """The description that a session leaves while it lasts."""

    path: Path
    killed: Session | None = None  # the session before, if it was killed
    last_seen: float = 0.0  # when that was, in seconds since 1970
    touched: float = field(default_factory=time.monotonic)

    def describe(self, session: Session) -> None:
        """Write down who trains."""
        who = {"pid": os.getpid(), "host": socket.gethostname()}
        write_atomically(self.path, json.dumps({"process": who, "session": session.model_dump(mode="json")}).encode())

    def beat(self) -> None:
        """Still training."""
        if time.monotonic() - self.touched > _BEAT:
            self.touched = time.monotonic()
            os.utime(self.path)

    def clear(self) -> None:
        """Nothing is lost: the work is in a checkpoint or a record."""
        self.path.unlink(missing_ok=True)


@contextmanager
def alone(folder: Path, run_id: str) -> Iterator[Trace]:
    """The right to train a run with its results in ``folder``, for as long as the context lasts.

    Raises:
        BusyError: another process has it; names the process.
    """
    place = folder / "locks"
    place.mkdir(parents=True, exist_ok=True)
    trace = Trace(place / f"{run_id}.json")
    lock = FileLock(place / f"{run_id}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"run {run_id}: {_holder(trace.path)} is training it in {folder}; wait for it, or give another folder"
        ) from None
    try:
        trace.killed, trace.last_seen = _left_behind(trace.path)
        yield trace
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        process = json.loads(path.read_text("utf-8"))["process"]
        return f"process {process['pid']} on {process['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _left_behind(path: Path) -> tuple[Session | None, float]:
    try:
        session = Session.model_validate(json.loads(path.read_text("utf-8"))["session"])
        return session, path.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError, SpecError):
        return None, 0.0


def with_lost_work(sessions: Sequence[Session], saved: float, trace: Trace) -> list[Session]:
    """The sessions of a checkpoint that was saved at ``saved``, with what a kill threw away afterwards."""
    if trace.killed is None:
        return list(sessions)
    began = datetime.fromisoformat(trace.killed.started).timestamp()
    if sessions and sessions[-1].started == trace.killed.started:
        lost = max(0.0, trace.last_seen - saved)
        return [*sessions[:-1], sessions[-1].model_copy(update={"lost_seconds": round(lost, 1)})]
    lost = max(0.0, trace.last_seen - began)  # it never came to a checkpoint
    return [*sessions, trace.killed.model_copy(update={"seconds": 0.0, "lost_seconds": round(lost, 1)})]
