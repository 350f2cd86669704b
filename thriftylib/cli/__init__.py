"""The ``thrifty`` command. Each module here but ``app`` is one of its commands, named after it."""

import os
import sys

from thriftylib.cli.app import FAILED, app
from thriftylib.escaping import tell


def main() -> None:
    """What the console script calls."""
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
