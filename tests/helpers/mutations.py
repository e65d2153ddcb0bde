"""Files that were damaged at random, each from a seed, and what opens them."""

from __future__ import annotations

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import relist
from nir_mutations import mutated_fields
from small_networks import two_layers
from torch import nn

from calibration.checkpoint import Checkpoint
from cos_export import zoo
from cos_export.bundle import Bundle, load
from cos_export.bundle.results import read_results
from cos_export.datasets import load_dataset
from cos_export.errors import CosExportError
from cos_export.exporting import export
from cos_export.network import SpikingNetwork
from cos_export.nir_file import read_nir
from targets.onnxruntime import OnnxRuntimeTarget

IMAGES = np.random.default_rng(0).integers(-32, 33, (3, 2, 5, 5)).astype(np.float32) / np.float32(16)
METRICS = {
    "dataset": "noise",
    "samples": 3,
    "ann_accuracy": 0.9,
    "methods": [{"method": "half", "num_timesteps": None, "rho": 0, "accuracy": {"1": 0.5, "2": 0.75}}],
}
_NUMBERS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1,
    10**9,
    2**63,
    1e300,
    "",
    "../x",
    "$a$",
    [],
    {},
    [[[[]]]],
    {"a": {"a": {}}},
)
_TOKENS = (b"NaN", b"1e999", b"-0", b"null", b"[", b"}", b'"', b"\\u0000", b"\xff", b"0" * 5000, b"[" * 3000)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: Writes a good one into an empty folder, and returns its path.
        open: Does with a file what the product does with it.
        mutate: Damages its bytes.
    """

    make: Callable[[Path], Path]
    open: Callable[[Path], object]
    mutate: Callable[[bytes, random.Random], bytes]


def outcome(kind: Kind, path: Path) -> str:
    """ "valid" or "refused"; of anything else, the exception's name."""
    try:
        kind.open(path)
    except CosExportError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - what the product lets through is the finding
        return f"{type(error).__name__}: {error}"[:200]
    return "valid"


