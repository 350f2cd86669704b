"""What a person sees while a network trains: a live bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import time
from multiprocessing import parent_process
from typing import Any, Self

from thriftylib.spec import Run


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

        self.run, self.steps, self.done, self.shown = run, steps, done, shown
        self.started, self.first, self.drawn = time.monotonic(), done, 0.0
        self.title = f"{run.network.name} {run.id} seed {run.seed}"
        self.console = Console(stderr=True)
        # Of trainings in parallel, none may draw over the others' lines.
        self.live = shown and self.console.is_terminal and parent_process() is None
        columns = ("{task.description}", progress.BarColumn(), progress.TaskProgressColumn(), "{task.fields[now]}")
        remaining = progress.TimeRemainingColumn()
        self.bar = progress.Progress(*columns, remaining, console=self.console, disable=not self.live)
        self.task = self.bar.add_task(self.title, total=steps, completed=done, now="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    @property
    def due(self) -> bool:
        """Whether the bar wants numbers now: reading them makes a GPU wait, so only twice a second."""
        return self.live and time.monotonic() - self.drawn > 0.5

    def step(self, epoch: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Show the running epoch."""
        self.drawn = time.monotonic()
        now = f"epoch {epoch + 1}/{self.run.epochs} loss {loss:.3f} train {accuracy:.1f} %"
        self.bar.update(self.task, completed=self.done, now=f"{now} {images_per_second:.0f} images/s")

    def epoch(self, epoch: int, numbers: dict[str, float], images_per_second: float) -> None:
        """One line for a finished epoch."""
        spent = time.monotonic() - self.started
        left = spent / max(1, self.done - self.first) * (self.steps - self.done)
        self._print(
            f" epoch {epoch + 1}/{self.run.epochs} loss {numbers['train_loss']:.4f} "
            f"train {numbers['train_accuracy']:.2f} % test {numbers['test_accuracy']:.2f} % "
            f"learning rate {numbers['learning_rate']:.4g} {images_per_second:.0f} images/s, {duration(left)} left"
        )

    def say(self, line: str) -> None:
        """A line of its own."""
        self._print(f": {line}")

    def _print(self, text: str) -> None:
        if self.shown:
            self.console.print(f"{self.title}{text}", highlight=False, soft_wrap=True)
