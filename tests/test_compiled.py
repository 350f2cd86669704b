"""C code compiled on the spot: kept, made anew where it is damaged, done without where there is no compiler."""

import copy
import ctypes
import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from thriftylib.fast import compiled, fused_kernel
from thriftylib.fast.compiled import compiler, library, missing
from thriftylib.fast.fused_blocks import FusedBlock
from thriftylib.papers.expandnets import SmallNetOptions
from thriftylib.training import fast_path
from thriftylib.training.fast_path import hint

pytestmark = pytest.mark.fast


def accelerate(network):
    return fast_path.accelerate(network, ("fused_blocks",))


@pytest.fixture
def anew(tmp_path, monkeypatch):
    """An empty cache folder, and nothing loaded yet; again nothing afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiled._find.cache_clear()
    compiled._version.cache_clear()
    yield tmp_path / "cache" / "thriftylib" / "native"
    compiled._find.cache_clear()


@pytest.fixture
def short_source(tmp_path, monkeypatch):
    """Code that is compiled in no time, for what is about compiling alone."""
    sources = tmp_path / "sources"
    sources.mkdir()
    code = "#ifdef __AVX__", "enum { LANES = 4 };", "#else", "enum { LANES = 2 };", "#endif"
    (sources / "fused_block.c").write_text("\n".join([*code, "int fused_lanes(void) { return LANES; }"]))
    monkeypatch.setattr(compiled, "_SOURCES", sources)


def block():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 11, (5, 3), padding=(2, 0)), nn.BatchNorm2d(11), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers).double()


def learn(network):
    x = torch.randn(21, 3, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    y = network.train()(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in network.parameters())]


def test_compiled_once_and_kept(anew, short_source, monkeypatch):
    library("fused_block", torch.float64)
    (kept,) = anew.iterdir()
    compiled._find.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)  # whoever compiles again fails
    assert library("fused_block", torch.float64)._name == str(kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_python_and_c_agree_on_the_fields(dtype):
    assert library("fused_block", dtype).fused_bytes() == ctypes.sizeof(fused_kernel._Fields)
    source = (compiled._SOURCES / "fused_block.c").read_text()
    struct = re.sub(
        r"/\*.*?\*/", "", re.search(r"struct fused_block \{(.*?)\n\};", source, re.DOTALL)[1], flags=re.DOTALL
    )
    names = re.findall(r"(\w+)\s*[,;]", struct)
    assert names == [name for name, _ in fused_kernel._Fields._fields_]


@pytest.mark.parametrize("left", [0, 100, 5000, -1])
def test_damaged_file_is_made_anew(anew, short_source, left):
    """A library cut short could kill the process that loads it."""
    library("fused_block", torch.float64)
    (kept,) = anew.iterdir()
    whole = kept.read_bytes()
    compiled._find.cache_clear()
    kept.unlink()
    kept.write_bytes(whole[:left])
    assert library("fused_block", torch.float64).fused_lanes() > 1
    assert kept.read_bytes() == whole


def test_changed_source_or_command_is_another_file(anew, short_source, tmp_path, monkeypatch):
    library("fused_block", torch.float64)
    library("fused_block", torch.float32)
    compiled._find.cache_clear()
    monkeypatch.setattr(compiled, "_FLAGS", (*compiled._FLAGS, "-g0"))
    library("fused_block", torch.float64)
    compiled._find.cache_clear()
    sources = tmp_path / "native"
    sources.mkdir()
    for path in compiled._SOURCES.iterdir():
        (sources / path.name).write_text(path.read_text() + "\n")
    monkeypatch.setattr(compiled, "_SOURCES", sources)
    library("fused_block", torch.float64)
    assert len(list(anew.iterdir())) == 4


def test_nothing_is_kept_where_nothing_can_be(tmp_path, anew, short_source, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert library("fused_block", torch.float64).fused_lanes() > 1


NONE = "there is no C compiler (gcc, cc, clang or what CC names)"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-compiler", NONE),
        ('gcc "', NONE),
        ("false", "the C compiler false does not work (exit code 1)"),
        ("true", "the C compiler true does not work (No such file or directory)"),
        ("gcc --no-such-flag", "unrecognized command-line option"),
    ],
)
def test_no_compiler_or_one_that_fails(anew, command, reason, monkeypatch):
    monkeypatch.setenv("CC", command)
    assert library("fused_block", torch.float64) is None
    assert reason in missing("fused_block", torch.float64)
    plain = block()
    slow = accelerate(copy.deepcopy(plain))
    assert type(slow) is nn.Sequential
    assert fast_path.describe(slow) is None
    assert reason in hint(slow)
    assert hint(slow).endswith(": fused conv-BN-ReLU-pool runs on PyTorch's operators, which is slower")
    fast = copy.deepcopy(plain)
    fast.__class__ = FusedBlock  # made where there was one
    torch.testing.assert_close(learn(fast), learn(plain), rtol=0, atol=0)


def test_a_compiler_that_does_not_know_the_processor(anew, short_source, monkeypatch):
    monkeypatch.setattr(compiled, "_TUNED", ("-march=no-such-processor",))
    assert library("fused_block", torch.float64).fused_lanes() == 2


def test_nobodys_home(anew, short_source, monkeypatch):
    monkeypatch.setattr(compiled, "cache_dir", lambda: Path("~nobody-of-this-name").expanduser())
    assert library("fused_block", torch.float64).fused_lanes() > 1


def test_nothing_is_missing_where_the_compiler_works():
    assert compiler()
    assert missing("fused_block", torch.float64) is None
    assert hint(accelerate(SmallNetOptions().build((3, 32, 32), 10))) is None
    assert hint(nn.Linear(2, 2)) is None


def test_cc_with_arguments(monkeypatch):
    monkeypatch.setenv("CC", f"{compiler()[0]} -g0")
    assert compiler() == [compiler()[0], "-g0"]


def test_other_numbers_have_no_code():
    assert library("fused_block", torch.bfloat16) is None
    assert missing("fused_block", torch.bfloat16) is None  # nothing that a compiler would mend


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="these flags are of x86 processors")
@pytest.mark.parametrize("flags", [("-mno-avx512f",), ("-mno-avx",)], ids=["32 bytes", "16 bytes"])
def test_narrower_registers(anew, flags, monkeypatch):
    monkeypatch.setattr(compiled, "_FLAGS", (*compiled._FLAGS, *flags))
    assert library("fused_block", torch.float64).fused_lanes() <= (4 if "-mno-avx512f" in flags else 2)
    plain = block()
    fast = accelerate(copy.deepcopy(plain))
    assert fast_path.describe(fast)
    torch.testing.assert_close(learn(fast), learn(plain), rtol=1e-9, atol=1e-10)


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="Linux says there what a processor can")
def test_the_processor_is_part_of_the_name():
    assert b"flags" in compiled._processor() or b"Features" in compiled._processor()


def test_what_others_may_have_written_is_not_run(anew, short_source):
    library("fused_block", torch.float64)
    (kept,) = anew.iterdir()
    assert not anew.stat().st_mode & 0o077
    planted = kept.read_bytes()
    for place, mode in ((anew, 0o777), (anew, 0o770), (kept, 0o666)):
        place.chmod(mode)
        before = kept.stat().st_ino, kept.stat().st_mtime_ns
        compiled._find.cache_clear()
        assert library("fused_block", torch.float64).fused_lanes() > 1
        assert (kept.stat().st_ino, kept.stat().st_mtime_ns) != before
        assert not kept.stat().st_mode & 0o022
    assert kept.read_bytes() == planted


def test_nothing_is_kept_in_a_folder_of_somebody_else(anew, short_source, tmp_path, monkeypatch):
    library("fused_block", torch.float64)
    (kept,) = anew.iterdir()
    kept.write_bytes(b"not loaded")
    compiled._find.cache_clear()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert library("fused_block", torch.float64).fused_lanes() > 1
    assert kept.read_bytes() == b"not loaded"
    monkeypatch.undo()
    elsewhere = tmp_path / "elsewhere"
    anew.rename(elsewhere)
    anew.symlink_to(elsewhere)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert compiled._own(anew) is None


def test_a_compiler_with_odd_output(anew, tmp_path, monkeypatch):
    odd = tmp_path / "odd"
    odd.write_text("#!/bin/sh\nprintf '\\377\\376\\033[31m\\n' >&2; printf '\\377\\n'; exit 1\n")
    odd.chmod(0o755)
    monkeypatch.setenv("CC", str(odd))
    assert library("fused_block", torch.float64) is None
    assert "does not work" in missing("fused_block", torch.float64)
