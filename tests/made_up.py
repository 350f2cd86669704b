"""Runs and records made up for tests of the evidence: no network is built, nothing is trained, no torch."""

from __future__ import annotations

from typing import Any

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.claims_files import ClaimsFile
from thriftylib.evidence.records import Counted, Record
from thriftylib.evidence.series import points
from thriftylib.options import NetworkOptions
from thriftylib.schedules import learning_rate, steps_per_epoch
from thriftylib.spec import Run

OPTIONS = {"filters": 32, "iterations": 20, "history_bug": True, "pool": 4}


def run(seed: int = 0, recipe: str = "paper-recipe", epochs: int = 3, options: dict | None = None, **more: Any) -> Run:
    """A run on CIFAR-10 of a network that nobody registered: read back as from a record."""
    return Run.recorded(
        {
            "network": {"name": "made-up", "options": OPTIONS if options is None else options},
            "data": {"name": "cifar10"},
            "recipe": {
                "name": recipe,
                "epochs": epochs,
                "batch_size": 100,
                "learning_rate": 0.1,
                "schedule": {"kind": "constant"},
            },
            "seed": seed,
            **more,
        }
    )


def record(made: Run, best: float = 90.0, final: float = 89.0, **more: Any) -> Record:
    """A record of it: the best accuracy in the last epoch but one, the final one in the last; measure only: neither."""
    if made.recipe is None:
        return from_series(made, [], **more)
    return from_series(made, [*[0.0] * (made.epochs - 2), best, final], **more)


def from_series(made: Run, accuracies: list[float | None], **more: Any) -> Record:
    """A record with these test accuracies, or the nearest that so many test images can give; rates as scheduled."""
    epochs, images = len(accuracies), made.data.test_images or made.data.info.test
    accuracies = [value if value is None else 100 * round(value * images / 100) / images for value in accuracies]
    series = {
        "train_loss": [1.0] * (epochs - 1) + [None if more.get("status") == "diverged" else 1.0] * (epochs > 0),
        "train_accuracy": [50.0] * epochs,
        "test_loss": [None if value is None else 1.5 for value in accuracies],
        "test_accuracy": accuracies,
        "learning_rate": [scheduled(made, epoch) for epoch in range(epochs)],
        "seconds": [10.0] * epochs,
    }
    series.update(more.pop("series", {}))
    best, final = points(series)
    fields = {
        "id": made.id,
        "run": made,
        "status": "complete",
        "epochs": epochs,
        "series": series,
        "best": best,
        "final": final,
        "cost": counted(made),
        "images_per_second": 20_000.0,
        "seconds": 100.0,
        "device": "a CPU",
        "precision": "fp32",
        "threads": 1,
        "versions": {"python": "3.11", "torch": "2.11", "torchvision": "0.26", "thriftylib": "0.1.0"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "finished": "2026-01-31T12:00:00+00:00",
        "sittings": 1,
        **more,
    }
    return Record.model_validate(fields, context={"recorded": True})  # its run may be of no paper


def counted(made: Run) -> Counted:
    """The cost of a registered network, numbers of no meaning for another."""
    if made.network.name not in NetworkOptions.known:
        return Counted(parameters=3042, macs=7, ptflops_macs=8, weight_bytes=9, activation_bytes=10)
    return Counted.of(made.cost)


def scheduled(made: Run, epoch: int) -> float:
    """The learning rate of an epoch's last step, where the loss never changes."""
    steps = steps_per_epoch(made.data.training_images, made.recipe.batch_size)
    return learning_rate(made.recipe, epoch, steps - 1, steps, [1.5] * epoch)


def claim(**more: Any) -> Claim:
    """A claim that :func:`run` answers: 90 % with no reading error, one run."""
    fields = {
        "id": "made-up/group/one",
        "paper": "made-up",
        "figure": "a figure",
        "statement": "It reaches 90 %.",
        "quantity": "test_accuracy",
        "value": 90.0,
        "unit": "%",
        "error": "exact",
        "statistic": "best epoch of one run",
        "mark": "AUTHORS' LOG",
        "source": "a log",
        "how": "read",
        "confidence": "high",
        "setting": {"network": "made-up", "dataset": "cifar10", "recipes": {"paper-recipe": 3}, "options": OPTIONS},
        "experiment": "made-up-experiment",
        **more,
    }
    return Claim.model_validate(fields)


def claims_file(*claims: Claim, title: str = "Made up: a paper") -> ClaimsFile:
    """A paper's file that holds them."""
    return ClaimsFile(paper="made-up", title=title, claims={one.id: one for one in claims}, counted={}, unavailable=())
