"""Files that nobody vouches for: whatever they say, no code of theirs runs, and memory and time stay bounded."""

import gzip
import io
import os
import pickle
import pickletools
import resource
import struct
import zipfile

import numpy as np
import pytest
from test_data import know, small  # noqa: F401 (fixtures)

from thriftylib.datasets import arrays
from thriftylib.datasets.load import load
from thriftylib.errors import DataError, ThriftyError
from thriftylib.spec import Data

PICKLED = "imagenet32-pickle-2"


class Calls:
    """Pickled as a call of ``what``."""

    def __init__(self, what, *arguments, state=None):
        self.how = (what, arguments, state) if state is not None else (what, arguments)

    def __reduce__(self):
        return self.how


def crafted(mark):
    """Pickles that would run something, or harm numpy; by what they do."""
    reconstruct, numbers = np.empty(0).__reduce__()[0], np.arange(6, dtype=np.uint8)
    pointers = pickle.dumps(np.arange(2, dtype=np.int64), 2)
    # A state of dtype whose flags (the last number, 63) say that the bytes are references to objects.
    references = pointers.replace(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t", b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK?t")
    assert references != pointers
    harmful = {
        "a system call": pickle.dumps(Calls(os.system, f"mkdir {mark}")),
        "in the data": pickle.dumps({"data": Calls(os.mkdir, str(mark)), "labels": [1]}, 2),
        "as a key": pickle.dumps({Calls(os.mkdir, str(mark)): 1}, 2),
        "eval": pickle.dumps(Calls(eval, f"__import__('os').mkdir({str(mark)!r})")),
        "protocol 0": b"cos\nmkdir\n(V" + str(mark).encode() + b"\ntR.",
        "an instance": b"(V" + str(mark).encode() + b"\nios\nmkdir\n.",
        "an object": b"(cos\nmkdir\nV" + str(mark).encode() + b"\no.",
        "a new object": b"\x80\x02cos\nmkdir\nV" + str(mark).encode() + b"\n\x85\x81.",
        "references": b"\x80\x02}(X\x04\x00\x00\x00data" + references[2:-1] + b"X\x06\x00\x00\x00labels](K\x01K\x02eu.",
        "numpy's objects": pickle.dumps({"data": np.array([Calls(os.mkdir, str(mark))], object), "labels": [1]}, 2),
        "a shape of its own": pickle.dumps({"data": Calls(reconstruct, np.ndarray, (10**12,), b"b"), "labels": [1]}, 2),
        "another state": pickle.dumps(
            {"data": Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, (9,), numbers.dtype, False, b"123"))}, 2
        ),
        "a place in the memo": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
        "a long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "a deep list": b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".",
        "a number of 5000 digits": b"I" + b"9" * 5000 + b"\n.",
        "an extension": b"\x80\x02\x82\x01.",
        "somebody else's reference": b"\x80\x02X\x01\x00\x00\x00xQ.",
        "no dictionary": pickle.dumps([1, 2]),
        "texts as labels": pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["1"]}, 2),
    }
    return harmful


@pytest.mark.parametrize("kind", crafted("x"))
def test_a_crafted_batch_runs_nothing(small, kind, monkeypatch):  # noqa: F811
    name, root, *_ = small(PICKLED)
    mark = root / "ran"
    called = []
    monkeypatch.setattr(arrays, "Symbol", watched := type("Symbol", (arrays.Symbol,), {"__slots__": ()}))
    watched.__call__ = lambda self, *words: called.append(self.name) or arrays.Symbol(self.name, words)
    (root / "Imagenet32_val/val_data").write_bytes(crafted(mark)[kind])
    with pytest.raises(DataError, match="val_data: corrupt or truncated") as caught:
        load(Data(name=name), root=root)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_every_name_becomes_a_symbol_and_nothing_else_is_called():
    """The opcodes that call something get their callable from a name alone."""
    found = arrays.read_pickle(pickle.dumps({"a": Calls(os.system, "true"), "b": os.system, "c": np.float32(1)}, 2))
    assert all(type(value) is arrays.Symbol for value in found.values())
    assert (found["a"].name, found["a"].arguments) == ("posix.system", ("true",))
    calling = {op.name for op in pickletools.opcodes if any(word in op.doc for word in ("calling", "callable"))}
    assert calling <= {"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"}


def npz(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(head, content=b""):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + content


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -3072)}", bytes(3072)),
        npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': '|V8', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 3072)}", bytes(3073)),
        npy("(" * 4000),
        npy("__import__('os').abort()"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31),
        b"none",
    ],
)
def test_an_odd_array_of_an_archive_is_refused(member):
    with pytest.raises(Exception, match=r".") as caught:
        arrays.read_npz(npz(data=member), "data")
    assert isinstance(caught.value, Exception)


def test_arrays_that_are_in_order_are_those_of_numpy():
    for made in (np.arange(6, dtype=np.uint8).reshape(2, 3), np.asfortranarray(np.eye(3, dtype=">f4")), np.int64([3])):
        for protocol in range(2, 5):
            found = arrays.array(arrays.read_pickle(pickle.dumps({"x": made}, protocol))["x"])
            np.testing.assert_array_equal(found, made)
            assert found.dtype == made.dtype
        file = io.BytesIO()
        np.savez(file, x=made)
        np.testing.assert_array_equal(arrays.read_npz(file.getvalue(), "x"), made)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_nothing_is_unpacked_without_end(small):  # noqa: F811
    name, root, *_ = small("fashionmnist-gz")
    path = root / "fashion-mnist/train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(2**28), 1))
    before = peak()
    with pytest.raises(DataError, match="holds more than .* bytes"):
        load(Data(name=name), root=root)
    assert peak() - before < 2**16  # KiB
    sparse = root / "fashion-mnist/train-images-idx3-ubyte"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="holds more than .* bytes"):
        load(Data(name=name), root=root)


@pytest.mark.parametrize("place", ["file", "long", "null", "closed"])
def test_a_folder_of_data_that_cannot_be_read_is_named(tmp_path, place, monkeypatch):
    root = {"long": tmp_path / ("x" * 300), "null": tmp_path / "a\0b"}.get(place, tmp_path / place)
    if place == "file":
        root.write_text("")
    if place == "closed":  # root may enter any folder

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("pathlib.Path.stat", refuse)
    with pytest.raises(ThriftyError if place == "null" else DataError) as caught:
        load(Data(name="mnist"), root=root)
    assert place in ("null",) or root.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert place != "file" or f"{root} is no folder" in str(caught.value)


def test_data_nearby_are_pointed_out(small):  # noqa: F811
    name, root, *_ = small("cifar10-py")
    below = root / "cifar-10-batches-py"
    with pytest.raises(DataError, match=f"they are below {root}: give that folder"):
        load(Data(name=name), root=below)
    outer = root / "a" / "outer"
    (outer / "data").mkdir(parents=True)
    (outer / "data/cifar-10-batches-py").symlink_to(below)
    with pytest.raises(DataError, match=f"they are below {outer}/data: give that folder"):
        load(Data(name=name), root=outer)
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (root / "cifar-10-batches-py/test_batch").unlink()
    (elsewhere / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="cifar-10-python.tar.gz seems to hold them: unpack it"):
        load(Data(name=name), root=elsewhere)
    (elsewhere / "cifar-10-python.tar.gz").rename(elsewhere / "holiday.zip")
    with pytest.raises(DataError) as caught:
        load(Data(name=name), root=elsewhere)
    assert "holiday" not in str(caught.value)
