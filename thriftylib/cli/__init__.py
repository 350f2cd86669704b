"""The ``thrifty`` command. Each module here but ``app`` is one of its commands, named after it."""

import os
import sys

from thriftylib.cli.app import FAILED, app
from thriftylib.escaping import tell


def main() -> None:
    """What the console script calls."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        # Begin again with names of files in UTF-8, as notebooks and records need them, whatever the locale says.
        os.environ["PYTHONIOENCODING"] = getattr(sys.stdout, "encoding", None) or "utf-8"
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "thriftylib.cli", *sys.argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a character shows its number
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    finally:
        try:
            if sys.stdout:
                sys.stdout.flush()
        except OSError as error:
            tell(f"thrifty: standard output: {error.strerror}")
            os._exit(FAILED)
