"""What a person sees while several runs train at once: one table on a terminal, with a row for each run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self

from thriftylib.escaping import for_terminal, on_terminal
from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.spec import Run
from thriftylib.training.progress import duration

COLUMNS = ("run", "network", "data", "seed", "on", "state", "epoch", "test %", "images/s", "left")
ROWS = 24
"""Of those that have ended, the last few are shown."""


class Board:
    """A live table on standard error; where that is no terminal, or ``shown`` is off, nothing is drawn."""

    def __init__(self, *, shown: bool = True) -> None:
        from rich.console import Console
        from rich.live import Live

        self.rows: dict[str, dict[str, str]] = {}
        console = Console(stderr=True)
        self.drawn = shown and on_terminal() and console.is_terminal
        self.live = Live(console=console, auto_refresh=False) if self.drawn else None

    def __enter__(self) -> Self:
        with suppress(OSError, ValueError):  # a terminal that was closed ends no training
            if self.live:
                self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        with suppress(OSError, ValueError):
            if self.live:
                self.live.stop()

    def begins(self, run: Run, place: str) -> None:
        """A run starts in a process of its own, on the device ``place``."""
        words = run.id, run.network.name, run.data.label, str(run.seed), place, "starting"
        self.rows[run.id] = dict(zip(COLUMNS, words, strict=False))
        self._draw()

    def epoch(self, run: Run, news: dict[str, Any]) -> None:
        """An epoch of it has ended: what :class:`thriftylib.training.progress.Progress` tells of it."""
        self.rows[run.id] |= {
            "state": "training",
            "epoch": f"{news['epoch']}/{run.epochs}",
            "test %": f"{news[TEST_ACCURACY]:.2f}",
            "images/s": f"{news['images_per_second']:.0f}",
            "left": duration(news["seconds_left"]),
        }
        self._draw()

    def ends(self, run: Run, how: str) -> None:
        """It is done, stopped or left out."""
        self.rows[run.id] |= {"state": how, "left": ""}
        self._draw()

    def _draw(self) -> None:
        if not self.live:
            return
        from rich.table import Table

        table = Table(*COLUMNS, box=None, pad_edge=False)
        running = [row for row in self.rows.values() if row["state"] in ("starting", "training")]
        ended = [row for row in self.rows.values() if row not in running]
        room = max(0, ROWS - len(running))
        for row in (*ended[len(ended) - room :], *running):
            table.add_row(*(for_terminal(row.get(name, ""), lines=False) for name in COLUMNS))
        with suppress(OSError, ValueError):
            self.live.update(table, refresh=True)