def in_bytes(content: bytes, rng: random.Random) -> bytes:
    """From one to four changes to the bytes, wherever they are."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, length = rng.randrange(len(data) + 1), min(rng.choice((1, 2, 4, 8, 64, 1000)), len(data))
        end = at + length
        change = rng.randrange(9)
        if change == 0:
            data[at : at + 1] = bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1])
        elif change == 1:
            data[at:end] = rng.randbytes(length)
        elif change == 2:
            data[at:end] = rng.choice((b"\0", b"\xff", b"(", b"9")) * length
        elif change == 3:
            del data[at:end]
        elif change == 4:
            data[at:at] = data[max(0, at - length) : at]
        elif change == 5:
            size = rng.choice((1, 2, 4, 8))
            data[at : at + size] = (rng.choice(_NUMBERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
        elif change == 6:
            del data[at:]
        elif change == 7:
            data[at:at] = rng.choice(_TOKENS)
        else:
            other = rng.randrange(len(data) + 1)
            data[at:end], data[other : other + length] = data[other : other + length], data[at:end]
    return bytes(data)


def in_json(content: bytes, rng: random.Random) -> bytes:
    """A value of the document replaced, moved, repeated or taken out; or its bytes changed."""
    if rng.random() < 0.3:
        return in_bytes(content, rng)
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 2))):
        places = _places(document)
        holder, key = rng.choice(places)
        change = rng.randrange(4)
        if change == 0:
            holder.pop(key)
        elif change == 1:
            other, name = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[name])) if name in other or isinstance(name, int) else None
        elif change == 2 and isinstance(holder, list):
            holder.extend(holder * (rng.choice((1, 20, 1000)) if len(holder) < 20 else 1))
        else:
            holder[key] = rng.choice(_VALUES)
        document = json.loads(json.dumps(document))
        if not _places(document):
            break
    return json.dumps(document).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def in_members(content: bytes, rng: random.Random) -> bytes:
    """A member of a zip archive damaged and its checksum made to agree; or the archive damaged as bytes."""
    if not content.startswith(b"PK") or rng.random() < 0.4:
        return in_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = rng.choice(sorted(members))
    # Most of an array is its numbers; what is worth damaging is the header.
    head = rng.choice((64, 130, len(members[chosen])))
    members[chosen] = in_bytes(members[chosen][:head], rng) + members[chosen][head:]
    written, stored = io.BytesIO(), rng.random() < 0.7
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return written.getvalue()


def in_safetensors(content: bytes, rng: random.Random) -> bytes:
    """The header damaged as JSON with its length made to agree; or the file damaged as bytes."""
    if rng.random() < 0.4:
        return in_bytes(content, rng)
    size = int.from_bytes(content[:8], "little")
    header = in_json(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def in_fields(content: bytes, rng: random.Random) -> bytes:
    """A field of a NIR graph with another value, type or shape; or gone; or renamed."""
    return mutated_fields(content, np.random.default_rng(rng.getrandbits(64)))[1]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


def _bundle(folder: Path) -> Path:
    export(two_layers(seed=1), folder / "b", 2, golden=IMAGES, labels=[0, 1, 2], metrics=METRICS)
    return folder / "b"


def _in_bundle(name: str) -> Callable[[Path], Path]:
    return lambda folder: _bundle(folder) / name


@cache
def _network() -> SpikingNetwork:
    return two_layers(seed=1)


def _loaded(folder: Path) -> Bundle:
    """The bundle with its network at hand: a process of its own reads model.nir, which is a kind by itself."""
    bundle = load(folder)
    bundle.__dict__["network"] = _network()
    return bundle


def _open_manifest(path: Path) -> None:
    bundle = _loaded(path.parent)
    assert bundle.steps > 0 and bundle.golden


def _open_golden(path: Path) -> None:
    relist(path.parent)
    assert _loaded(path.parent).golden


def _open_results(path: Path) -> None:
    read_results(path, _network(), 2, len(IMAGES))


def _open_onnx(path: Path) -> None:
    relist(path.parent)
    OnnxRuntimeTarget(threads=1).run(_loaded(path.parent), IMAGES, 2)


def _data(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", images=np.full((4, 1, 6, 6), 7, np.uint8), labels=np.arange(4))
    return folder / "a.npz"


def _pth(folder: Path) -> Path:
    torch.save(network().state_dict(), folder / "a.pth")
    return folder / "a.pth"


def _old_pth(folder: Path) -> Path:
    torch.save(network().state_dict(), folder / "a.pth", _use_new_zipfile_serialization=False)
    return folder / "a.pth"


def _safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    note = {"start": {"levels": 4, "swapped": {"2": 1.5}}}
    state = network().state_dict() | {"2.threshold": torch.tensor(1.5)}
    save_file(state, folder / "a.safetensors", metadata={"training": json.dumps(note)})
    return folder / "a.safetensors"


def _open_weights(path: Path) -> None:
    zoo.load_weights(network(), path)


_CALIBRATION = {"steps": 4, "method": {"name": "static"}}


def _state(folder: Path) -> Path:
    kept = Checkpoint(folder / "a.resume.safetensors", _CALIBRATION, every=0)
    kept.save("tuning", 3, {"v_init/first": torch.ones(3, 5, 5), "average": torch.zeros(6)})
    return folder / "a.resume.safetensors"


def _open_state(path: Path) -> None:
    loaded = Checkpoint(path, _CALIBRATION).load("tuning")
    # A state is hashed, so what is read is what was written.
    assert loaded is None or (loaded[0] == 3 and sorted(loaded[1]) == ["average", "v_init/first"])


KINDS: Mapping[str, Kind] = {
    "manifest.json": Kind(_in_bundle("manifest.json"), _open_manifest, in_json),
    "golden.npz": Kind(_in_bundle("golden.npz"), _open_golden, in_members),
    "results.npz": Kind(_in_bundle("golden.npz"), _open_results, in_members),
    "model.onnx": Kind(_in_bundle("model.onnx"), _open_onnx, in_bytes),
    "model.nir": Kind(_in_bundle("model.nir"), read_nir, in_bytes),
    "model.nir fields": Kind(_in_bundle("model.nir"), read_nir, in_fields),
    "data.npz": Kind(_data, load_dataset, in_members),
    "weights.pth": Kind(_pth, _open_weights, in_members),
    "weights.old.pth": Kind(_old_pth, _open_weights, in_bytes),
    "weights.safetensors": Kind(_safetensors, _open_weights, in_safetensors),
    "resume.safetensors": Kind(_state, _open_state, in_safetensors),
}


class Trials:
    """Damaged files of one kind, one for each seed, in a folder of their own."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = KINDS[kind]
        self._good = folder / "good"
        self._good.mkdir()
        self._path = self.kind.make(self._good)
        self._content = self._path.read_bytes()
        self._tried = folder / "tried"
        self._name = kind
        if outcome(self.kind, self._path) != "valid":
            raise ValueError(f"The {kind} to be damaged is not a good one.")

    def file(self, seed: int) -> Path:
        """The file of that seed. Whatever the trial before left is gone."""
        shutil.rmtree(self._tried, ignore_errors=True)
        shutil.copytree(self._good, self._tried)
        path = self._tried / self._path.relative_to(self._good)
        path.write_bytes(self.kind.mutate(self._content, random.Random(f"{self._name} {seed}")))
        return path
