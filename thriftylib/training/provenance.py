"""Which code trains: the commit of the package's own folder, taken when a process begins and never looked up again."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1]


class Provenance(NamedTuple):
    """A commit, with ``+`` where the package's code differs from it; or None and the reason."""

    commit: str | None
    reason: str


@cache
def provenance(folder: Path = PACKAGE) -> Provenance:
    """The commit of the code in ``folder``, and of nothing else.

    The repository must track the folder: one that is only around it (an installed package in a project's environment)
    says nothing of this code, nor do the working folder or git's environment variables. Code that is neither tracked
    nor ignored counts as a difference, as changed code does.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {"LC_ALL": "C"}

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, env=clean, check=False)

    try:
        tracked = git("ls-files", "--error-unmatch", "--", "__init__.py")
    except OSError:
        return Provenance(None, "git is not installed")
    if "dubious ownership" in tracked.stderr:
        return Provenance(None, "the git repository belongs to another user (git's safe.directory)")
    if tracked.returncode:
        return Provenance(None, "no git repository tracks the package")
    head = git("rev-parse", "--verify", "HEAD")
    if head.returncode:
        return Provenance(None, "the git repository has no commit yet")
    changed = git("status", "--porcelain", "--untracked-files=all", "--", ".")
    return Provenance(head.stdout.strip() + ("+" if changed.returncode or changed.stdout.strip() else ""), "")


@cache
def versions() -> dict[str, str]:
    """What the numbers are made with; the package itself may run from a checkout that nobody installed."""
    found = {"python": platform.python_version()} | {name: version(name) for name in ("torch", "torchvision")}
    try:
        return found | {"thriftylib": version("thriftylib")}
    except PackageNotFoundError:
        return found | {"thriftylib": "not installed"}
