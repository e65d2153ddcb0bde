from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import relist
from onnx import TensorProto, helper, numpy_helper
from small_networks import two_layers

from cos_export.bundle import load
from cos_export.errors import BundleError, InputError
from cos_export.exporting import export
from cos_export.reading.onnx_model import read_onnx
from targets.onnxruntime import OnnxRuntimeTarget

IMAGES = np.zeros((2, 2, 5, 5), np.float32)


def test_data_in_another_file_is_refused(tmp_path: Path) -> None:
    """The bias of the readout is taken from a file outside of the bundle, whose bytes would come out as logits."""
    bundle = export(two_layers(seed=1), tmp_path / "b", 2, golden=IMAGES)
    (tmp_path / "secret").write_bytes(np.arange(64, dtype=np.float32).tobytes())
    model = onnx.load(bundle.onnx_path)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) == 16)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    bundle.onnx_path.write_bytes(model.SerializeToString())
    relist(bundle.path)
    opened = load(bundle.path)
    with pytest.raises(BundleError, match="from another file"):
        OnnxRuntimeTarget().run(opened, IMAGES, 2)


def model(tensor: onnx.TensorProto, wraps: int = 0) -> onnx.ModelProto:
    graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "g", [], [])
    for _ in range(wraps):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    return helper.make_model(graph)


def test_it_is_found_wherever_it_hides(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "hidden")
    (tmp_path / "a.onnx").write_bytes(model(tensor, wraps=3).SerializeToString())
    read_onnx(tmp_path / "a.onnx")
    tensor.external_data.add(key="location", value="/etc/passwd")
    for wraps in (0, 3):
        (tmp_path / "a.onnx").write_bytes(model(tensor, wraps).SerializeToString())
        with pytest.raises(InputError, match="'hidden' from another file"):
            read_onnx(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(model(tensor, wraps=20).SerializeToString())
    with pytest.raises(InputError, match=r"nested deeper|is not an ONNX graph"):
        read_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize("dims", [[2**40], [2**62, 2**62], [-1], [2**20, 2**20]])
def test_a_constant_that_claims_too_much_is_refused(tmp_path: Path, dims: list[int]) -> None:
    tensor = TensorProto(name="big", data_type=TensorProto.FLOAT, dims=dims)
    (tmp_path / "a.onnx").write_bytes(model(tensor).SerializeToString())
    with pytest.raises(InputError, match="claims"):
        read_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", ["text", "empty", "pipe", "link"])
def test_what_is_not_a_graph_is_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.onnx"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("" if kind == "empty" else "hello, this is text")
    with pytest.raises(InputError, match=r"not an ONNX graph|named pipe|symbolic link"):
        read_onnx(path)
