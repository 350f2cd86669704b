"""The package's C code, compiled on the machine that runs it when it is first needed.

Wheels know nothing of the processor they will meet; a compiler on the spot does. What it makes is kept in the user's
cache folder, where nobody else can write. Its name says what it was made from (source, command, compiler, processor)
and, last, its own checksum.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from thriftylib.paths import cache_dir, write_atomically

_SOURCES = Path(__file__).with_name("native")
_NUMBERS = {torch.float32: ("-DREAL=float",), torch.float64: ("-DREAL=double",)}
_MAPS_OF_BF16 = {"recursion": ("-DREAL=float", "-DHALF")}  # their sums are fp32
_FLAGS = ("-O3", "-fno-strict-aliasing", "-fno-math-errno", "-fPIC", "-shared")
_TUNED = ("-march=native",)  # some compilers know no such processor
_COMPILERS = ("gcc", "cc", "clang")  # gcc first: its code is the faster
_SECONDS = 120  # a compiler that takes longer hangs


def library(name: str, dtype: torch.dtype) -> ctypes.CDLL | None:
    """``fast/native/<name>.c`` for numbers of ``dtype``, compiled if it is not there yet.

    Returns:
        None where it is not available; :func:`missing` says why.
    """
    found = _find(name, dtype)
    return found if isinstance(found, ctypes.CDLL) else None


def missing(name: str, dtype: torch.dtype) -> str | None:
    """Why :func:`library` has nothing for numbers that the code is written for, in one line; None: it has."""
    found = _find(name, dtype)
    return found if isinstance(found, str) else None


def compiler() -> list[str]:
    """The C compiler's command: the environment's ``CC``, else the first of gcc, cc and clang; empty: there is none."""
    try:
        command = shlex.split(os.environ.get("CC", "")) or [name for name in _COMPILERS if shutil.which(name)][:1]
    except ValueError:  # an open quotation
        return []
    return command if command and shutil.which(command[0]) else []


def compiler_version() -> str:
    """The C compiler's own first line, such as "gcc (Debian 12.2.0-14) 12.2.0"; "no compiler" where there is none."""
    return _version(tuple(compiler())) or "no compiler"


@cache
def _version(command: tuple[str, ...]) -> str:
    try:
        return _run([*command, "--version"]).splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return command[0] if command else ""


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=_SECONDS)
    return done.stdout


@cache
def _find(name: str, dtype: torch.dtype) -> ctypes.CDLL | str | None:
    numbers = _MAPS_OF_BF16.get(name) if dtype == torch.bfloat16 else _NUMBERS.get(dtype)
    if numbers is None:
        return None
    command = compiler()
    if not command:
        return "there is no C compiler (gcc, cc, clang or what CC names)"
    command = [*command, *_FLAGS, *numbers]
    texts = [path.read_bytes() for path in sorted(_SOURCES.glob("*.[ch]"))]
    made_from = [*texts, " ".join(command).encode(), compiler_version().encode(), _processor()]
    stem, folder = f"{name}-{_checksum(bytes(1).join(made_from))}", None
    with suppress(OSError, RuntimeError, KeyError):  # no cache folder, or nobody's home
        folder = _own(cache_dir() / "native")
        for path in folder.glob(f"{stem}-*.so") if folder else ():
            if _is_own(path) and path.stem == f"{stem}-{_checksum(path.read_bytes())}":
                return ctypes.CDLL(str(path))
    return _compile(command, _SOURCES / f"{name}.c", stem, folder)


def _own(folder: Path) -> Path | None:
    """The folder, made where it is not there; None: somebody else may write what this process would then run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.lstat().st_uid == os.getuid() and not _is_own(folder):
        if folder.is_symlink():
            return None
        folder.chmod(0o700)
        for path in folder.iterdir():  # whoever could write there until now may have put it there
            path.unlink()
    return folder if _is_own(folder) else None


def _is_own(path: Path) -> bool:
    """Whether it belongs to this user, by whom alone it can be written."""
    if not hasattr(os, "getuid"):  # Windows: a profile's folders are its user's
        return True
    seen = path.lstat()
    return seen.st_uid == os.getuid() and not stat.S_ISLNK(seen.st_mode) and not seen.st_mode & 0o022


def _compile(command: list[str], source: Path, stem: str, folder: Path | None) -> ctypes.CDLL | str:
    error = ""
    for flags in (_TUNED, ()):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            made = Path(temporary) / f"{stem}.so"
            try:
                _run([*command, *flags, str(source), "-lm", "-o", str(made)])
                content = made.read_bytes()
                with suppress(OSError):  # else nothing can be kept here
                    if folder is not None:
                        kept = folder / f"{stem}-{_checksum(content)}.so"
                        write_atomically(kept, content)
                        made = kept
                return ctypes.CDLL(str(made))
            except (OSError, subprocess.SubprocessError) as failure:
                error = error or _reason(failure)
    return f"the C compiler {command[0]} does not work ({error})"


def _reason(failure: OSError | subprocess.SubprocessError) -> str:
    """The line that says most."""
    if not isinstance(failure, subprocess.CalledProcessError):
        return getattr(failure, "strerror", None) or str(failure)
    lines = failure.stderr.strip().splitlines()
    return next((line for line in lines if "error" in line), lines[-1] if lines else f"exit code {failure.returncode}")


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _processor() -> bytes:
    """What ``-march=native`` depends on: a cache folder may serve machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(sorted({line for line in lines if line.startswith((b"model name", b"flags", b"Features"))}))
