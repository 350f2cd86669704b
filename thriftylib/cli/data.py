"""The command data."""

from __future__ import annotations

from typing import Annotated

import typer

from thriftylib.cli.app import DataFolder, say


def data(
    name: Annotated[str, typer.Argument(help="A data set; see thrifty list datasets.")], folder: DataFolder = None
) -> None:
    """Download a data set with torchvision and check it, or say that it is there.

    Example: thrifty data cifar10 --data ~/data
    """
    from thriftylib.datasets.facts import dataset_info
    from thriftylib.paths import data_root
    from thriftylib.spec import Data

    info = dataset_info(name)
    from thriftylib.datasets.load import load  # torch, for no mistyped name

    loaded = load(Data(name=info.name), root=folder, download=True)
    where = "bundled with scikit-learn" if name == "digits" else data_root(folder)
    say(f"{info.title}: {len(loaded.train):,} training and {len(loaded.test):,} test images, {where}")
