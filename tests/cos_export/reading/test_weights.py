from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cos_export.errors import InputError
from cos_export.reading.weights import read_safetensors, read_safetensors_note, read_torch
from cos_export.zoo import load_weights


def safetensors(path: Path, header: Any, body: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def entry(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


BAD: dict[str, tuple[Any, bytes, int | None]] = {
    "a header of 2^60 bytes": ({}, b"", 2**60),
    "a header beyond the file": ({}, b"", 1000),
    "not JSON": (b"[" * 1000, b"", None),
    "claims 1 TiB": (entry("F32", [2**38], 2**40), b"1234", None),
    "overflow": (entry("F32", [2**63], 4), b"1234", None),
    "strides overflow": (entry("F32", [0, 10**18, 10**18], 0), b"", None),
    "half bytes": (entry("F4", [2], 1), b"1", None),
    "float8": (entry("F8_E4M3", [2], 2), b"12", None),
    "a hole": (entry("F32", [1], 4), b"12345678", None),
    "many tensors": ({f"t{i}": entry("F32", [0], 0)["x"] for i in range(50_000)}, b"", None),
}


@pytest.mark.parametrize(("header", "body", "length"), BAD.values(), ids=BAD)
def test_a_damaged_safetensors_is_refused(tmp_path: Path, header: Any, body: bytes, length: int | None) -> None:
    with pytest.raises(InputError):
        read_safetensors(safetensors(tmp_path / "a.safetensors", header, body, length))


def test_what_a_header_notes_is_json_within_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(2)}, path, metadata={"note": "[" * 10_000, "other": '{"a": 1}'})
    assert read_safetensors_note(path, "other") == {"a": 1} and read_safetensors_note(path, "third") is None
    with pytest.raises(InputError, match="nested deeper"):
        read_safetensors_note(path, "note")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "text", "empty"])
def test_no_weights_are_no_weights(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("" if kind == "empty" else "These are my weights.\n")
    with pytest.raises(InputError, match=r"named pipe|a folder|a device|cannot be read"):
        load_weights(nn.Linear(2, 2), path)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_nothing_in_a_pth_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Hostile()}, "new.pth")
    torch.save({"x": Hostile()}, "old.pth", _use_new_zipfile_serialization=False)
    Path("raw.pth").write_bytes(pickle.dumps(Hostile()))
    for name in ("new.pth", "old.pth", "raw.pth"):
        with pytest.raises(InputError, match="nothing in it is run"):
            read_torch(name)
    assert not Path("ran").exists()


def test_a_compressed_pth_may_be_a_bomb_and_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(2**20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
    assert (tmp_path / "bomb.pth").stat().st_size < 2**17
    with pytest.raises(InputError, match="compressed"):
        read_torch(tmp_path / "bomb.pth")


ODD = {
    "sparse": torch.eye(2).to_sparse(),
    "complex": torch.ones(2, 2, dtype=torch.complex64),
    "no data": torch.ones(2, 2, device="meta"),
    "float8": torch.ones(2, 2).to(torch.float8_e4m3fn),
    "of no storage": torch.ones(1).expand(2, 2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_named(tmp_path: Path, kind: str) -> None:
    torch.save({"weight": ODD[kind], "bias": torch.ones(2)}, tmp_path / "a.pth")
    model = nn.Linear(2, 2)
    if kind == "of no storage":
        load_weights(model, tmp_path / "a.pth")
        assert model.weight.tolist() == [[1, 1], [1, 1]]
        return
    with pytest.raises(InputError, match=r"'weight' in .* is (not a dense tensor|of type)|cannot be read as plain"):
        load_weights(model, tmp_path / "a.pth")
