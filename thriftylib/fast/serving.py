"""When a fast path serves a module: while the module is nothing but what its kernel computes.

A served module has another class, as a parametrized one has in PyTorch: everything in it stays where it is. At each
call its forward compares the module, down to the last attribute, with fresh ones of the classes that the kernel knows.
Whatever else it finds (a hook, a mode, a subclass, an attribute that was changed) it leaves to the plain forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from thriftylib.papers.expandnets_expansion import ExpandedConv2d

FORWARD_HOOKS = tuple(name for name in vars(nn.Module()) if name.startswith("_forward"))
"""What may differ in the served module itself: it is called as ever, and so are its hooks."""
_GLOBAL_HOOKS = [hooks for name, hooks in vars(torch_module).items() if name.startswith("_global") and "ward" in name]
_TENSORS = "_parameters", "_buffers"
# Compared apart, or read by nobody: without hooks, with zeros as padding; an over-parameterised block's cache.
_APART = {*_TENSORS, "_modules", "training", "_is_full_backward_hook", "_reversed_padding_repeated_twice", "kept"}


@dataclass(frozen=True)
class Mode:
    """What all modules that are served together have in common."""

    training: bool
    dtype: torch.dtype


class Fast(nn.Module):
    """The class of a module of class ``plain`` while a fast path may serve it; copies and pickles of it are plain.

    A subclass says what its kernel computes: ``is_meant(module)``, whether a module is that in every attribute;
    ``takes(x)``, whether it also is for this input in the present modes; ``fast_forward(x)``, as ``plain.forward``.
    """

    plain: ClassVar[type[nn.Module]]
    precisions: ClassVar[tuple[str, ...]]  # of trainings in which it serves
    name: ClassVar[str]

    @classmethod
    def title(cls) -> str:
        """What a record calls the fast path."""
        return cls.name

    @classmethod
    def missing(cls, dtype: torch.dtype) -> str | None:
        """What this machine lacks to compute in ``dtype``, in one line; None: nothing."""
        return None

    @classmethod
    def serves(cls, module: nn.Module) -> bool:
        """Whether the kernel computes what ``module`` is now."""
        try:
            return not is_watched() and cls.is_meant(module)
        except (ArithmeticError, LookupError, AttributeError, TypeError, ValueError, RuntimeError):
            return False  # an attribute of a kind that none of the classes gives it

    def forward(self, x: Tensor) -> Tensor:
        compiling = torch.compiler.is_compiling()  # asked first, so that the compiler sees nothing of what follows
        served = not compiling and self.serves(self) and is_ordinary(x) and self.takes(x)
        return self.fast_forward(x) if served else self.plain.forward(self, x)

    def _get_name(self) -> str:
        return self.plain.__name__

    def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
        make, (cls, *arguments), *state = super().__reduce_ex__(1)  # later protocols insist on the class that it has
        return make, (plain_class(cls), *arguments), *state


def plain_class(cls: type[nn.Module]) -> type[nn.Module]:
    """The class of the module without its fast path."""
    return cls.plain if Fast in cls.__bases__ else cls


def is_watched() -> bool:
    """Whether somebody waits for single operations: global hooks, modes, transforms, tracing."""
    return bool(
        any(_GLOBAL_HOOKS)
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


def is_ordinary(x: Tensor) -> bool:
    """Whether ``x`` is nothing but numbers in the CPU's memory."""
    return type(x) in (Tensor, nn.Parameter) and x.is_cpu and x.layout is torch.strided and not x.is_neg()


