"""Pickles that would build more than a state dict holds are refused before torch builds it."""

from __future__ import annotations

import pickle
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from narrowing import of_type
from torch import nn

from cos_export.errors import InputError
from cos_export.reading.pickled import check_pickle
from cos_export.reading.weights import read_torch
from cos_export.zoo import load_weights


def doubled(first: bytes, double: Callable[[int], bytes], times: int = 60) -> bytes:
    """An object, and `times` times one that holds the one before twice: on the stack, and in the memo."""
    return first + b"q\x00" + b"".join(double(i - 1) + b"q" + bytes([i]) for i in range(1, times))


TUPLES = doubled(b"K\x01\x85", lambda last: b"h" + bytes([last]) + b"\x86")
LISTS = doubled(b"]", lambda last: b"](h" + bytes([last]) + b"h" + bytes([last]) + b"e")
DICTS = doubled(b"}", lambda last: b"}(K\x01h" + bytes([last]) + b"K\x02h" + bytes([last]) + b"u")
HOSTILE = {
    "a key": b"\x80\x02}" + TUPLES + b"K\x01s.",
    "keys at once": b"\x80\x02}(" + TUPLES + b"K\x01u.",
    "a member of a set": b"\x80\x02cbuiltins\nset\n](" + TUPLES + b"e\x85R.",
    "a function": b"\x80\x02" + TUPLES + b")R.",
    "a storage": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n" + TUPLES + b"X\x03\x00\x00\x00cpuK\x01tQ.",
    "values": b"\x80\x02}X\x01\x00\x00\x00a" + TUPLES + b"s.",
    "lists": b"\x80\x02" + LISTS + b".",
    "dictionaries": b"\x80\x02" + DICTS + b".",
    "itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "filled afterwards": b"\x80\x02"
    + b"".join(b"}q" + bytes([i]) for i in range(60))
    + b"".join(
        b"h"
        + bytes([i])
        + b"X\x01\x00\x00\x00ah"
        + bytes([i + 1])
        + b"s"
        + b"X\x01\x00\x00\x00bh"
        + bytes([i + 1])
        + b"s"
        for i in range(59)
    )
    + b"h\x00.",
    "memory": b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "its own memory": b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "a text of 4 GiB": b"\x80\x02X\xff\xff\xff\xff.",
    "a text of 2^62 bytes": b"\x80\x02\x8d" + (2**62).to_bytes(8, "little") + b".",
    "no end": b"\x80\x02}",
    "nothing to take": b"\x80\x02s.",
    "a mark to keep": b"\x80\x02(q\x00.",
    "not in the memo": b"\x80\x02h\x05.",
}


def archived(path: Path, content: bytes, name: str = "data.pkl") -> Path:
    """An archive of torch.save's with other instructions."""
    torch.save({"a": torch.zeros(1)}, path.with_suffix(".good"))
    with zipfile.ZipFile(path.with_suffix(".good")) as good, zipfile.ZipFile(path, "w") as made:
        for member in good.infolist():
            is_it = member.filename.endswith("data.pkl")
            made.writestr(member.filename.replace("data.pkl", name), content if is_it else good.read(member))
    return path


def older(path: Path, content: bytes) -> Path:
    """A file of torch.save's older format: three pickles about the format, then the object."""
    start = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    path.write_bytes(start + content)
    return path


@pytest.mark.parametrize("make", [archived, older])
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_would_not_end_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path, bytes], Path], content: bytes
) -> None:
    path = make(tmp_path / "a.pth", content)
    started = time.process_time()
    with pytest.raises(InputError, match=r"a\.pth"):
        read_torch(path)
    assert time.process_time() - started < 5.0, "it is not built: that would take 2^60 operations"


def test_torch_finds_its_instructions_in_capitals_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 4,000,000 values"):
        read_torch(archived(tmp_path / "a.pth", HOSTILE["a key"], "DATA.PKL"))


def test_too_many_instructions_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_export.reading.pickled._MOST_INSTRUCTIONS", 1000)
    with pytest.raises(InputError, match="more than 1,000 instructions"):
        check_pickle(b"\x80\x02" + b"N0" * 600 + b"N.", "a.pth")
    path = archived(tmp_path / "a.pth", b"\x80\x02" + bytes(2**25) + b".")
    with pytest.raises(InputError, match="33,554,435 bytes, and 33,554,432 are read at most"):
        read_torch(path)


def test_a_tar_archive_of_an_early_torch_is_named(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.pth", "w") as archive:
        archive.add(older(tmp_path / "pickle", HOSTILE["a key"]), "pickle")
    with pytest.raises(InputError, match=r"a tar archive, of a torch before version 0\.1\.10"):
        read_torch(tmp_path / "a.pth")


def checkpoint() -> dict[str, Any]:
    """What a training script keeps: a network, an optimiser with its state, a schedule, text and numbers."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2, dtype=torch.bfloat16))
    optimiser = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return {
        "state_dict": model.state_dict(),
        "optimizer": optimiser.state_dict(),
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10).state_dict(),
        "history": [(epoch, 0.5, {"loss": 1.0}) for epoch in range(1000)],
        "arguments": OrderedDict(seed=1, name="a", sizes={1, 2}, steps=torch.Size([1, 2]), big=10**30, flag=None),
    }


@pytest.mark.parametrize("old", [False, True])
def test_a_checkpoint_of_training_is_read_as_before(tmp_path: Path, old: bool) -> None:
    kept = checkpoint()
    torch.save(kept, tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    actual = read_torch(tmp_path / "a.pth")
    assert isinstance(actual, dict) and actual.keys() == kept.keys()
    assert actual["arguments"] == kept["arguments"] and actual["history"] == kept["history"]
    for name, tensor in kept["state_dict"].items():
        assert torch.equal(actual["state_dict"][name], tensor) and actual["state_dict"][name].dtype == tensor.dtype
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2, dtype=torch.bfloat16))
    load_weights(model, tmp_path / "a.pth")
    assert torch.equal(of_type(model[0], nn.Conv2d).weight, kept["state_dict"]["0.weight"])
