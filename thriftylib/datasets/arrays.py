"""Arrays from files that nobody vouches for: pickled batches and npz archives.

A pickle is a program that calls whatever it names, and numpy's own types do harm with a made-up state. So here a name
becomes an inert :class:`Symbol`, a call of it another that remembers its arguments, and nothing else is ever called.
What they spell is read afterwards, and only an array of numbers of a stated type becomes one, by ``frombuffer``.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from ast import literal_eval
from typing import Any

import numpy as np

MOST = 2**29
"""Bytes of one array: a batch of ImageNet 32x32 has 394 MB."""
_TYPE = re.compile(r"[|<>=]?[iuf][1248]")  # integers and floats
_HEADER = re.compile(rb"\x93NUMPY[\x01-\x03]\x00")


class Symbol:
    """What a pickle names, or makes by calling that: its name, the arguments, and the state set afterwards."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __call__(self, *arguments: Any) -> Symbol:
        return Symbol(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle._Unpickler):  # the one in Python: its memo is a dictionary, where C's takes what a file says
    def find_class(self, module: str, name: str) -> Symbol:
        return Symbol(f"{module}.{name}")

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("extension codes belong to another program")


def read_pickle(content: bytes) -> dict[str, Any]:
    """A pickled dictionary, its texts as keys; arrays are :class:`Symbol`, which :func:`array` reads.

    Raises:
        Exception: of any kind, where it is no such pickle.
    """
    found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in dict(found).items()}


def array(value: Any) -> np.ndarray:
    """A pickled array of integers or floats, read-only, as ``value`` spells it; or a list of integers.

    Raises:
        ValueError: something else.
    """
    match value:
        case list() if all(type(each) is int for each in value):
            return np.array(value, np.int64)
        case Symbol(name="numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct", state=state):
            match state:
                case (int(), tuple(shape), Symbol(name="numpy.dtype", arguments=(code, *_), state=form), order, raw):
                    bytes_order = form[1] if isinstance(form, tuple) and len(form) > 1 else "|"
                    return _numbers(_text(bytes_order) + _text(code), shape, bool(order), _raw(raw))
    raise ValueError("is no array of integers or floats")


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _raw(value: Any) -> bytes:
    """Bytes; in protocol 2 Python 3 spells them as a text and its encoding."""
    match value:
        case bytes():
            return value
        case Symbol(name="_codecs.encode", arguments=(str(text), "latin1" | b"latin1")):
            return text.encode("latin1")
    raise ValueError("the contents of an array are no bytes")


def read_npz(content: bytes, name: str) -> np.ndarray:
    """The array ``name`` of an npz archive, integers or floats, read-only.

    Raises:
        Exception: of any kind, where there is no such array, or it has more than ``MOST`` bytes.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(f"{name}.npy") as file:
        start = file.read(8)
        if not _HEADER.fullmatch(start):
            raise ValueError(f"{name} is no array")
        length = int.from_bytes(file.read(2 if start[6] == 1 else 4), "little")
        if length > 4096:
            raise ValueError(f"{name} has a header of {length} bytes")
        head = literal_eval(file.read(length).decode("latin1").strip())
        code, shape = head["descr"], head["shape"]
        if not isinstance(code, str) or not _TYPE.fullmatch(code):
            raise ValueError(f"{name} has elements {code!r}: neither integers nor floats")
        size = math.prod(shape) * int(code[-1])
        if size > MOST:
            raise ValueError(f"{name} has {size} bytes")
        return _numbers(code, shape, bool(head["fortran_order"]), file.read(size + 1))


def _numbers(code: str, shape: tuple[int, ...], fortran: bool, raw: bytes) -> np.ndarray:
    if not _TYPE.fullmatch(code):
        raise ValueError(f"elements {code!r}: neither integers nor floats")
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * int(code[-1]) != len(raw):
        raise ValueError(f"{len(raw)} bytes are no array of shape {shape} and type {code}")
    return np.frombuffer(raw, np.dtype(code)).reshape(shape, order="F" if fortran else "C")
