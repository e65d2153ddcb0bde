"""A tenth of the topologies that benchmarks/networks.py measures, and that its table is the one on record."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("networks")


@pytest.mark.parametrize(
    "name",
    [
        "LeNet-5, max pooling",
        "discriminator, LeakyReLU, one logit",
        "residual perceptron, features",
        "temporal convolutions, signals",
    ],
)
def test_a_topology_converts_exactly_and_passes_parity(networks: ModuleType, name: str) -> None:
    row = networks.measured(name)
    assert row["converts"] and row["parity"] and row["mismatches"] == 0, row
    assert row["off_by"] < 1e-5
    # In integers every current is what it was up to 1/16 of how much it varies, as 4 bits would do.
    assert row["int8_off_by"] < 1 / 16


def test_what_does_not_convert_says_why(networks: ModuleType) -> None:
    row = networks.measured("SENet")
    assert not row["converts"] and "sigmoid" in row["reason"]


def test_the_table_is_that_of_the_record(networks: ModuleType) -> None:
    document = json.loads((ROOT / "docs" / "measured" / "networks.json").read_text("utf-8"))
    assert networks.markdown(document) == (ROOT / "docs" / "measured" / "networks.md").read_text("utf-8")
    assert [row["network"] for row in document["rows"]] == list(networks.TOPOLOGIES) and len(document["rows"]) == 40
    assert all(row["parity"] and row["off_by"] < 1e-4 for row in document["rows"] if row["converts"])
