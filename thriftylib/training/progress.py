"""What a person sees while a network trains: a live bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import time
from multiprocessing import parent_process
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from thriftylib.spec import Run


def duration(seconds: float) -> str:
    """``"45s"``, ``"12m05s"`` or ``"3h07m"``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


class Report:
    """Progress of one run on standard error; ``shown=False`` says nothing."""

    def __init__(self, run: Run, steps: int, done: int, *, shown: bool = True) -> None:
        self.run, self.steps, self.done, self.shown = run, steps, done, shown
        self.started, self.first = time.monotonic(), done
        self.title = f"{run.network.name} {run.id} seed {run.seed}"
        self.console = Console(stderr=True)
        # Of trainings side by side, none may draw over the others' lines.
        self.live = shown and self.console.is_terminal and parent_process() is None
        self.shown_at = 0.0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[now]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task(self.title, total=steps, completed=done, now="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    @property
    def due(self) -> bool:
        """Whether the bar wants numbers now: reading them makes a GPU wait, so only twice a second."""
        return self.live and time.monotonic() - self.shown_at > 0.5

    def step(self, epoch: int, loss: float, accuracy: float, images_per_second: float) -> None:
        """Show the running epoch."""
        self.shown_at = time.monotonic()
        now = f"epoch {epoch + 1}/{self.run.recipe.epochs} loss {loss:.3f} train {accuracy:.1f} %"
        now += f" {images_per_second:.0f} images/s"
        self.bar.update(self.task, completed=self.done, now=now)

    def epoch(self, epoch: int, numbers: dict[str, float], images_per_second: float) -> None:
        """One line for a finished epoch."""
        if not self.shown:
            return
        spent = time.monotonic() - self.started
        left = spent / max(1, self.done - self.first) * (self.steps - self.done)
        line = (
            f"{self.title} epoch {epoch + 1}/{self.run.recipe.epochs} loss {numbers['train_loss']:.4f} "
            f"train {numbers['train_accuracy']:.2f} % test {numbers['test_accuracy']:.2f} % "
            f"rate {numbers['learning_rate']:.4g} {images_per_second:.0f} images/s, {duration(left)} left"
        )
        self.console.print(line, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """A line of its own."""
        if self.shown:
            self.console.print(f"{self.title}: {line}", highlight=False, soft_wrap=True)
