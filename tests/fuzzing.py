"""Files and commands as nobody should write them: made at random from good ones, read as the package reads them.

Each of :data:`KINDS` makes a reader of one kind of input. Called with a random generator it changes a good input, reads
it, and returns what came of it: ``refused`` in one line, or ``accepted``, where what was read says what the input says.
An input that is accepted though it says something else is ``silent``; an error that is none of ours is ``traceback``;
more than ten seconds are ``hang``. The last three are faults.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_data import TEST, TRAIN, WRITERS, part_of
from typer.testing import CliRunner

from thriftylib.cli import app
from thriftylib.datasets import releases
from thriftylib.datasets.facts import DATASETS
from thriftylib.datasets.load import load
from thriftylib.errors import ThriftyError
from thriftylib.evidence.claims_files import load_claims_file
from thriftylib.evidence.records import load_record, load_records
from thriftylib.paths import claims_dir, results_dir, weights_dir
from thriftylib.running import parameters
from thriftylib.running.notebooks import check_parameters, notebooks
from thriftylib.spec import Data, Run
from thriftylib.training.checkpoint import load_checkpoint
from thriftylib.training.engine import train
from thriftylib.training.finishing import rebuild

FAULTS = ("silent", "traceback", "hang")
Case = Callable[[random.Random], str]
SECONDS = 10
SMALL = Run.model_validate(
    {
        "network": {"name": "thriftynet", "options": {"filters": 8, "iterations": 4, "pool": 2, "history": 3}},
        "data": {"name": "digits", "train_images": 400, "test_images": 100},
        "recipe": {
            "name": "reliability", "epochs": 1, "batch_size": 50, "learning_rate": 0.1, "weight_decay": 5e-4,
            "schedule": {"kind": "one-cycle"}, "augment": {"crop": 1, "flip": False},
        },
        "seed": 0,
    }
)  # fmt: skip


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Other bytes: some changed, cut off, left out, put in, or said twice."""
    made = content
    while made == content:
        at, length = rng.randrange(len(content)), rng.randint(1, 16)
        before, after = content[:at], content[at + length :]
        match rng.choice(["change", "change", "cut", "omit", "insert", "double"]):
            case "change":
                made = before + rng.randbytes(length) + after
            case "cut":
                made = before
            case "omit":
                made = before + after
            case "insert":
                made = before + rng.randbytes(length) + content[at:]
            case "double":
                made = content[: at + length] + content[at:]
    return made


def misspelt(word: str, rng: random.Random) -> str:
    """A word with one letter more, less, or another one."""
    at = rng.randrange(len(word) + 1)
    return word[:at] + rng.choice(["", "x", "Q", "_", "-"]) + word[at + rng.randint(0, 1) :] + rng.choice(["", "z"])


def disordered(content: Any, rng: random.Random) -> Any:
    """A JSON value with one of its parts renamed, left out, added, or of another type or size."""
    made = json.loads(json.dumps(content))
    nodes, place = [made], 0
    while place < len(nodes):
        node = nodes[place]
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        nodes += [each for each in children if isinstance(each, dict | list) and each]
        place += 1
    node = rng.choice(nodes)
    key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    odd = [None, True, -1, 0, 1e308, 1e30, "", "x", [], {}, [[]], {"x": 1}, "\u202e", str(node[key]), "1", 0.5, -0.0]
    match rng.choice(["rename", "omit", "add", "replace", "replace", "replace"]):
        case "rename" if isinstance(node, dict):
            node[misspelt(str(key), rng)] = node.pop(key)
        case "omit":
            del node[key]
        case "add" if isinstance(node, dict):
            node[rng.choice(["x", "", "seed", "name", "network"])] = rng.choice(odd)
        case _:
            node[key] = rng.choice(odd)
    return made


def says(read: Any, written: Any) -> bool:
    """Whether a value that was read says all that was written; what it says beyond are defaults."""
    if isinstance(written, dict):
        return isinstance(read, dict) and all(key in read and says(read[key], value) for key, value in written.items())
    if isinstance(written, list):
        return isinstance(read, list) and len(read) == len(written) and all(map(says, read, written))
    return type(read) is type(written) and read == written or (
        isinstance(read, int | float) and isinstance(written, int | float)
        and not isinstance(read, bool) and not isinstance(written, bool) and read == written
    )  # fmt: skip


