"""One place says how many bits integers have, and what a new width takes."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cos_export.errors import NetworkError
from cos_export.numerics import INTEGERS, NUMERICS, check_width, input_ranges, numerics_of, signed_range

ROOT = Path(__file__).parents[2]


def test_what_bits_hold() -> None:
    assert [signed_range(bits) for bits in (2, 4, 8)] == [(-2, 1), (-8, 7), (-128, 127)]
    assert input_ranges(8) == ((-127, 127), (0, 255))
    assert (numerics_of(None), numerics_of(8)) == ("float32", "int8")
    assert dict(NUMERICS) == {"float32": None, "int8": 8}
    assert INTEGERS == ("int8",)
    with pytest.raises(NetworkError, match="weight_bits is 5; networks of integers have 4 or 8 bits here"):
        check_width("weight_bits", 5, (4, 8))


def sources() -> list[Path]:
    return [path for package in ("cos_export", "calibration", "targets") for path in (ROOT / package).rglob("*.py")]


def spelled(path: Path) -> set[object]:
    """The constants of 8 bits that a module's code has, its docstrings left aside."""
    constants = {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)}
    known = {value for value in constants if isinstance(value, int | float) and value in (126, 127, 128, 254, 255, 256)}
    # Beside "uint8" it is a type of ONNX, and no network's numerics.
    return known | ({"int8"} & constants if "uint8" not in constants else set())


def test_no_module_spells_what_one_place_knows() -> None:
    places = {path.relative_to(ROOT).as_posix(): values for path in sources() if (values := spelled(path))}
    # Other meanings of such numbers, such as 256 images held out, are in modules that know no integers of a network.
    about_integers = {name for name in places if "Quantisation" in (ROOT / name).read_text("utf-8")}
    assert not about_integers, {name: places[name] for name in about_integers}
    assert not {name for name, values in places.items() if "int8" in values}
    assert not {name for name in places if name.startswith(("cos_export/quantisation/", "cos_export/network/"))}


NEW_WIDTH = """
import sys

import nir
import numpy as np
import torch
from torch import nn

from cos_export.capturing import capture
from cos_export.exporting import export
from cos_export.parity import verify
from cos_export.qcfs import QCFS
from cos_export.quantisation import check_ranges, quantise
from targets.onnxruntime import OnnxRuntimeTarget

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1), QCFS(4, 1.0), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)
).eval()
images = np.random.default_rng(0).random((8, 2, 6, 6), np.float32)
network = quantise(capture(model, images), images, steps=3, weight_bits=4, device="cpu")
assert network.numerics == "int4"
weights = [node.weight for node in network.graph.nodes.values() if hasattr(node, "weight")]
assert {int(np.abs(weight).max()) for weight in weights} <= {5, 6, 7, 8}, weights
bundle = export(network, sys.argv[1], steps=3, golden=images)
assert bundle.network.quantisation == network.quantisation and bundle.manifest["numerics"] == "int4"
result = verify(bundle, [OnnxRuntimeTarget()])
assert result.passed and result["onnxruntime"].mismatches == 0
wrong = dict(network.graph.nodes)
name = next(name for name, node in wrong.items() if isinstance(node, nir.Affine))
wrong[name] = nir.Affine(np.where(wrong[name].weight > 0, 9, 0).astype(np.float32), wrong[name].bias)
try:
    check_ranges(network.with_nodes({name: wrong[name]}), 3)
except Exception as error:
    assert "integers of -8..7" in str(error), error
else:
    raise SystemExit("a weight of 9 is not one of 4 bits")
"""


def test_a_new_width_of_weights_is_one_line(tmp_path: Path) -> None:
    """It may take five files. Whatever else depends on the width, to the parity of a bundle, is derived from one."""
    for package in ("cos_export", "calibration", "targets"):
        skipped = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=skipped)
    place = tmp_path / "cos_export" / "numerics.py"
    text = place.read_text("utf-8")
    assert "WEIGHT_WIDTHS = (8,)" in text
    place.write_text(text.replace("WEIGHT_WIDTHS = (8,)", "WEIGHT_WIDTHS = (4, 8)"), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", NEW_WIDTH, str(tmp_path / "bundle")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-3000:]
