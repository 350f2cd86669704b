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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from thriftylib.errors import BusyError, ThriftyError
from thriftylib.evidence.consistency import check_utc
from thriftylib.evidence.records import Session
from thriftylib.paths import check_writable, write_atomically
from thriftylib.training.device import Precision, device_name
from thriftylib.training.provenance import provenance, versions

_BEAT = 1.0  # seconds between two touches
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, ThriftyError)


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


def differences(before: Session, now: Session) -> str:
    """What of code and machine changed between two sessions, in one line; empty: nothing."""
    pairs = {
        name: (getattr(before, name), getattr(now, name))
        for name in ("commit", "device", "threads", "versions", "fast")
    }
    return "; ".join(f"{name} was {old}, is {new}" for name, (old, new) in pairs.items() if old != new)


@dataclass
class Trace:
    """The description that a session leaves while it lasts: the run's sessions so far, itself the last."""

    path: Path
    killed: list[Session] = field(default_factory=list)  # the sessions up to one that was killed
    last_seen: float = 0.0  # when that was, in seconds since 1970
    touched: float = field(default_factory=time.monotonic)
    lost: bool = False  # the work is in no checkpoint: the description stays for the next session

    def describe(self, sessions: Sequence[Session]) -> None:
        """Write down who trains, and the sessions so far."""
        who = {"pid": os.getpid(), "host": socket.gethostname()}
        content = {"process": who, "sessions": [session.model_dump(mode="json") for session in sessions]}
        write_atomically(self.path, json.dumps(content).encode())

    def beat(self) -> None:
        """Still training."""
        if time.monotonic() - self.touched > _BEAT:
            self.touched = time.monotonic()
            with suppress(OSError):  # somebody tidied up: no reason to stop
                os.utime(self.path)

    def read(self) -> str:
        """Take over what an earlier session left; returns the process that it names."""
        try:
            content = json.loads(self.path.read_text("utf-8"))
            sessions = [Session.model_validate(each) for each in content["sessions"]]
            for session in sessions:
                check_utc("started", session.started)
            self.killed, self.last_seen = sessions, self.path.stat().st_mtime
            return f"process {content['process']['pid']} on {content['process']['host']}"
        except _UNREADABLE:
            return "another process"


@contextmanager
def alone(folder: Path, run_id: str) -> Iterator[Trace]:
    """The right to train a run with its results in ``folder``, for as long as the context lasts.

    Raises:
        BusyError: another process has it; names the process.
        ThriftyError: nothing can be written there.
    """
    locks = folder / "locks"
    trace = Trace(locks / f"{run_id}.json")
    lock = FileLock(locks / f"{run_id}.lock")
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"run {run_id}: {trace.read()} is training it in {folder}; wait for it, or give another folder"
        ) from None
    except OSError as error:
        raise ThriftyError(f"{locks}: cannot be written ({error.strerror}); give another folder for results") from None
    try:
        check_writable(trace.path)
        trace.read()
        trace.describe(trace.killed)  # who trains from now on
        if trace.killed:
            os.utime(trace.path, (trace.last_seen, trace.last_seen))
        yield trace
        if not trace.lost:
            trace.path.unlink(missing_ok=True)
    finally:
        lock.release()


def with_lost_work(sessions: Sequence[Session], saved: float, trace: Trace) -> list[Session]:
    """The sessions of a checkpoint that was saved at ``saved``, with what kills threw away.

    A session that the checkpoint does not know gave nothing to it: all of its time is lost.
    """
    held = {session.started: session for session in sessions}
    found = []
    for session in trace.killed:
        lost = session.lost_seconds + (0.0 if session.started in held else session.seconds)
        if session is trace.killed[-1]:
            since = saved if session.started in held else datetime.fromisoformat(session.started).timestamp()
            lost += max(0.0, trace.last_seen - since)
        kept = held.get(session.started) or session.model_copy(update={"seconds": 0.0})
        found.append(kept.model_copy(update={"lost_seconds": round(lost, 1)}))
    return found or list(sessions)
