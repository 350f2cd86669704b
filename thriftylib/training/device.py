"""Where a network is trained and in which precision."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Literal

import torch

from thriftylib.errors import ThriftyError
from thriftylib.spec import parse_device

Precision = Literal["fp32", "bf16"]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def choose_device(name: str = "auto") -> torch.device:
    """``"auto"``: the first GPU, else the CPU.

    Raises:
        ThriftyError: no such device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parse_device(name))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ThriftyError(f"device = {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; cpu works")
    return device


def all_devices(name: str = "auto") -> list[str]:
    """Where runs may train at once: for "auto" and "cuda" every GPU that torch sees, where there are several.

    Raises:
        ThriftyError: no such device, or it is not there.
    """
    several = torch.cuda.device_count() if choose_device(name).type == "cuda" and ":" not in name else 1
    return [f"cuda:{index}" for index in range(several)] if several > 1 else [name]


def check_memory(device: torch.device, needed: float) -> None:
    """Refuse what cannot fit: ``needed`` is a lower bound in bytes.

    Raises:
        ThriftyError: the device has not as much memory.
    """
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[1]
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > there:
        raise ThriftyError(
            f"this training needs more than {needed / 2**30:.0f} GiB of memory, {device} has {there / 2**30:.0f} GiB: "
            "fewer images in a batch need less"
        )


def choose_precision(name: str, device: torch.device) -> Precision:
    """``"auto"``: bf16 on a GPU, fp32 on a CPU.

    Raises:
        ThriftyError: no such precision.
    """
    if name not in ("auto", "fp32", "bf16"):
        raise ThriftyError(f"precision = {name!r}: must be auto, fp32 or bf16")
    return name if name != "auto" else "bf16" if device.type == "cuda" else "fp32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """bf16 for convolutions and activations where asked for; batch norm keeps fp32 statistics by itself.

    No cache of cast weights: with it, the gradients of a kernel that is used many times would be summed in bf16.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def sent(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``x``, on the CPU, as a tensor on ``device``; the host does not wait for the copy, as ``x.to`` does."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def device_name(device: torch.device) -> str:
    """The device as its maker calls it, such as "NVIDIA H200", or the processor with "(CPU)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} (CPU)"


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees, up to 32 MiB a block, instead of handing it back to the system.

    Each step allocates and frees a batch's feature maps. Given back, their pages must be mapped and cleared anew, which
    took up to a quarter of a small network's step. Without glibc nothing is done.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
