"""Data sets: facts, files and formats."""
