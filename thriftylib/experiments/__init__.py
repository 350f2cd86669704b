"""The papers' figures, tables and statements as grids of runs.

``experiments/<paper>*.py`` belongs to ``papers/<paper>.py`` and is found by its name.
"""

import importlib
import pkgutil

from thriftylib import papers
from thriftylib.experiments.base import EXPERIMENTS, PRESETS, Configuration, Experiment, experiment

_PAPERS = papers.names()
for _module in pkgutil.iter_modules(__path__):
    if any(_module.name == paper or _module.name.startswith(f"{paper}_") for paper in _PAPERS):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["EXPERIMENTS", "PRESETS", "Configuration", "Experiment", "experiment"]
