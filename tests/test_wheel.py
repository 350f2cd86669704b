"""The wheel, built from the tree and installed where no checkout is: each command works, or says what it needs."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

import thriftylib.cli

WORKS = ["--help", "cost thriftynet filters=64", "data digits", "doctor --machine"]
WORKS += ["list networks", "list datasets", "list experiments", "bench --help"]
NEEDS_CHECKOUT = ["adopt records", "book", "check ucp", "cost ucp --record", "list", "new tiny_loop", "plan", "run ucp"]
NEEDS_CHECKOUT += ["show ucp", "status", "train thriftynet-abstract --preset smoke --out out", "verify"]
COMMANDS = sorted(m.name for m in pkgutil.iter_modules(thriftylib.cli.__path__) if m.name not in ("app", "__main__"))
CODE = """
import json, sys
from typer.testing import CliRunner
import thriftylib
from thriftylib.cli import app
found = [thriftylib.__file__]
for words in json.load(sys.stdin):
    result = CliRunner().invoke(app, words)
    found.append([words, result.exit_code, result.stdout, result.stderr])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that holds the package of a fresh wheel, built without a network from a copy of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "thriftylib", source / "thriftylib", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--isolated", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *alone, "--no-build-isolation", "--wheel-dir", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *alone, "--no-compile", "--target", target, wheel], check=True)
    return target


def test_the_wheel_holds_every_file_of_the_package(installed):
    def files(root: Path) -> set[str]:
        found = (root / "thriftylib").rglob("*")
        return {str(p.relative_to(root)) for p in found if p.is_file() and "__pycache__" not in p.parts}

    assert files(installed) == files(ROOT)


def test_every_command_works_or_says_in_one_line_what_it_needs(installed, tmp_path):
    named = {call.split()[0] for call in WORKS + NEEDS_CHECKOUT}
    assert set(COMMANDS) <= named, "say above of the new command whether it needs a checkout"
    home, empty = tmp_path / "home", tmp_path / "empty"
    home.mkdir()
    empty.mkdir()
    calls = [call.split() for call in WORKS + NEEDS_CHECKOUT]
    calls = [call for call in calls if call[0] in COMMANDS or call == ["--help"]]
    environment = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    environment |= {"PYTHONPATH": str(installed), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=json.dumps(calls), cwd=empty, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place, *found = json.loads(done.stdout)
    assert Path(place).is_relative_to(installed)
    for words, code, out, err in found:
        if " ".join(words) in WORKS:
            assert code == 0, (words, err)
            assert "Traceback" not in out + err
        else:
            assert (code, out) == (2, ""), words
            assert re.fullmatch(r"thrifty: no checkout here: run this inside a clone of the project .*\n", err), words
    assert not list(empty.iterdir())
