"""What was measured of clients and runtimes: the tables are those of the JSON, and stand in the page as they are."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import random_networks as build

from cos_export.nir_file import write_nir
from cos_export.simulation import simulate

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "docs" / "measured" / "clients.md"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("client_runs.table")


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("client_runs.variants")


def test_the_tables_say_what_the_json_says(table: ModuleType) -> None:
    document = json.loads(MEASURED.with_suffix(".json").read_text("utf-8"))
    assert table.markdown(document) == MEASURED.read_text("utf-8")


def test_every_table_stands_in_the_page() -> None:
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", MEASURED.read_text("utf-8"), re.MULTILINE)
    assert len(tables) == 3 and all(found in page for found in tables)


def test_a_neuron_of_the_contract_fires_every_spike_and_one_that_ignores_a_part_does_not(
    variants: ModuleType, tmp_path: Path
) -> None:
    network = replace(build.residual(np.random.default_rng(0)), num_timesteps=5)
    images = build.images(network, 6)
    write_nir(network, tmp_path / "net.nir")
    expected = simulate(network, images, 5)
    differing = {}
    for variant in variants.variants():
        _, fired = variants.run(tmp_path / "net.nir", images, 5, variant)
        differing[variant] = sum(int((fired[name] != spikes).sum()) for name, spikes in expected.spikes.items())
    assert differing[variants.CONTRACT] == 0 and next(iter(differing)) == variants.CONTRACT
    for part in ({"v_init": False}, {"to_zero": True}, {"decay": 0.9}, {"several": True}):
        assert differing[variants.Variant(**part)] > 0, part
