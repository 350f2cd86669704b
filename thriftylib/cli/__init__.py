"""The ``thrifty`` command. Nothing here imports torch or Jupyter until a command needs it."""

from thriftylib.cli.app import app
from thriftylib.cli.bench import bench
from thriftylib.cli.cost import cost
from thriftylib.cli.plan import plan
from thriftylib.cli.show import list_, show, status
from thriftylib.cli.train import run, train
from thriftylib.cli.verify import book, data, verify

for _command in (list_, show, status, plan, cost, train, run, verify, bench, book, data):
    app.command(_command.__name__.rstrip("_"))(_command)


def main() -> None:
    """What the console script calls."""
    app()
