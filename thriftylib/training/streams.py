"""Random numbers without saved state: each use names its own stream, so a resumed run draws what a whole one would."""

from __future__ import annotations

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed from a run's seed and the names of the use, such as ``("order", epoch)``."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def stream(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
    """A generator on ``device`` that starts where this run's stream of that name always starts."""
    return torch.Generator(device).manual_seed(stream_seed(seed, *names))


def seed_layers(device: torch.device, seed: int, *names: str | int) -> None:
    """Start PyTorch's own generator of ``device``, from which layers draw (dropout, rrelu), at this run's stream."""
    if device.type == "cpu":  # a hundred times sooner than all devices' generators
        torch.default_generator.manual_seed(stream_seed(seed, *names))
    else:
        torch.manual_seed(stream_seed(seed, *names))
