"""What a person sees while a network trains: a live bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from typing import Any, Self

from thriftylib.escaping import for_terminal, on_terminal, tell
from thriftylib.spec import Run

listener: Callable[[dict[str, Any]], None] | None = None
"""Is told of each epoch's end, in a process that trains for another one."""


def duration(seconds: float) -> str:
    """``"45s"``, ``"12m05s"`` or ``"3h07m"``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Progress:
    """Progress of one run on standard error; ``shown=False`` says nothing."""

    def __init__(self, run: Run, steps: int, done: int, *, shown: bool = True) -> None:
        from rich import progress  # here: the command line needs duration() alone
        from rich.console import Console
        from rich.markup import escape

        self.run, self.shown = run, shown
        self.title = for_terminal(f"{run.network.name} {run.id} seed {run.seed}", lines=False)
        console = Console(stderr=True)
        # Of trainings in parallel, none may draw over the others' lines.
        live = shown and on_terminal() and console.is_terminal and parent_process() is None
        self.bar = progress.Progress(
            *progress.Progress.get_default_columns(), console=console, disable=not live, refresh_per_second=2
        )
        self.task = self.bar.add_task(escape(self.title), total=steps, completed=done)
        self.steps, self.first, self.started = steps, done, time.monotonic()

    def __enter__(self) -> Self:
        with suppress(OSError, ValueError):  # a terminal that was closed ends no training
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        with suppress(OSError, ValueError):
            if not self.bar.disable:  # else rich 13 prints an empty line
                self.bar.stop()

    def step(self, done: int) -> None:
        """Show how many steps are done."""
        with suppress(OSError, ValueError):
            self.bar.update(self.task, completed=done)

    def epoch(self, done: int, numbers: dict[str, float], images_per_second: float) -> None:
        """One line for the epoch that ends with the step ``done``."""
        left = (time.monotonic() - self.started) / max(1, done - self.first) * (self.steps - done)
        epoch = done * self.run.epochs // self.steps
        if listener:
            listener({**numbers, "epoch": epoch, "images_per_second": images_per_second, "seconds_left": left})
        self._print(
            f" epoch {epoch}/{self.run.epochs} loss {numbers['train_loss']:.4f} "
            f"train {numbers['train_accuracy']:.2f} % test {numbers['test_accuracy']:.2f} % "
            f"learning rate {numbers['learning_rate']:.4g} {images_per_second:.0f} images/s, {duration(left)} left"
        )

    def say(self, line: str) -> None:
        """A line of its own."""
        self._print(f": {line}")

    def _print(self, text: str) -> None:
        if self.shown and not self.bar.disable:
            with suppress(OSError, ValueError):
                self.bar.console.print(
                    for_terminal(f"{self.title}{text}"), markup=False, highlight=False, soft_wrap=True
                )
        elif self.shown:
            tell(f"{self.title}{text}")
