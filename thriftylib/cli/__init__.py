"""The ``thrifty`` command. Nothing here imports torch or Jupyter until a command needs it."""

from thriftylib.cli.app import app
from thriftylib.cli.check import bench, book, data, verify
from thriftylib.cli.look import list_, show, status
from thriftylib.cli.make import run, train
from thriftylib.cli.planning import plan
from thriftylib.cli.reckon import cost

for _command in (list_, show, status, plan, cost, train, run, verify, bench, book, data):
    app.command(_command.__name__.rstrip("_"))(_command)


def main() -> None:
    """What the console script calls."""
    app()
