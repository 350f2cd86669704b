"""The papers' figures, tables and statements as grids of runs.

``experiments/<paper>*.py`` belongs to ``papers/<paper>.py`` and is found by its name.
"""

import importlib
import pkgutil

from thriftylib import papers
from thriftylib.experiments.base import EXPERIMENTS, PRESETS, Configuration, Experiment, experiment

_PAPERS = {module.name for module in pkgutil.iter_modules(papers.__path__)}
for _module in pkgutil.iter_modules(__path__):
    if _module.name.partition("_")[0] in _PAPERS:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["EXPERIMENTS", "PRESETS", "Configuration", "Experiment", "experiment"]