def _texts(folder: Path, name: str, content: Any, read: Callable[[Path], Any]) -> Case:
    """JSON: disordered, or damaged bytes; read back it must say what it said."""
    path, text = folder / name, json.dumps(content).encode()

    def case(rng: random.Random) -> str:
        made = json.dumps(disordered(content, rng)).encode() if rng.random() < 0.7 else damaged(text, rng)
        path.write_bytes(made)
        found = read(path)
        return "accepted" if says(found, json.loads(made)) else "silent"

    return case


def records(folder: Path) -> Case:
    """Records of the repository."""
    chosen = [record for record in load_records(results_dir()) if record.epochs and record.epochs < 30][:20]
    cases = []
    for record in chosen:
        content = json.loads((results_dir() / "runs" / f"{record.id}.json").read_text("utf-8"))
        read = lambda path: load_record(path).model_dump(mode="json")  # noqa: E731
        cases.append(_texts(folder, f"{record.id}.json", content, read))
    return lambda rng: rng.choice(cases)(rng)


def run_files(folder: Path) -> Case:
    """Runs that are asked for, as ``thrifty train RUN.json`` reads them."""
    from thriftylib.cli.train import _read_run

    return _texts(
        folder, "run.json", SMALL.model_dump(mode="json"), lambda path: _read_run(path).model_dump(mode="json")
    )


def claims_files(folder: Path) -> Case:
    """Claims files: bytes damaged, which may still be good YAML; or a key misspelt, which may not."""
    texts = {path.name: path.read_text("utf-8") for path in claims_dir().glob("*.yaml")}
    smallest = sorted(texts, key=lambda name: len(texts[name]))[:2]

    def case(rng: random.Random) -> str:
        name = rng.choice(smallest)
        text = texts[name]
        if is_key := rng.random() < 0.5:
            key = rng.choice(list(re.finditer(r"(?m)^[- ]*([a-z_]+):", text)))
            other = misspelt(key[1], rng)
            made = (text[: key.start(1)] + other + text[key.end(1) :]).encode()
            is_key = other != key[1]
        else:
            made = damaged(text.encode(), rng)
        (folder / name).write_bytes(made)
        load_claims_file(folder / name)
        return "silent" if is_key else "accepted"

    return case


def checkpoints(folder: Path) -> Case:
    """Checkpoints with other bytes: none may be trained on."""
    train(SMALL, results=folder, checkpoints=folder / "c", threads=1, progress=False, budget=0.0)
    path = next(folder.glob("c/*.safetensors"))
    whole = path.read_bytes()

    def case(rng: random.Random) -> str:
        path.write_bytes(damaged(whole, rng))
        load_checkpoint(path, SMALL.id)
        return "silent"

    return case


def weights(folder: Path) -> Case:
    """Weight files of the repository with other bytes: none may be shown as a record's."""
    chosen = [record for record in load_records(results_dir()) if record.weights and record.weights.bytes < 30_000][:5]

    def case(rng: random.Random) -> str:
        record = rng.choice(chosen)
        (folder / record.weights.file).write_bytes(damaged((weights_dir() / record.weights.file).read_bytes(), rng))
        rebuild(record, folder)
        return "silent"

    return case


