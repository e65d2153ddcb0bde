from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from small_networks import two_layers

import cos_export as ce
from cos_export.accuracy import measure_accuracy
from cos_export.datasets import Dataset
from cos_export.network.schedule import Schedule
from cos_export.terminal.cost_lines import cost_lines, rounded
from cos_export.terminal.tables import accuracy_table

IMAGES = np.random.default_rng(0).integers(0, 33, (6, 2, 5, 5)).astype(np.float32) / np.float32(16)
NOISE = Dataset(IMAGES, np.arange(6) % 4, "noise", "none")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999.4, "999"), (999.6, "1.00k"), (31_647_748, "31.6M"), (123_456, "123k"), (2.5e9, "2.50G")],
)
def test_counts_have_three_digits(count: float, text: str) -> None:
    assert rounded(count) == text


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
def test_beside_every_accuracy_stand_its_steps_and_operations(schedule: Schedule) -> None:
    network = replace(two_layers(seed=1), schedule=schedule)
    row = measure_accuracy(network, NOISE, (1, 2, 4))
    assert row.latency == {t: t if schedule == "synchronous" else t + 2 * (t - 1) for t in (1, 2, 4)}
    for t in (1, 2, 4):
        assert row.synaptic_operations[t] == ce.costs(network, IMAGES, t).operations.synaptic_operations
    written = row.to_dict()
    assert written["latency"] == {str(t): steps for t, steps in row.latency.items()}
    assert written["synaptic_operations"] == {str(t): count for t, count in row.synaptic_operations.items()}
    screen = Console(width=80)
    with screen.capture() as shown:
        screen.print(accuracy_table(0.5, [row], "Accuracy"))
    lines = [line.split() for line in shown.get().splitlines()]
    assert ["steps", *(str(steps) for steps in row.latency.values())] in lines
    assert ["ops", *(rounded(count) for count in row.synaptic_operations.values())] in lines


def test_a_per_sample_method_shows_what_it_waits_for() -> None:
    row = measure_accuracy(two_layers(seed=1), NOISE, (1, 2), calibration=ce.COS(4))
    assert (row.method, row.rho) == ("cos", 4)
    assert row.latency == {1: 2 * 4 + 1, 2: 2 * 4 + 2}
    for t in (1, 2):
        expected = ce.costs(two_layers(seed=1), IMAGES, t, ce.COS(4)).operations.synaptic_operations
        assert row.synaptic_operations[t] == expected


def test_a_deployment_is_told_in_words() -> None:
    told = cost_lines(ce.costs(two_layers(seed=1), IMAGES, 4, ce.COS(4)).to_dict())
    assert max(map(len, told)) < 80
    lines = " ".join(told)
    for word in ("readout after 12 steps (15 with", "next image after 8", "before the run", "3 bits"):
        assert word in lines
    assert "before the run" not in " ".join(cost_lines(ce.costs(two_layers(seed=1), IMAGES, 4).to_dict()))
