"""A network of integers that holds something else is refused wherever its integers are relied upon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eight_bit_networks import in_integers, pictures, topology, with_node

from cos_export.errors import NetworkError
from cos_export.exporting import export
from cos_export.network import SpikingNetwork
from cos_export.parity import check_local
from cos_export.quantisation import check_ranges
from cos_export.simulation import simulate

FIELDS = {"weight", "bias", "scale"}


def damaged(name: str) -> list[tuple[str, str, SpikingNetwork]]:
    """Each array of each node and layer with one number in it that is off by a quarter."""
    network, networks = in_integers(topology(name), 1), []

    def off(values: Any) -> Any:
        changed = np.array(values, np.float32)
        changed.flat[-1] += 0.25
        return changed

    for node in network.order:
        held = network.graph.nodes[node]
        for field in FIELDS & set(vars(held)):
            if node not in network.neurons and getattr(held, field) is not None:
                networks.append((node, field, with_node(network, node, **{field: off(getattr(held, field))})))
    for layer, spec in network.neurons.items():
        for field in ("threshold", "v_init", "v_reset", "bias"):
            if getattr(spec, field) is not None:
                changed = replace(spec, **{field: off(getattr(spec, field))})
                networks.append((layer, field, network.with_neurons({layer: changed})))
    return networks


@pytest.mark.parametrize("name", ["residual", "scaled", "every_option"])
def test_each_array_of_each_node(name: str, tmp_path: Path) -> None:
    whole = in_integers(topology(name), 1)
    images = pictures(whole, 2)
    trace, kinds = simulate(whole, images, 2), set()
    check_local(whole, images, trace)
    for node, field, network in damaged(name):
        kinds.add(field)
        for attempt in (
            lambda n=network: check_ranges(n, 2),
            lambda n=network: check_local(n, images, trace),
            lambda n=network: export(n, tmp_path / "out", 2, golden=images),
        ):
            with pytest.raises(NetworkError, match=rf"Node '{node}': {field}\["):
                attempt()
        assert not (tmp_path / "out").exists()
    assert kinds >= {"weight", "threshold", "v_init"} and (name != "scaled" or "scale" in kinds)


def test_float32_may_hold_fractions() -> None:
    network = topology("residual")
    images = np.random.default_rng(0).normal(size=(2, *network.input_shape)).astype(np.float32)
    check_local(network, images, simulate(network, images, 2))
