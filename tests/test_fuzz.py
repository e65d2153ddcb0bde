"""Damaged files give a valid result or the product's own error; random networks fire what float64 says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from float64_simulation import Simulated, simulate_float64
from mutations import KINDS, Trials, outcome
from step_loop import in_runtime, loop, rounded
from wild_networks import wild_network

from cos_export.lowering import lowered
from cos_export.network.windows import windows
from cos_export.onnx_file import build_model, build_step_model
from cos_export.onnx_file.step_interface import step_interface
from cos_export.quantisation import check_ranges
from cos_export.simulation import simulate

TRIALS = 300
NATIVE = "model.onnx"
"""What native code reads, which might end the process: in a child."""

_FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith((NATIVE, "model.nir"))])
def test_damage_is_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    trials = Trials(kind, tmp_path)
    outcomes = {seed: outcome(trials.kind, trials.file(seed)) for seed in range(TRIALS)}
    assert {seed: each for seed, each in outcomes.items() if each not in ("valid", "refused")} == {}
    assert list(outcomes.values()).count("refused") > TRIALS // 10, "most damage is seen"


def test_damage_does_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, _FUZZ, "--kinds", NATIVE, "--trials", str(TRIALS), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [actual] = json.loads(done.stdout)
    assert actual["trials"] == TRIALS and actual["valid"] + actual["refused"] == TRIALS


def _check(expected: Simulated, spikes: Any, logits: Any) -> None:
    for name, fired in expected.spikes.items():
        np.testing.assert_array_equal(spikes[name], fired, err_msg=name)
    np.testing.assert_allclose(logits, expected.logits, rtol=1e-5, atol=1e-5 * np.abs(expected.logits).max())


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_fire_what_plain_float64_does(seed: int) -> None:
    """Every spike, and the logits of every step, or of the last from the step graph and the lowered network."""
    network, images, steps = wild_network(seed)
    if network.quantisation is not None:
        check_ranges(network, steps)
    expected = simulate_float64(network, images, steps)
    trace = simulate(network, images, steps, device="cpu")
    _check(expected, trace.spikes, trace.logits)
    unrolled = in_runtime(build_model(network, steps))({"images": images})
    _check(expected, {name: unrolled[f"spikes/{name}"] for name in network.layers}, unrolled["logits"])
    if network.input_encoding == "frames":
        return
    in_steps, total = loop(
        in_runtime(build_step_model(network, steps)), step_interface(network, steps).to_dict(), rounded(network, images)
    )
    _check(Simulated(expected.spikes, expected.logits[-1]), in_steps, total)
    if network.schedule == "synchronous":
        return
    if network.quantisation is not None and steps > 16:
        # Held down for 32 windows of each layer, some of these integers leave their 24 bits, and are refused.
        steps = 16
        expected = simulate_float64(network, images, steps)
    low = lowered(network, steps, input_range=None if network.quantisation else (-1.0, 2.0))
    actual = simulate_float64(low, images, low.num_timesteps or 0)
    opens = windows(network, steps).opens
    inside = {name: actual.spikes[name][first : first + steps] for name, first in opens.items()}
    assert all(actual.spikes[name].sum() == fired.sum() for name, fired in inside.items()), "a spike outside its window"
    _check(Simulated(expected.spikes, expected.logits[-1]), inside, actual.logits[-1])
