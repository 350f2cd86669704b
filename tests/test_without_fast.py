"""The package without ``thriftylib/fast``: the plain path needs nothing of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"thriftylib/training/fast_path.py"}
TESTS = ("test_engine.py", "test_kept.py")  # whole trainings: resumed, narrowed, expanded, kept, measured


def test_nothing_else_imports_it():
    imports = re.compile(r"^\s*(from|import) thriftylib\.fast\b", re.MULTILINE)
    paths = [path for path in (ROOT / "thriftylib").rglob("*.py") if "fast" not in path.relative_to(ROOT).parts]
    found = {path.relative_to(ROOT).as_posix() for path in paths if imports.search(path.read_text())}
    assert found == MAY_IMPORT


def test_the_plain_path_passes_its_tests_without_it(tmp_path):
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "thriftylib",
            "tests",
            "data",
            "pyproject.toml",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    for name in listed.stdout.splitlines():
        if not name.startswith("thriftylib/fast/") and (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not fast",
        "-k",
        "not killed_process",
        "-p",
        "no:cacheprovider",
    ]
    command += [str(tmp_path / "tests" / name) for name in TESTS]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 50
