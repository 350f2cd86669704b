"""The papers' figures, tables and statements as grids of runs: one module per paper, found by itself."""

import importlib
import pkgutil

from thriftylib.experiments.base import EXPERIMENTS, PRESETS, Cell, Experiment, experiment

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["EXPERIMENTS", "PRESETS", "Cell", "Experiment", "experiment"]
