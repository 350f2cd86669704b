"""A checkout of its own for tests that write into one, and commands that run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_MADE = (".git", ".venv", "local", "_build", "build", "dist", "weights", "__pycache__", ".*_cache", ".hypothesis")


def copy_checkout(folder: Path) -> Path:
    """The project's files without what a machine makes for itself, and without the weights."""
    return Path(shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*_MADE)))


def command(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a checkout, whose package is the one imported; ``thrifty`` and Jupyter are this Python's."""
    start = {
        "thrifty": [sys.executable, "-m", "thriftylib.cli"],
        "jupyter": [sys.executable, "-m", "jupyter"],
        "ruff": [sys.executable, "-m", "ruff"],
    }
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*start[words[0]], *words[1:]], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def files(checkout: Path) -> dict[str, bytes]:
    """Every file of a checkout by its path in it."""
    return {str(path.relative_to(checkout)): path.read_bytes() for path in checkout.rglob("*") if path.is_file()}
