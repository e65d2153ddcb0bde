"""The examples run, and say what they should."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import numpy as np
import pytest
from narrowing import present

import cos_export as ce
from cos_export import zoo
from cos_export.c_code.writer import write_c
from targets.c import CTarget
from targets.c.compiler import find

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(sys, "argv", ["digits.py", str(tmp_path / "out")]):
        runpy.run_path(str(EXAMPLES / "digits.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "6,400 neurons in 5 layers" in said and "0 local violations: passed" in said
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_the_notebook_runs_from_its_first_cell_to_its_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    codes = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in codes), "clear its outputs"
    assert len({cell["id"] for cell in document["cells"]}) == len(document["cells"])
    shown: list[int | str] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf().number))
    names: dict[str, Any] = {"__name__": "__main__"}
    with plt.rc_context({"backend": "agg"}):
        for number, cell in enumerate(codes):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        plt.close("all")
    said = capsys.readouterr().out
    assert "0 violations: passed" in said and "6,400 neurons in 5 layers" in said
    assert len(shown) == 2 and set(names["accuracy"]) == set(names["networks"]) and len(names["networks"]) == 4
    assert all(shares[-1] > 0.98 for shares in names["accuracy"].values())


@pytest.mark.skipif(not CTarget().available().ready, reason="no C compiler is installed")
def test_the_c_program_classifies_as_the_network_does(tmp_path: Path) -> None:
    train, test = ce.load_dataset("digits", "train"), ce.load_dataset("digits", "test")
    model = zoo.build("digits")
    zoo.load_weights(model, zoo.weights_path("digits"))
    network = ce.quantise(ce.capture(model, test.images[:1]), train.images[:64], steps=4)
    pixels = np.rint(255 * test.images[:20]).astype(np.uint8)
    bundle = ce.export(network, tmp_path / "digits", 4, golden=pixels)
    written = write_c(bundle, tmp_path / "code")
    assert written.source.table_bytes < 2**17 - 2**13  # 128 KiB of flash, with room for the instructions
    sources = [EXAMPLES / "c" / "main.c", written.folder / "digits.c"]
    find().compile(sources, tmp_path / "classify", ["-O1", "-Werror", f"-I{written.folder}"])
    lines = "\n".join(" ".join(map(str, image.ravel())) for image in pixels)
    said = subprocess.run([tmp_path / "classify"], input=lines, capture_output=True, text=True, check=True).stdout
    classes = np.array([line.split() for line in said.splitlines()], int)
    np.testing.assert_array_equal(classes.T, bundle.golden.trace.logits.argmax(-1))
    assert (classes[:, -1] == present(test.labels)[:20]).mean() > 0.9
