"""Arrays in a file beside the graph: written, moved and checked with it, and never any other file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import random_networks as build
from bundles import relist

from cos_export.bundle import load
from cos_export.errors import BundleError, InputError
from cos_export.exporting import export
from cos_export.network import SpikingNetwork
from cos_export.onnx_file import write_onnx
from cos_export.reading.onnx_model import read_onnx
from cos_export.simulation import simulate
from targets.onnxruntime import OnnxRuntimeTarget
from targets.pytorch import PyTorchTarget
from targets.verification import verify


def network() -> SpikingNetwork:
    rng = np.random.default_rng(0)
    return build.sequential(rng, (2, 9, 9), [build.conv2d(rng, 2, 8), "if", build.conv2d(rng, 8, 8), "if"])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart") / "bundle"
    export(network(), folder, 3, golden=build.images(network(), 4), external_above=2000)
    return folder


def test_a_bundle_lists_it_and_runs_from_it_wherever_it_is_moved(written: Path, tmp_path: Path) -> None:
    shutil.move(shutil.copytree(written, tmp_path / "first"), tmp_path / "elsewhere")
    bundle = load(tmp_path / "elsewhere")
    assert "model.onnx.data" in bundle.manifest["files"]
    assert bundle.onnx_path.stat().st_size < (bundle.path / "model.onnx.data").stat().st_size
    result = verify(bundle, targets=[OnnxRuntimeTarget(threads=1), PyTorchTarget()])
    assert result.passed and result["onnxruntime"].mismatches == 0
    images = build.images(network(), 3, 1)
    trace = OnnxRuntimeTarget(threads=1).run(bundle, images, 3, record_spikes=False)
    np.testing.assert_array_equal(trace.logits, simulate(network(), images, 3).logits)


def test_it_is_as_large_as_its_file_and_no_graph_could_hold(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = max(
        int(np.prod(tensor.dims))
        for tensor in onnx.load(written / "model.onnx", load_external_data=False).graph.initializer
        if tensor.external_data
    )
    monkeypatch.setattr("cos_export.reading.onnx_model.MAX_ONNX_TENSOR", largest - 1)
    assert verify(load(written), targets=[OnnxRuntimeTarget(threads=1)]).passed


def test_arrays_do_not_share_bytes(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "bundle"))
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    first = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for number in range(50):
        other = model.graph.initializer.add()
        other.CopyFrom(first)
        other.name = f"copy {number}"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"arrays of [\d,]+ bytes lie in model\.onnx\.data, which has"):
        read_onnx(folder / "model.onnx")


def test_any_reader_of_onnx_finds_it(written: Path) -> None:
    images = build.images(network(), 3, 2)
    session = onnxruntime.InferenceSession(written / "model.onnx", providers=["CPUExecutionProvider"])
    model = onnx.load(written / "model.onnx")
    for held in (session, onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])):
        np.testing.assert_array_equal(
            held.run(["logits"], {"images": images})[0], simulate(network(), images, 3).logits
        )
    onnx.checker.check_model(str(written / "model.onnx"), full_check=True)


def test_a_single_file_has_it_beside_itself(tmp_path: Path) -> None:
    for _ in range(2):
        write_onnx(network(), tmp_path / "a.onnx", 2, external_above=0)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    write_onnx(network(), tmp_path / "b.onnx", 2)
    assert not (tmp_path / "b.onnx.data").exists()


def _other_bytes(folder: Path, model: onnx.ModelProto) -> None:
    file = folder / "model.onnx.data"
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))


def _cut(folder: Path, model: onnx.ModelProto) -> None:
    file = folder / "model.onnx.data"
    file.write_bytes(file.read_bytes()[:-8])


def _linked(folder: Path, model: onnx.ModelProto) -> None:
    file = folder / "model.onnx.data"
    file.rename(folder.parent / "real")
    file.symlink_to(folder.parent / "real")


def _entry(key: str, value: str) -> Callable[[Path, onnx.ModelProto], None]:
    def change(folder: Path, model: onnx.ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_bytes, "does not hold"),
        (_cut, "which it has not"),
        (_linked, "link"),
        (_entry("location", "../model.onnx.data"), "from another file"),
        (_entry("location", "/etc/passwd"), "from another file"),
        (_entry("offset", "-4096"), "not a number of bytes"),
        (_entry("offset", str(2**40)), "which it has not"),
        (_entry("length", "8"), "which it has not"),
        (_entry("checksum", ""), "does not hold"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(
    written: Path, tmp_path: Path, change: Callable[[Path, onnx.ModelProto], None], message: str
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "bundle"))
    change(folder, onnx.load(folder / "model.onnx", load_external_data=False))
    with pytest.raises(InputError, match=message):
        read_onnx(folder / "model.onnx")
    with pytest.raises(BundleError):
        load(folder)
    if change is not _linked:
        relist(folder)
        with pytest.raises(BundleError, match=message):
            OnnxRuntimeTarget().run(load(folder), build.images(network(), 1), 3)
