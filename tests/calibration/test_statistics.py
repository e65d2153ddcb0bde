"""The means that calibrations are made of are those of a run whose spikes are recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from calibration.data import calibration_data
from calibration.statistics import mean_rates
from cos_export.capturing import capture
from cos_export.network.schedule import Schedule
from cos_export.qcfs import QCFS
from cos_export.simulation import simulate

IMAGES = np.random.default_rng(0).random((10, 2, 6, 6), np.float32)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
def test_mean_rates_are_those_of_recorded_spikes(schedule: Schedule) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), QCFS(4, 0.5), nn.Conv2d(4, 4, 3), QCFS(4, 0.7), nn.Flatten(), nn.Linear(64, 3)
    )
    network = replace(capture(module, IMAGES[:1]), schedule=schedule)
    actual = mean_rates(network, calibration_data(network, IMAGES, batch_size=4), 3, "cpu")
    recorded = simulate(network, IMAGES, 3, device="cpu").spikes
    assert tuple(actual) == network.layers
    for name, spikes in recorded.items():
        assert 0 < spikes.mean() < 1
        np.testing.assert_allclose(actual[name].mean(0), spikes.mean((0, 1)), rtol=1e-12)