class Like:
    """Whether a module is as its class makes it: the same attributes, names of tensors and modules, and no hooks.

    Args:
        fresh: a new module of that class.
        free: attributes that may have another value of the same type; ``"_modules"`` for other modules.

    Further attributes may only be what no method of the class reads.
    """

    def __init__(self, fresh: nn.Module, *free: str) -> None:
        made, self.fresh, self.cls = vars(fresh), fresh, type(fresh)
        self.free = {name: type(made[name]) for name in free}
        self.fixed = {name: value for name, value in made.items() if name not in _APART and name not in free}
        self.tensors = [(part, {name: type(x) for name, x in made[part].items()}) for part in _TENSORS]
        self.modules = None if "_modules" in free else made["_modules"].keys()
        functions = {"forward", *(name for name, value in vars(self.cls).items() if callable(value))}
        self.code = [(name, getattr(self.cls, name)) for name in functions]

    def __call__(self, module: nn.Module, mode: Mode) -> bool:
        own = vars(module)
        if plain_class(type(module)) is not self.cls or not own.items() >= self.fixed.items():
            return False
        for part, types in self.tensors:
            if own[part].keys() != types.keys():
                return False
            for name, kind in types.items():
                x = own[part][name]
                if type(x) is not kind or (x is not None and not _is_fit(x, mode)):
                    return False
        for name, kind in self.free.items():
            if type(own[name]) is not kind:
                return False
        for name, code in self.code:
            if getattr(self.cls, name) is not code:
                return False
        further = own.keys() - vars(self.fresh).keys() if len(own) != len(vars(self.fresh)) else ()
        return (
            own["training"] == mode.training
            and (self.modules is None or self.modules == own["_modules"].keys())
            and not any(hasattr(self.fresh, name) for name in further)
        )


def _is_fit(x: Tensor, mode: Mode) -> bool:
    return is_ordinary(x) and x.dtype == (mode.dtype if x.is_floating_point() else torch.int64)


_SIZES = ("in_channels", "out_channels", "kernel_size", "padding", "groups")
_CONVS = {bias: Like(nn.Conv2d(1, 1, 1, bias=bias, device="meta"), *_SIZES) for bias in (False, True)}
_EXPANDED = Like(
    ExpandedConv2d(nn.Sequential(nn.Conv2d(1, 1, 1, device="meta"))), *_SIZES, "keeps", "from_last", "merge_macs"
)
_NORM_NUMBERS = ("num_features", "eps", "momentum")
_NORMS = {affine: Like(nn.BatchNorm2d(1, affine=affine, device="meta"), *_NORM_NUMBERS) for affine in (False, True)}
is_sequential, is_list = Like(nn.Sequential(), "_modules"), Like(nn.ModuleList(), "_modules")


def is_conv(conv: nn.Module, mode: Mode) -> bool:
    """Whether ``conv`` is a convolution or an over-parameterised block of them, of stride 1 among zeros."""
    if type(conv) is nn.Conv2d:
        weight, bias = conv._parameters["weight"], conv._parameters["bias"]
        return (
            _CONVS[bias is not None](conv, mode)
            and weight.shape == (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
            and (bias is None or bias.shape == (conv.out_channels,))
        )
    if not _EXPANDED(conv, mode) or not is_sequential(conv.chain, mode):
        return False
    first, *others = layers = list(conv.chain)
    return (
        all(type(layer) is nn.Conv2d and is_conv(layer, mode) for layer in layers)
        and all((layer.groups, layer.bias is None) == (conv.groups, first.bias is None) for layer in layers)
        and all(layer.padding == (0, 0) for layer in others)
        and (conv.padding, conv.in_channels) == (first.padding, first.in_channels)
        and [*(layer.in_channels for layer in others), conv.out_channels] == [layer.out_channels for layer in layers]
        and conv.kernel_size == tuple(1 + sum(layer.kernel_size[i] - 1 for layer in layers) for i in (0, 1))
    )


def is_norm(norm: nn.Module, mode: Mode) -> bool:
    """Whether ``norm`` is a batch norm with running statistics, moved by a fixed momentum; perhaps affine."""
    if type(norm) is not nn.BatchNorm2d or not _NORMS[norm._parameters["weight"] is not None](norm, mode):
        return False
    tensors = (*norm._parameters.values(), *norm._buffers.values())
    return all(x is None or not x.dim() or x.shape == (norm.num_features,) for x in tensors)
