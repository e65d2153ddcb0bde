"""The prepared command for a GPU, run on the CPU with tiny numbers: every section, or why it could not."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "gpu", raising=False)
    return importlib.import_module("gpu")


def test_every_section_ends_with_figures_or_a_reason(tmp_path: Path) -> None:
    numbers = ["--minutes", "0.4", "--batches", "4", "--steps", "1"]
    sections = ["--sections", "speed", "calibration", "onnxruntime"]
    out = tmp_path / "gpu"
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--device", "cpu", *numbers, *sections]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path / "keep"), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(out.with_suffix(".json").read_text())
    assert list(document["sections"]) == ["speed", "calibration", "onnxruntime"]
    for section in document["sections"].values():
        assert section["rows"] or section["ended"] != "done"
        # The end of its time is a reason, and a failure is not.
        assert not section["ended"].startswith("ended with exit code"), section["ended"]
    assert all(row["images/s"] > 0 for row in document["sections"]["speed"]["rows"])
    for row in document["sections"]["calibration"]["rows"]:
        assert row["updates/s"] > 0 and row["launched one by one, updates/s"] > 0
    # The table of a GPU stays absent until a GPU has made it.
    assert not out.with_suffix(".md").exists()


def test_a_section_that_dies_keeps_what_it_has_measured(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpu_sections.py").write_text(
        "import sys\nopen(sys.argv[3], 'w').write('{\"one\": 1}\\n')\nsys.exit('no CUDA here')\n"
    )
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "gpu.py"))
    settings = gpu.Settings("cpu", ["digits"], "digits", "digits", str(tmp_path), [1], [1], 1)
    section = gpu.run_section("speed", settings, 30.0, tmp_path)
    assert section["rows"] == [{"one": 1}]
    assert section["ended"] == "ended with exit code 1: no CUDA here"


def test_a_section_that_hangs_is_stopped(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpu_sections.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "gpu.py"))
    monkeypatch.setattr(gpu, "GRACE", 0.2)
    settings = gpu.Settings("cpu", ["digits"], "digits", "digits", str(tmp_path), [1], [1], 1)
    assert gpu.run_section("speed", settings, 0.5, tmp_path)["ended"].startswith("stopped after")


def test_parts_of_a_data_set_are_joined_in_order(gpu: ModuleType, tmp_path: Path) -> None:
    images = np.arange(5 * 3, dtype=np.uint8).reshape(5, 1, 1, 3)
    for number, part in enumerate((slice(0, 2), slice(2, 5))):
        np.savez(tmp_path / f"{number}.npz", images=images[part], labels=np.arange(5)[part])
    whole = gpu.joined([tmp_path / "0.npz", tmp_path / "1.npz"], tmp_path)
    with np.load(whole, allow_pickle=False) as opened:
        np.testing.assert_array_equal(opened["images"], images)
        np.testing.assert_array_equal(opened["labels"], np.arange(5))


def test_the_table_has_a_part_for_each_kind_of_row(gpu: ModuleType) -> None:
    rows = [{"network": "digits", "images/s": 1234.56}, {"exit code": 0, "summary": "1 passed"}]
    document = {
        "device_name": "card",
        "versions": {"torch": "2"},
        "minutes": 1.0,
        "sections": {"speed": {"ended": "stopped after 3 s", "rows": rows}},
    }
    table = gpu.markdown(document)
    assert "| digits | 1235 |" in table and "| 0 | 1 passed |" in table and "stopped after 3 s" in table
