"""A network that was lowered, whose input is held for some steps only, in both back ends of Lava."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from eight_bit_networks import pictures
from lowered_networks import check_windows, integers

import cos_export
from cos_export.errors import NetworkError
from cos_export.simulation import simulate
from targets.lava import LavaTarget
from targets.lava.lava_target import run_network


@pytest.mark.usefixtures("lava_environment")
@pytest.mark.parametrize("backend", ["batched", "faithful"])
def test_every_spike_of_every_window_is_fired(backend: Any) -> None:
    network, steps = integers("joined"), 3
    images, result = pictures(network, 3), cos_export.lowered(network, 3)
    trace = run_network(result, images, options=LavaTarget(backend, batch_size=2, cores=2))
    expected = simulate(network, images, steps, device="cpu")
    check_windows(network, steps, trace.spikes, expected.spikes)
    np.testing.assert_allclose(trace.logits[-1], expected.logits[-1], rtol=1e-6)


@pytest.mark.usefixtures("lava_environment")
def test_netx_holds_the_input_for_all_steps() -> None:
    network = cos_export.lowered(integers("convolutions"), 3)
    with pytest.raises(NetworkError, match="held for 3 only"):
        run_network(network, pictures(network, 1), options=LavaTarget("netx"))
