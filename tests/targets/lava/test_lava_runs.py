"""Both back ends against the PyTorch reference: every number is dyadic, so not one spike may differ."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
from random_networks import (
    IF,
    affine,
    conv1d,
    conv2d,
    dyadic,
    flatten,
    images,
    neurons,
    pool,
    random_network,
    residual,
    sequential,
    spiking_node,
)

from cos_export.errors import InputError, NetworkError, TargetError
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.simulation import simulate
from cos_export.simulation.trace import Trace
from targets.lava import LavaTarget, run_network

pytestmark = pytest.mark.usefixtures("lava_environment")


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _graph(nodes: dict[str, Any], specs: dict[str, Any], *ways: str) -> SpikingNetwork:
    """A network whose ways are written as "input > conv > if"."""
    edges = []
    for way in ways:
        names = way.split(" > ")
        edges += list(pairwise(names))
    spiking = {name: spiking_node(spec) for name, spec in specs.items()}
    return SpikingNetwork(nir.NIRGraph({**nodes, **spiking}, edges, type_check=False), specs)


def _ends(shape: tuple[int, ...], classes: int) -> dict[str, Any]:
    return {"input": nir.Input(np.array(shape)), "output": nir.Output(np.array([classes]))}


def convolutions() -> SpikingNetwork:
    rng = _rng()
    layers = [
        conv2d(rng, 2, 4, (3, 2), stride=(2, 1), padding=(1, 2)),
        IF,
        conv2d(rng, 4, 6, (2, 4), padding="same", groups=2),
        IF,
        conv2d(rng, 6, 4, (2, 2), padding=1, dilation=(2, 1)),
        IF,
    ]
    return sequential(rng, (2, 7, 6), layers)


def pooling() -> SpikingNetwork:
    """A bias goes through the pooling that follows it, whose border holds zeros."""
    rng = _rng()
    layers = [conv2d(rng, 2, 3), IF, conv2d(rng, 3, 4), pool(nir.SumPool2d, 2, 2, 1), IF, pool(nir.AvgPool2d, 2), IF]
    return sequential(rng, (2, 6, 6), layers)


def one_axis() -> SpikingNetwork:
    rng = _rng()
    layers = [conv1d(rng, 2, 4, stride=2), IF, conv1d(rng, 4, 4, 2, padding="same", groups=2), IF]
    return sequential(rng, (2, 9), layers)


def dense_only() -> SpikingNetwork:
    rng = _rng()
    return sequential(rng, (6,), [affine(rng, 6, 9), IF, nir.Linear(dyadic(rng, 5, 9)), IF])


def scaled() -> SpikingNetwork:
    rng = _rng()
    layers = [conv2d(rng, 2, 3), IF, nir.Scale(dyadic(rng, 3, 4, 5)), IF, flatten(), nir.Scale(dyadic(rng, 60)), IF]
    return sequential(rng, (2, 4, 5), layers)


def uneven_ways() -> SpikingNetwork:
    """One layer is reached through none, one, two and three synapses, and a flat one twice through different ways."""
    rng = _rng()
    shape = (3, 4, 4)
    specs = {"if1": neurons(rng, shape), "if2": neurons(rng, shape), "if3": neurons(rng, (48,))}
    nodes = {
        **_ends((2, 4, 4), 3),
        "conv1": conv2d(rng, 2, 3),
        "conv2": conv2d(rng, 3, 3),
        "conv3": conv2d(rng, 3, 3),
        "short": conv2d(rng, 3, 3, (1, 1), padding=0),
        "flatten": flatten(),
        "flatten2": flatten(),
        "mix": affine(rng, 48, 48),
        "readout": affine(rng, 48, 3),
        "analog": affine(rng, 32, 3),
        "flatten3": flatten(),
    }
    return _graph(
        nodes,
        specs,
        "input > conv1 > if1 > conv2 > conv3 > if2",
        "if1 > if2",
        "if1 > short > if2",
        "if2 > flatten > mix > if3 > readout > output",
        "if1 > flatten2 > if3",
        "input > flatten3 > analog > output",
    )


def unread_layers() -> SpikingNetwork:
    """Two layers that nothing reads, which fire all the same; and a readout that is fed by neurons alone."""
    rng = _rng()
    specs = {"if1": neurons(rng, (4,)), "if2": neurons(rng, (2, 2, 2)), "if3": neurons(rng, (3,))}
    nodes = {
        **_ends((2, 2, 2), 4),
        "flatten": flatten(),
        "dense1": affine(rng, 8, 4),
        "dense2": affine(rng, 4, 3),
    }
    return _graph(nodes, specs, "input > flatten > dense1 > if1 > output", "input > if2", "if1 > dense2 > if3")


def partly_flattened() -> SpikingNetwork:
    rng = _rng()
    specs = {"if1": neurons(rng, (2, 3, 4)), "if2": neurons(rng, (2, 12)), "if3": neurons(rng, (24,))}
    nodes = {
        **_ends((2, 3, 4), 3),
        "rows": nir.Flatten(None, 1, 2),
        "conv": conv1d(rng, 2, 2),
        "flatten": flatten(),
        "readout": affine(rng, 24, 3),
    }
    return _graph(nodes, specs, "input > if1 > rows > conv > if2 > flatten > if3 > readout > output")


def no_neurons() -> SpikingNetwork:
    rng = _rng()
    return _graph({**_ends((4,), 2), "dense": affine(rng, 4, 2)}, {}, "input > dense > output")


def every_option() -> SpikingNetwork:
    rng = _rng()
    layers = [conv2d(rng, 2, 3), IF, conv2d(rng, 3, 3, stride=2), IF]
    return sequential(rng, (2, 5, 5), layers, condition=">", reset="value", bias_steps=3, silenced=True)


ALIKE = (convolutions, pooling, scaled, uneven_ways, unread_layers, partly_flattened, every_option)
"""What the faithful back end is tried on, too, which takes longer."""


@pytest.mark.parametrize("make", [uneven_ways, unread_layers])
def test_stages_that_work_steps_behind_each_other_hear_what_they_should(make: Callable[[], SpikingNetwork]) -> None:
    """A stage for each core: what skips a stage is kept as long as the longest way takes."""
    network = make()
    batch = images(network, 5, seed=3)
    actual = run_network(network, batch, 3, options=LavaTarget(batch_size=2, cores=9))
    _assert_same(actual, simulate(network, batch, 3, device="cpu"))


CASES = [("batched", make) for make in (*ALIKE, one_axis, dense_only, no_neurons)]
CASES += [("faithful", make) for make in ALIKE]


def _assert_same(actual: Trace, expected: Trace) -> None:
    assert actual.spikes.keys() == expected.spikes.keys()
    for name, spikes in expected.spikes.items():
        assert actual.spikes[name].dtype == np.bool_
        np.testing.assert_array_equal(actual.spikes[name], spikes, err_msg=name)
    assert actual.logits.dtype == np.float32
    np.testing.assert_array_equal(actual.logits, expected.logits)


@pytest.mark.parametrize(("backend", "make"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_every_spike_is_that_of_the_reference(backend: Any, make: Callable[[], SpikingNetwork]) -> None:
    network = make()
    batch = images(network, 3, seed=1)
    expected = simulate(network, batch, 4, device="cpu")
    for name, spikes in expected.spikes.items():
        assert 0 < spikes.mean() < 1, f"{name} would prove nothing"
    _assert_same(run_network(network, batch, 4, options=LavaTarget(backend, batch_size=2)), expected)


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_in_groups_of_samples(seed: int) -> None:
    """From one step to eight, samples that fill their last group or do not, and from one core to more than stages."""
    network = random_network(100 + seed)
    steps, samples = (1, 2, 5, 8)[seed], (5, 6, 1, 7)[seed]
    batch = images(network, samples, seed)
    actual = run_network(network, batch, steps, options=LavaTarget(batch_size=3, cores=(1, 2, 3, 7)[seed]))
    _assert_same(actual, simulate(network, batch, steps, device="cpu"))


@pytest.mark.parametrize("backend", ["batched", "faithful"])
def test_states_of_each_sample_take_the_place_of_the_networks(backend: Any) -> None:
    network, rng = residual(_rng(), silenced=True), np.random.default_rng(5)
    batch = images(network, 3)
    states = SampleStates(
        v_init={name: dyadic(rng, 3, *spec.shape) for name, spec in network.neurons.items()},
        silent={"if1": rng.random((3, *network.neurons["if1"].shape)) < 0.4},
    )
    expected = simulate(network, batch, 3, states=states, device="cpu")
    actual = run_network(network, batch, 3, states=states, options=LavaTarget(backend, batch_size=2))
    _assert_same(actual, expected)
    assert actual.states is states


def test_spikes_are_left_out_and_progress_is_told_up_to_the_last_sample() -> None:
    network, told = dense_only(), []
    batch = images(network, 4)
    actual = run_network(
        network,
        batch,
        2,
        record_spikes=False,
        progress=lambda stage, done, total: told.append((stage, done, total)),
        options=LavaTarget(batch_size=2),
    )
    assert not actual.spikes
    np.testing.assert_array_equal(actual.logits, simulate(network, batch, 2, device="cpu").logits)
    assert told[0] == ("running in Lava", 0, 4)
    assert told[-1] == ("running in Lava", 4, 4)


def test_a_target_runs_a_bundles_network() -> None:
    class Bundle:
        network = dense_only()

    batch = images(Bundle.network, 2)
    trace = LavaTarget().run(Bundle(), batch, 2)  # type: ignore[arg-type]
    _assert_same(trace, simulate(Bundle.network, batch, 2, device="cpu"))


def test_states_that_do_not_fit_are_named() -> None:
    network = residual(_rng())
    batch = images(network, 2)
    with pytest.raises(
        InputError, match=r"v_init of layer 'if1' must have shape \(2, 4, 6, 5\), and has \(1, 4, 6, 5\)"
    ):
        run_network(network, batch, 1, states=SampleStates(v_init={"if1": np.zeros((1, 4, 6, 5), np.float32)}))
    with pytest.raises(InputError, match="hold silent of a layer 'conv1', which the network does not have"):
        run_network(network, batch, 1, states=SampleStates(silent={"conv1": np.zeros((2, 4, 6, 5), bool)}))
    with pytest.raises(InputError, match="not finite"):
        bad = np.full((2, 4, 6, 5), np.nan, np.float32)
        run_network(network, batch, 1, states=SampleStates(v_init={"if1": bad}))


def test_a_node_that_lava_cannot_run_is_named() -> None:
    network = dense_only()
    name = next(name for name in network.order if name.startswith("linear"))
    network.graph.nodes[name] = nir.CubaLI(*[np.ones(5)] * 5) if hasattr(nir, "CubaLI") else nir.Delay(np.ones(5))
    with pytest.raises(NetworkError, match=f"Node {name!r} .* cannot be run: leaky neurons"):
        run_network(network, images(network, 1), 1)


def test_the_same_way_twice_is_run_by_one_back_end_and_named_by_the_other() -> None:
    rng = _rng()
    nodes = {**_ends((2, 2, 2), 3), "flat1": flatten(), "flat2": flatten(), "readout": affine(rng, 8, 3)}
    specs = {"if1": neurons(rng, (8,))}
    network = _graph(nodes, specs, "input > flat1 > if1 > readout > output", "input > flat2 > if1")
    batch = images(network, 2)
    _assert_same(run_network(network, batch, 3), simulate(network, batch, 3, device="cpu"))
    with pytest.raises(TargetError, match="Node 'if1' adds the same input twice"):
        run_network(network, batch, 3, options=LavaTarget("faithful"))
