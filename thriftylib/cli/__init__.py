"""The ``thrifty`` command. Each module here but ``app`` is one of its commands, named after it."""

from thriftylib.cli.app import app


def main() -> None:
    """What the console script calls."""
    app()
