"""How papermill executes our notebooks, as a plug-in of it: its exit codes are those of ``thrifty train``.

Installed with the package, papermill loads it as its entry point says. Notebooks that do not use this package run as
before. A signal becomes an interrupt of the kernel, which keeps its work; a notebook that was stopped by that or by its
budget ends papermill with exit code 3, a user's mistake with 2, and any other error as papermill ends itself.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from papermill.engines import NBClientEngine, papermill_engines

from thriftylib import errors
from thriftylib.escaping import tell
from thriftylib.training.signals import collect_signals

_POLL = 0.1  # seconds between two looks for a signal
_LONG = 60.0  # seconds that a step and its checkpoint may take


class Engine(NBClientEngine):
    """papermill's own engine, and what is said above."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *arguments: Any, **options: Any) -> Any:
        """Execute as papermill does.

        Raises:
            SystemExit: stopped early, with code 3; or a user's mistake, with code 2.
        """
        kernels: list[AsyncKernelManager] = []

        class Manager(AsyncKernelManager):
            def __init__(self, *words: Any, **more: Any) -> None:
                super().__init__(*words, **more)
                kernels.append(self)

        options.setdefault("kernel_manager_class", Manager)
        begin = nb_man.cell_start

        def cell_start(*words: Any, **more: Any) -> Any:
            if received:  # while no cell was executed, which an interrupt would have ended
                raise errors.StoppedError("stopped by a signal between two cells")
            return begin(*words, **more)

        nb_man.cell_start = cell_start
        with collect_signals() as received, _passing_on(received, kernels):
            try:
                done = super().execute_managed_notebook(nb_man, kernel_name, *arguments, **options)
            except Exception:
                if not received:
                    raise
                done = None
        name, text = _error(nb_man.nb)
        kind = getattr(errors, name, None)
        code = kind.exit_code if isinstance(kind, type) and issubclass(kind, errors.ThriftyError) else 1
        if received:
            code, text = 3, text or "stopped by a signal"
        if code == 1:
            return done
        nb_man.notebook_complete()
        nb_man.save()
        tell(f"{nb_man.nb.metadata.papermill.get('output_path') or 'the notebook'}: {text}", lines=False)
        raise SystemExit(code)


def _error(notebook: Any) -> tuple[str, str]:
    """The name and the text of the error that ended the notebook; empty: none did."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return output.ename, output.evalue
    return "", ""


@contextmanager
def _passing_on(received: list[int], kernels: list[AsyncKernelManager]) -> Iterator[None]:
    """Interrupt the kernel when a signal has come; once more where nothing follows for long."""
    over = threading.Event()

    def watch() -> None:
        wait = _POLL
        while not over.wait(wait):
            pid = getattr(kernels[0].provisioner, "pid", None) if kernels else None
            if received and pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
                wait = _LONG

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


papermill_engines.register(None, Engine)
execute_notebook = Engine.execute_notebook  # the entry point is this module: papermill may load it half-imported