def data_files(folder: Path) -> Case:
    """Files of data sets whose checksum nobody knows: what is read has as many images and classes as it must."""
    patch, cases = pytest.MonkeyPatch(), []
    patch.setattr(releases, "MD5", {})
    for kind, (name, files) in WRITERS.items():
        if kind == "stl10-split":
            continue
        info = dataclasses.replace(DATASETS[name], train=TRAIN, test=TEST)
        patch.setitem(DATASETS, name, info)
        for path, content in files(folder / kind, part_of(info, TRAIN, 1), part_of(info, TEST, 2)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            cases.append((name, folder / kind, path, content, info))

    def case(rng: random.Random) -> str:
        name, root, path, content, info = rng.choice(cases)
        path.write_bytes(damaged(content, rng))
        try:
            found = load(Data(name=name), root=root)
        finally:
            path.write_bytes(content)
        for part, count in ((found.train, TRAIN), (found.test, TEST)):
            is_whole = tuple(part.images.shape) == (count, *info.image_shape) and len(part.labels) == count
            if not is_whole or not 0 <= int(part.labels.min()) <= int(part.labels.max()) < len(info.classes):
                return "silent"
        return "accepted"

    return case


def commands(folder: Path) -> Case:
    """Command lines with a misspelt word: an exit code of 2, and one line."""
    lines = (
        "cost thriftynet filters=8 iterations=4 pool=2 history=3", "cost smallnet kernel=3 image=3x32x32",
        "list datasets", "list networks", "status thriftynet", "show thriftynet/abstract/cifar10",
        "train thriftynet-size-cifar10 --preset smoke --seeds 0 --device cpu --where filters=8",
        "plan thriftynet-size-cifar10 --preset smoke --seeds 0 --device cpu", "data mnist", "check thriftynet",
        "run thriftynet-size --preset smoke --device cpu",
    )  # fmt: skip

    def case(rng: random.Random) -> str:
        words = rng.choice(lines).split()
        at = rng.randrange(len(words))
        parts = re.split("(=)", words[at])
        which = rng.choice(range(0, len(parts), 2))
        parts[which] = misspelt(parts[which], rng)
        changed = "".join(parts)
        is_same = changed == words[at]
        words[at] = changed
        with pytest.MonkeyPatch.context() as patch:  # what would train or execute ends at once, with 0
            patch.setattr("thriftylib.running.execute._train", lambda *_: None)
            patch.setattr("thriftylib.running.notebooks.Pool.start", lambda *_: sys.exit(0))
            result = CliRunner().invoke(app, words, env={"HOME": str(folder)})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if "Traceback" in result.output:
            raise RuntimeError(result.output)
        if result.exit_code == 0:
            is_number, is_told = re.fullmatch(r"\d+(x\d+)*", parts[which]), bool(result.stderr)
            if is_same or is_number or is_told:
                return "accepted"
            raise Silent(" ".join(words))
        return "refused"

    return case


def notebook_parameters(folder: Path) -> Case:
    """Parameters of notebooks: an unknown name, a misspelt choice or another type."""
    known = {}
    for path in notebooks().values():
        first = next(cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code")
        known[path] = parameters.parse("".join(first["source"]))

    def case(rng: random.Random) -> str:
        path = rng.choice(list(known))
        name = rng.choice(list(known[path]))
        of = known[path][name]
        if rng.random() < 0.5:
            other = misspelt(name, rng)
            check_parameters(path, {other: of.default})
            return "accepted" if other in known[path] else "silent"
        odd = rng.choice(["\0", [], {}, 1.5, None, misspelt(str(of.default or "x"), rng)])
        check_parameters(path, {name: odd})
        is_formed = name not in ("device", "seeds", "budget") or odd in (
            "",
            of.default,
        )  # other texts the notebook itself reads
        is_right = odd in of.choices if of.choices else isinstance(odd, type(of.default)) and is_formed
        if not is_right:
            raise Silent(f"{path.stem} {name}={odd!r}")
        return "accepted"

    return case


KINDS: dict[str, Callable[[Path], Case]] = {
    "records": records,
    "run files": run_files,
    "claims files": claims_files,
    "checkpoints": checkpoints,
    "weight files": weights,
    "data files": data_files,
    "command lines": commands,
    "notebook parameters": notebook_parameters,
}


class Silent(Exception):
    """It was accepted, and should not have been."""


class Hang(BaseException):
    """It took too long."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises ``Hang`` after that time; on the main thread."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(kind: str, count: int, folder: Path, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How many of ``count`` inputs of a kind had which outcome, and what the faults were."""
    folder.mkdir(parents=True, exist_ok=True)
    case, outcomes, faults = KINDS[kind](folder), Counter(), []
    for number in range(count):
        try:
            with at_most(SECONDS):
                outcome, told = case(random.Random(f"{kind}-{seed}-{number}")), ""
        except ThriftyError as error:
            outcome, told = ("refused", "") if "\n" not in str(error) else ("traceback", f"two lines: {error}")
        except Silent as error:
            outcome, told = "silent", str(error)
        except Hang:
            outcome, told = "hang", "too long"
        except Exception as error:
            outcome, told = "traceback", f"{type(error).__name__}: {error}"
        outcomes[outcome] += 1
        if outcome in FAULTS:
            faults.append(f"{kind} {number} {outcome} {told}"[:300])
    return outcomes, faults
