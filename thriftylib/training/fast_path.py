"""Where training meets ``thriftylib.fast``; without that folder every network takes the plain path."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn

from thriftylib.training.device import Precision

try:
    from thriftylib.fast import kernels
    from thriftylib.fast.tiles import sharing_threads
except ModuleNotFoundError:
    kernels = None


def accelerate(network: nn.Module, asked: tuple[str, ...], precision: Precision) -> nn.Module:
    """Swap in the fast paths that a network's options ask for (``NetworkOptions.fast``); returns ``network`` itself."""
    return kernels.accelerate(network, precision) if kernels else network


def restore(network: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`: every part computes by itself again, so that hooks see it; returns ``network``."""
    return kernels.restore(network) if kernels else network


def sharing(network: nn.Module) -> AbstractContextManager[None]:
    """PyTorch's own threads step back while fast paths share them; nothing where no fast path serves ``network``."""
    return sharing_threads() if kernels and kernels.is_accelerated(network) else nullcontext()


def describe(network: nn.Module) -> str | None:
    """The fast paths that serve ``network``, for the record; None: PyTorch's operators alone."""
    return kernels.describe(network) if kernels else None


def hint(network: nn.Module) -> str | None:
    """What is missing on this machine for a fast path that ``network`` asks for; None: nothing."""
    return kernels.hint(network) if kernels else None
