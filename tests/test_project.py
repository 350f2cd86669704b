"""The files around the code agree with one another, and hold nothing of the machine that they were written on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

from thriftylib.cli import app
from thriftylib.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "seaborn-base": "seaborn"}
TEXTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "book").glob("*.md"))]
TEXTS.remove("book/contribute.md")  # its commands are run in test_contribute


def requirements(*extras):
    listed = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(each.name): each.specifier for each in map(Requirement, listed)}


def test_conda_environment_says_what_pyproject_says():
    *packages, pip = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    conda = [Requirement(package) for package in packages]
    found = {canonicalize_name(CONDA_NAMES.get(each.name, each.name)): each.specifier for each in conda}
    assert str(found.pop("python")) == ",".join(sorted(PROJECT["requires-python"].split(",")))
    del found["pip"]
    assert "-e ." in pip["pip"]
    found |= {each.name: each.specifier for each in map(Requirement, pip["pip"][:-1])}
    assert found == requirements("test")


def test_constraints_pin_every_requirement_within_its_bounds():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(each.name): each for each in map(Requirement, lines)}
    assert all(re.fullmatch(r"==[^*+]+", str(pin.specifier)) and pin.url is None for pin in pins.values())
    for name, bounds in requirements("test").items():
        assert name in pins, f"constraints.txt: lacks {name}"
        assert bounds.contains(str(pins[name].specifier).removeprefix("==")), f"constraints.txt: {pins[name]}"


def tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout, so nothing says which files are the project's")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_registry_address_and_no_path_of_this_machine():
    # Written in two halves, so that this file does not hold what it looks for.
    forbidden = ["index-" + "url", "find-" + "links", "pypi.org" + "/simple", "registry." + "npmjs", "file" + ":///"]
    forbidden += [f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found += [f"{path.relative_to(ROOT)}: {text}" for text in forbidden if text.encode() in content]
    assert not found


def test_nothing_large_is_tracked():
    assert not [str(path) for path in tracked_files() if path.stat().st_size > 1_500_000]


def test_citation_names_this_version_and_each_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    bibliography = (ROOT / "book" / "references.bib").read_text("utf-8")
    for reference in citation["references"]:
        assert reference["doi"] in bibliography


def commands(text):
    """The commands of console blocks: what follows a $ at the start of a line, without its comment."""
    return [line[2:].split("  #")[0].split() for line in text.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("name", TEXTS)
def test_commands_in_the_texts_exist(name):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    known = get_command(app)
    for command, *words in commands((ROOT / name).read_text("utf-8")):
        if command == "make":
            assert [word for word in words if "=" not in word][0] in targets
        elif command == "thrifty":
            known.get_command(None, words[0]).make_context(words[0], words[1:])  # refuses an option that is not there
            assert words[0] != "train" or words[1] in {"--plan", *EXPERIMENTS}
        elif command == "papermill":
            assert any((ROOT / word).is_file() for word in words if word.endswith(".ipynb")), words
        else:
            assert command in ("pip", "snakemake", "conda"), command


def test_readme_shows_both_commands():
    shown = [" ".join(words) for words in commands((ROOT / "README.md").read_text("utf-8"))]
    assert {"make book", "make test"} <= set(shown)
