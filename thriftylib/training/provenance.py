"""Which code trains: the commit of the package's own folder, taken when a process begins and never looked up again."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
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
    tracked = _git(folder, "ls-files", "--error-unmatch", "--", "__init__.py")
    if tracked.returncode:
        why = tracked.stderr.strip().splitlines()
        return Provenance(None, _reason(why[0]) if why else "no git repository tracks the package")
    head = _git(folder, "rev-parse", "--verify", "HEAD")
    if head.returncode:
        return Provenance(None, "the git repository has no commit yet")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", ".")
    return Provenance(head.stdout.strip() + ("+" if changed.returncode or changed.stdout.strip() else ""), "")


@cache
def versions() -> dict[str, str]:
    """What the numbers are made with."""
    packages = {name: version(name) for name in ("torch", "torchvision", "thriftylib")}
    return {"python": platform.python_version(), **packages}


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, env=clean, check=False
        )
    except OSError:
        return subprocess.CompletedProcess(words, 127, "", "git: not installed")


def _reason(said: str) -> str:
    """Git's own words without a path of this machine."""
    if "not installed" in said:
        return "git is not installed"
    if "dubious ownership" in said:
        return "the git repository belongs to another user (git's safe.directory)"
    return "no git repository tracks the package"
