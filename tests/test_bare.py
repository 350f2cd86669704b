"""A bare GPU box: what ``book/run.md`` says to carry is enough to plan, train and bring records home.

A child process sees no other package than those and what they require.
"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BLOCK = """
import importlib.machinery, json, sys
blocked = set(json.loads({blocked!r}))

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else super().find_spec(name, path, target)

sys.meta_path = [Bare if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
from thriftylib.cli import main
sys.argv = ["thrifty", *{arguments!r}]
main()
"""


def carried():
    """The packages that the page names, each on a line of its own with what it is for."""
    text = (ROOT / "book" / "run.md").read_text("utf-8")
    part = text[text.index("## On a GPU box without internet") :]
    return [canonicalize_name(name) for name in re.findall(r"^\| `([\w-]+)` \|", part, flags=re.MULTILINE)]


def closure(names):
    """Packages with all that they require here."""
    found, todo = set(), list(names)
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in found:
            try:
                listed = map(Requirement, requires(name) or [])
            except PackageNotFoundError:
                continue
            found.add(name)
            todo += [each.name for each in listed if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


def run_bare(*arguments):
    tops = packages_distributions()
    there = closure(carried())
    blocked = [top for top, owners in tops.items() if not {canonicalize_name(owner) for owner in owners} & there]
    code = BLOCK.format(blocked=json.dumps([top for top in blocked if top != "thriftylib"]), arguments=arguments)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_what_the_page_says_to_carry_is_enough(tmp_path):
    there = closure(carried())
    assert {"torch", "torchvision", "pydantic"} <= there
    assert not {"pandas", "matplotlib", "seaborn", "jupyter-book", "ipykernel", "papermill"} & there
    arguments = ["--preset", "smoke", "--budget", "5m", "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]
    trained = run_bare("train", "thriftynet-size-cifar10", "-w", "filters=8", "-w", "iterations=4", *arguments)
    assert trained.returncode == 0, trained.stderr
    assert len(list((tmp_path / "runs").glob("*.json"))) == len(list((tmp_path / "weights").glob("*"))) == 1
    home = run_bare("adopt", "--check-only", str(tmp_path))
    assert "a smoke test on digits, which answers no claim" in home.stderr


def test_other_packages_are_not_there():
    blocked = run_bare("bench", "entropy")
    assert blocked.returncode == 2
    assert blocked.stderr == "thrifty: bench entropy needs scikit-image: pip install scikit-image\n"
