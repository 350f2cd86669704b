"""The package's C code, compiled on the machine that runs it when it is first wanted.

Wheels know nothing of the processor they will meet; a compiler on the spot does. What it makes is kept in the user's
cache folder, under a name that depends on the source, the compiler's command and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from thriftylib.paths import cache_dir, write_atomically

_SOURCES = Path(__file__).with_name("native")
_NUMBERS = {torch.float32: "float", torch.float64: "double"}
_FLAGS = ("-O3", "-march=native", "-fno-strict-aliasing", "-fPIC", "-shared")
_COMPILERS = ("cc", "gcc", "clang")
_SECONDS = 120  # a compiler that takes longer hangs


def compiler() -> list[str] | None:
    """The C compiler's command: the environment's ``CC``, else the first of cc, gcc and clang; None: there is none."""
    command = shlex.split(os.environ.get("CC", "")) or next(([name] for name in _COMPILERS if shutil.which(name)), [])
    return command if command and shutil.which(command[0]) else None


@cache
def library(name: str, dtype: torch.dtype) -> ctypes.CDLL | None:
    """``training/native/<name>.c`` for numbers of ``dtype``, compiled if it is not there yet.

    Returns:
        None where it cannot be had: no compiler, one that fails, or a ``dtype`` that is neither fp32 nor float64.
    """
    command = compiler()
    if command is None or dtype not in _NUMBERS:
        return None
    command = [*command, *_FLAGS, f"-DREAL={_NUMBERS[dtype]}"]
    source = _SOURCES / f"{name}.c"
    texts = [path.read_bytes() for path in sorted(_SOURCES.iterdir())]
    key = hashlib.sha256(b"\0".join([*texts, " ".join(command).encode(), _processor()]))
    path = cache_dir() / "native" / f"{name}-{key.hexdigest()[:16]}.so"
    with suppress(OSError):  # not there yet, or damaged
        return ctypes.CDLL(str(path))
    with suppress(OSError, subprocess.SubprocessError), tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        command = [*command, str(source), "-lm", "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        with suppress(OSError):  # nothing can be kept here
            write_atomically(path, made.read_bytes())
        return ctypes.CDLL(str(made))
    return None


def _processor() -> bytes:
    """What ``-march=native`` depends on: a cache folder may serve machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(sorted({line for line in lines if line.startswith((b"model name", b"flags", b"Features"))}))
