"""``python -m thriftylib.cli``, where the console script is not on the path."""

from thriftylib.cli import main

main()
