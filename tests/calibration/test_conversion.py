"""From a module to a calibrated network: how often its code is traced on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from calibration.choices import Choices
from calibration.conversion import convert
from calibration.data_parts import data_parts
from calibration.methods.half import Half
from calibration.methods.mean_matching import MeanMatching
from calibration.thresholds import relu_thresholds
from cos_export.capturing import capture
from cos_export.qcfs import QCFS


def module(activation: str) -> nn.Module:
    torch.manual_seed(0)
    parts = [nn.Conv2d(2, 4, 3, padding=1), QCFS(4, 1.0) if activation == "QCFS" else nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kind of each module that is exported."""
    names: list[str] = []

    def counted(model: nn.Module, *arguments: Any, **options: Any) -> Any:
        names.append(type(model).__name__)
        return torch.export.export(model, *arguments, **options)

    monkeypatch.setattr("cos_export.capturing.tracing.export", counted)
    return names


@pytest.fixture
def data(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    images, labels = rng.random((40, 2, 6, 6), np.float32), rng.integers(0, 3, 40)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    return str(tmp_path / "set.npz")


@pytest.mark.parametrize("activation", ["QCFS", "ReLU"])
@pytest.mark.parametrize("method", [Half(), MeanMatching(rounds=1)], ids=lambda method: method.name)
@pytest.mark.parametrize("numerics", ["float32", "int8"])
def test_a_conversion_exports_its_module_once(
    activation: str, method: Any, numerics: str, data: str, traces: list[str]
) -> None:
    model = module(activation)
    choices = Choices(method, steps=2, device="cpu", numerics=numerics)
    parts = data_parts(model, data, choices)
    done = convert(model, parts, choices)
    assert traces == ["Sequential"]
    # The one graph serves for all three: what data it needs, its thresholds, and the network.
    thresholds = {}
    if parts.calibration is not None:
        thresholds = relu_thresholds(model, parts.calibration.images, steps=2, device="cpu")
    assert {key: value.tolist() for key, value in done.thresholds.items()} == {
        key: value.tolist() for key, value in thresholds.items()
    }
    if numerics == "float32":
        alone = capture(model, parts.evaluation.images[:1], thresholds=thresholds)
        for name, node in alone.graph.nodes.items():
            if hasattr(node, "weight"):
                np.testing.assert_array_equal(done.network.graph.nodes[name].weight, node.weight)
    assert (parts.calibration is None) == (activation == "QCFS" and method.name == "half" and numerics == "float32")


def test_labels_of_other_classes_do_not_decide_between_methods(tmp_path: Path) -> None:
    """Such as those of a folder that holds all images to calibrate on, where each would be of class 0."""
    for place, names in (("data", ("ant", "bee", "cat")), ("alike", ("ant", "bee", "cat")), ("calibration", ("all",))):
        for name in names:
            (tmp_path / place / name).mkdir(parents=True)
            for number in range(8):
                Image.fromarray(np.full((6, 6, 3), number, np.uint8)).save(tmp_path / place / name / f"{number}.png")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), QCFS(4, 1.0), nn.Flatten(), nn.Linear(64, 3)).eval()
    choices = Choices(MeanMatching(), steps=2, device="cpu", samples=4)
    for place, labelled in (("alike", True), ("calibration", False)):
        parts = data_parts(model, str(tmp_path / "data"), choices, calibration=str(tmp_path / place))
        assert parts.evaluation.labels is not None and parts.evaluation.class_names == ("ant", "bee", "cat")
        for part in (parts.calibration, parts.held_out):
            assert part is not None
            assert (part.labels is not None) == labelled == (part.class_names is not None)
