"""What is around the project changes nothing: start-up files, settings, kernels, locale, home folder, the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from checkout import ROOT
from nbclient import NotebookClient

from thriftylib.running import parameters
from thriftylib.running.notebooks import bare_kernels
from thriftylib.running.report import PARAMETERS
from thriftylib.errors import ThriftyError

COMMANDS = (
    "list papers; show thriftynet-size-cifar10 --preset smoke; cost thriftynet filters=64; plan --preset smoke "
    "--device H200; show ucp; status --paper ucp; train --preset smok"
)
CODE = f"""
import sys
from thriftylib.cli import app
for words in {COMMANDS!r}.split(";"):
    try:
        app(words.split())
    except SystemExit as end:
        print("ended with", end.code, flush=True)
"""
HOSTILE = {
    "plain": {},
    "warnings": {"PYTHONWARNINGS": "error"},
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that cannot be written": {"HOME": "/proc", "MPLCONFIGDIR": "/proc/none"},
    "colours": {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "COLUMNS": "20", "TERM": "dumb"},
    "no colours": {"NO_COLOR": "1", "COLUMNS": "1000", "LINES": "1"},
    "time zone": {"TZ": "Asia/Kathmandu"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin-1": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"},
}


def said(environment: dict[str, str | None], folder: Path = ROOT) -> tuple[str, str]:
    """What a few commands print, and what they tell, in one process with this environment."""
    words = {**os.environ, "PYTHONPATH": str(folder), **environment}
    words = {name: value for name, value in words.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=folder, env=words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    coding = "latin-1" if "PYTHONIOENCODING" in environment else "utf-8"
    return done.stdout.decode(coding), done.stderr.decode(coding)
