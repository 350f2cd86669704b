"""Every mistake a user can make ends in one of these; the command line prints its one line and no traceback."""

from __future__ import annotations

import os

FAILED, MISTAKE, STOPPED = 1, 2, 3
"""Exit codes: something failed; a user's mistake; stopped early, and the same command goes on."""
DEBUG = "THRIFTY_DEBUG"
"""The environment variable that ``--debug`` sets, for the processes that a command starts too."""


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return bool(os.environ.get(DEBUG))


class ThriftyError(Exception):
    """A mistake that the reader of the message can mend: one line that names what is wrong and what is right.

    Not a ``ValueError``: pydantic would catch that inside a validator and bury the line in its own report.
    """

    exit_code = MISTAKE


class SpecError(ThriftyError):
    """A network option, recipe or run that cannot be: names the field, the value and what is allowed."""


class DataError(ThriftyError):
    """A data set that is missing, truncated or corrupt: names the file, where it was looked for and how to get it."""


class RecordError(ThriftyError):
    """A record, claim or weight file that is corrupt, foreign or inconsistent: names the file and the fault."""


class OutputError(ThriftyError):
    """A place where nothing can be written: names it, and why."""


class BuildError(ThriftyError):
    """The book was not built; the message has the builder's lines."""

    exit_code = FAILED


class DiedError(ThriftyError):
    """A training's process that ended by itself, killed or broken: a failure, and no mistake in the call."""

    exit_code = FAILED


class RunError(ThriftyError):
    """A training that cannot go on, as its method has found; other runs are not concerned."""

    exit_code = FAILED


class BusyError(ThriftyError):
    """A run that another process is training now, in the same folder: names the process."""


class CheckpointError(ThriftyError):
    """A checkpoint that belongs to another run or cannot be read."""


class StoppedError(ThriftyError):
    """A training that stopped early, by its budget or a signal: the same command goes on."""

    exit_code = STOPPED
