"""Where training meets ``thriftylib.fast``; without that folder every network takes the plain path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from weakref import WeakKeyDictionary

from torch import nn

from thriftylib.training.device import Precision

try:
    from thriftylib.fast.serving import Fast, plain_class
    from thriftylib.fast.tiles import sharing_threads
except ModuleNotFoundError:
    Fast = None

_asked: WeakKeyDictionary[nn.Module, list[type]] = WeakKeyDictionary()  # the fast paths that a network asked for


def accelerate(network: nn.Module, asked: tuple[str, ...], precision: Precision = "fp32") -> nn.Module:
    """Swap in the fast paths that a network's options ask for (``NetworkOptions.fast``); returns ``network`` itself.

    Parameters, buffers and ``state_dict`` stay as they are. A module of exactly the class that a fast path stands for
    gets its class, if it is on the CPU and what the fast path computes. Copies of it are plain again.
    """
    if Fast is None:
        return network
    _asked[network] = [import_module(f"thriftylib.fast.{name}").FAST for name in asked]
    for fast in _asked[network]:
        for module in network.modules() if precision in fast.precisions else ():
            if type(module) is fast.plain and fast.serves(module) and not _lacks(fast, module):
                module.__class__ = fast
    return network


def function(module: str, name: str) -> Callable[..., bool]:
    """A function of ``thriftylib.fast`` that does its caller's work; or returns False, and leaves it to the caller."""
    return getattr(import_module(f"thriftylib.fast.{module}"), name) if Fast else lambda *_: False


def restore(network: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`; returns ``network``."""
    for module in network.modules() if Fast else ():
        module.__class__ = plain_class(type(module))
    return network


def sharing(network: nn.Module) -> AbstractContextManager[None]:
    """PyTorch's own threads step back while fast paths share them; nothing where a convolution is left to PyTorch."""
    served = {inner for module in _served(network) for inner in module.modules()}
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return sharing_threads() if served and served.issuperset(convs) else nullcontext()


def describe(network: nn.Module) -> str | None:
    """The fast paths that serve ``network``, for the record; None: PyTorch's operators alone."""
    return ", ".join(dict.fromkeys(module.title() for module in _served(network))) or None


def hint(network: nn.Module) -> str | None:
    """What is missing on this machine for a fast path that ``network`` asks for; None: nothing."""
    for fast in _asked.get(network, ()):
        for module in network.modules():
            if type(module) is fast.plain and fast.serves(module) and (reason := _lacks(fast, module)):
                return f"{reason}: {fast.name} runs on PyTorch's operators, which is slower"
    return None


def _served(network: nn.Module) -> Iterator[Fast]:
    """The modules that fast paths serve as they are now."""
    for module in network.modules() if Fast else ():
        if isinstance(module, Fast) and module.serves(module):
            yield module


def _lacks(fast: type[Fast], module: nn.Module) -> str | None:
    return fast.missing(next(module.parameters()).dtype)
