"""The same trainings on PyTorch's operators and on our kernels: does the speed cost accuracy?

``THRIFTY_DATA=... python tests/agreement.py FOLDER`` trains a ThriftyNet of 32 filters and 20 iterations on
10,000 images of CIFAR-10 by a short recipe, from three seeds each way (half an hour on one core), and writes
``data/results/agreement.json``, which the reliability page shows. FOLDER holds records and checkpoints: the same
command goes on where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from thriftylib.evidence.records import Record, write_json
from thriftylib.experiments.thriftynet_recipes import FAST
from thriftylib.paths import results_dir
from thriftylib.spec import Data, Named, Recipe, Run
from thriftylib.training import engine, fast_path

FILE = "agreement.json"
SEEDS, EPOCHS, IMAGES = range(3), 6, 10_000
WAYS = {"plain": "PyTorch’s operators", "kernels": "our kernels"}


def run_of(recipe: Recipe, seed: int, data: Data | None = None, **options: int) -> Run:
    """A ThriftyNet by the recipe, shortened."""
    recipe = recipe.model_copy(update={"name": f"{recipe.name}-{EPOCHS}-epochs", "epochs": EPOCHS})
    network = Named(name="thriftynet", options={"filters": 32, "iterations": 20, "pool": 4, "history": 5, **options})
    return Run(network=network, data=data or Data(name="cifar10", train_images=IMAGES), recipe=recipe, seed=seed)


def train(run: Run, way: str, folder: Path) -> Record:
    """Train it one way, on one thread; raises where it was not this way."""
    places = {"results": folder / way, "checkpoints": folder / way / "checkpoints"}
    given = fast_path.accelerate
    if way == "plain":
        fast_path.accelerate = lambda network, *_: network
    try:
        record = engine.train(run, device="cpu", threads=1, **places).record
    finally:
        fast_path.accelerate = given
    if record is None:
        sys.exit(3)  # a signal came
    ran = {session.fast for session in record.sessions}
    if (ran == {None}) != (way == "plain"):
        raise RuntimeError(f"{way}: ran {ran}")
    return record


def compare(runs: list[Run], folder: Path) -> dict[str, object]:
    """The record: accuracies by way, a number for each seed."""
    made = {way: [train(run, way, folder) for run in runs] for way in WAYS}
    rows = [
        {
            "what": WAYS[way],
            "best": [record.best_accuracy for record in records],
            "last": [record.final_accuracy for record in records],
        }
        for way, records in made.items()
    ]
    recipe = runs[0].recipe
    data = runs[0].data
    images = f"{data.train_images:,} images of " if data.train_images else ""
    what = f"{runs[0].network.name} {runs[0].network.options} on {images}{data.name}, {recipe.name}"
    return {"what": what, "versions": {"torch": torch.__version__}, "rows": rows}


if __name__ == "__main__":
    write_json(compare([run_of(FAST, seed) for seed in SEEDS], Path(sys.argv[1])), results_dir() / FILE)
