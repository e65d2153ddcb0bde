from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cos_export.errors import InputError
from cos_export.reading.npz import open_npz


def read(path: Path, name: str = "x") -> np.ndarray:
    with open_npz(path) as archive:
        return archive.read(name)


def npy(shape: object, dtype: object = "<f4", body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy that says what it is told to."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}}}\n".encode()
    size = struct.pack("<H", len(header)) if version == b"\x01\x00" else struct.pack("<I", len(header))
    return b"\x93NUMPY" + version + size + header + body


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED, name: str = "x.npy") -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(12, dtype=np.int64).reshape(3, 4)),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.array([True, False]),
        np.array(7),
        np.zeros((0, 5), np.float32),
        np.linspace(0, 1, 700_000),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}"[:30],
)
def test_what_numpy_saves_comes_back(tmp_path: Path, save: Callable[..., None], array: np.ndarray) -> None:
    save(tmp_path / "a.npz", x=array)
    actual = read(tmp_path / "a.npz")
    assert actual.dtype == array.dtype.newbyteorder("=") and actual.flags.c_contiguous
    assert actual.shape == array.shape and np.array_equal(actual, array)


BAD = {
    "1 TiB claimed": (npy((2**38,)), "takes 1,099,511,627,776 bytes, and the file holds 0"),
    "more than 64 bits": (npy((2**70,)), "no array has"),
    "negative": (npy((-1,)), "no array has"),
    "a shape of booleans": (npy((True,), body=b"1234"), "no array has"),
    "too many axes": (npy((1,) * 40, body=b"1234"), "no array has"),
    "short": (npy((2,), body=b"1234"), "the file holds 4"),
    "long": (npy((1,), body=b"12345678"), "the file holds 8"),
    "objects": (npy((1,), "|O", b"12345678"), "Python objects is refused"),
    "structured": (npy((1,), [("a", "<f4"), ("b", "<f4")], b"12345678"), "plain booleans"),
    "sub-array": (npy((1,), ("<f4", (2,)), b"12345678"), "plain booleans|damaged header"),
    "bfloat16": (npy((1,), "|V2", b"12"), "bfloat16"),
    "complex": (npy((1,), "<c8", b"12345678"), "plain booleans"),
    "text": (npy((1,), "<U2", b"12345678"), "plain booleans"),
    "bytes": (npy((1,), "|S8", b"12345678"), "plain booleans"),
    "dates": (npy((1,), "<M8[s]", b"12345678"), "plain booleans"),
    "booleans of 2": (npy((2,), "|b1", b"\x01\x02"), "other than 0 and 1"),
    "not an array": (b"hello", "not an array of numpy"),
    "another version": (npy((1,), body=b"1234", version=b"\x03\x00"), "version"),
    "code in the header": (b"\x93NUMPY\x01\x00\x20\x00__import__('os').abort()       \n", "damaged header"),
    "brackets": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 4000) + b"(" * 4000, "damaged header"),
    "minus signs": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 4000) + b"-" * 3999 + b"1", "damaged header"),
    "a header of 4 GiB": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "header of 4,294,967,295 bytes"),
    "a header cut short": (b"\x93NUMPY\x01\x00\xff\x00{", "damaged header"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_what_is_wrong_with_an_array_is_said(tmp_path: Path, content: bytes, message: str, compression: int) -> None:
    with pytest.raises(InputError, match=message):
        read(archive(tmp_path / "bad.npz", content, compression))


def test_what_is_wrong_with_an_archive_is_said(tmp_path: Path) -> None:
    path, good = tmp_path / "a.npz", io.BytesIO()
    np.savez_compressed(good, x=np.arange(5000, dtype=np.int32) % 7)
    content = good.getvalue()

    def refused(damaged: bytes, message: str) -> None:
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            read(path)

    refused(b"", "not an .npz archive")
    refused(b"just text", "not an .npz archive")
    refused(npy((1,), body=b"1234"), "single array")
    refused(content[:-30], "not an .npz archive")
    directory = content.index(b"PK\x01\x02")
    refused(content[: directory + 8] + b"\x01\x00" + content[directory + 10 :], "encrypted")
    refused(content[: directory + 10] + b"\x0c\x00" + content[directory + 12 :], "does not write")
    refused(content[: directory + 10] + b"\x63\x00" + content[directory + 12 :], "does not write")
    middle = 200
    refused(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :], "damaged|cut short")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", npy((1,), body=b"1234"))
        file.writestr("x.npy", npy((1,), body=b"5678"))
    with pytest.raises(InputError, match="twice"):
        read(path)


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        file.write(npy((300 * 2**20,), "|u1"))
        for _ in range(300):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="would inflate to 314,572,800"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_claim_that_its_bytes_do_not_bear_out_is_refused(tmp_path: Path) -> None:
    """The directory says 200 MB, and the few bytes inflate to 4."""
    path = archive(tmp_path / "a.npz", npy((50_000_000,), body=b"1234"), zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    size = struct.unpack_from("<I", content, directory + 24)[0]
    struct.pack_into("<I", content, directory + 24, size - 4 + 200_000_000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cut short|damaged"):
        read(path)


def test_a_directory_of_a_million_entries_is_not_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", npy((1,), body=b"1234"))
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = content[start:end] * 40_000
    tail = bytearray(content[end:])
    struct.pack_into("<II", tail, 12, len(entries), start)
    path.write_bytes(content[:start] + entries + tail)
    with pytest.raises(InputError, match="claims"):
        read(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing", "loop", "nul"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.npz"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "nul":
        path = Path("a\0.npz")
    with pytest.raises(InputError, match=r"named pipe|a folder|a device|does not exist|cannot be opened"):
        read(path)


def test_links_can_be_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    assert read(tmp_path / "link.npz").tolist() == [1, 1, 1]
    with pytest.raises(InputError, match="symbolic link"), open_npz(tmp_path / "link.npz", links=False):
        pass
