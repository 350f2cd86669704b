"""The command list."""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import Annotated

import typer

from thriftylib.cli.app import Json, print_json, print_rows, put, readable
from thriftylib.errors import ThriftyError
from thriftylib.paths import claims_dir


class Kind(StrEnum):
    papers = "papers"
    experiments = "experiments"
    datasets = "datasets"
    networks = "networks"


def list_(kind: Annotated[Kind | None, typer.Argument(help="Only these.")] = None, as_json: Json = False) -> None:
    """List papers, experiments, data sets and networks.

    Example: thrifty list experiments
    """
    from thriftylib.datasets.facts import DATASETS
    from thriftylib.evidence.claims_files import Loaded, load_claims_files
    from thriftylib.experiments import EXPERIMENTS
    from thriftylib.options import NetworkOptions, find

    with suppress(ThriftyError):
        find(NetworkOptions, "")  # no network's name: imports every paper and then refuses
    of_claims = kind in (None, Kind.papers)  # the rest needs no checkout
    with readable(load_claims_files(claims_dir()) if of_claims else Loaded({}, {})) as papers:
        found = {
            "papers": [
                {"paper": name, "claims": len(paper.claims), "title": paper.title} for name, paper in papers.items()
            ],
            "experiments": [
                {"experiment": each.name, "paper": each.paper, "title": each.title} for each in EXPERIMENTS.values()
            ],
            "datasets": [
                {
                    "data set": info.name,
                    "image": "x".join(map(str, info.image_shape)),
                    **{"train": info.train, "test": info.test, "classes": len(info.classes), "note": info.note},
                }
                for info in DATASETS.values()
            ],
            "networks": [
                {"network": name, "options": " ".join(options.model_fields)}
                for name, options in sorted(NetworkOptions.known.items())
            ],
        }
        chosen = {name: rows for name, rows in found.items() if kind in (None, name)}
        if as_json:
            print_json(chosen)
            return
        for title, rows in chosen.items():
            print_rows(rows, title)
            put()
