"""The layer-wise schedule in Lava: every spike is that of the reference, and of a clocked one in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest
import random_networks as build
import torch
import windowed_reference
from eight_bit_networks import in_integers, pictures, topology
from integer_networks import in_fixed_point, integer_images
from lowered_networks import integers

from cos_export.errors import NetworkError, TargetError
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.network.windows import windows
from cos_export.simulation import simulate
from cos_export.simulation.fixed_point import quantise_input
from targets.lava import LavaTarget, run_network
from targets.workers.job import Job

pytestmark = pytest.mark.usefixtures("lava_environment")

BATCHED = LavaTarget("batched", batch_size=2, cores=2)
FAITHFUL = LavaTarget("faithful")
BOTH = pytest.mark.parametrize("options", [BATCHED, FAITHFUL], ids=lambda options: options.backend)


def layerwise(network: SpikingNetwork) -> SpikingNetwork:
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return replace(network.with_neurons(neurons), schedule="layerwise")


def skipping(*, shared: bool = False, **choices: Any) -> SpikingNetwork:
    """Three layers; the third reads the first and the image, too, and the readout reads all three and the image.

    Args:
        shared: Whether the third layer and the readout read the image and the first through one synapse.
        choices: Of the neurons.
    """
    rng = np.random.default_rng(5)
    specs = {name: build.neurons(rng, (6,), **choices) for name in ("if1", "if2", "if3")}
    nodes: dict[str, Any] = {"input": nir.Input(np.array([6])), "output": nir.Output(np.array([3]))}
    for name in ("fc1", "fc2", "fc3", "skip", "analog", "both"):
        nodes[name] = build.affine(rng, 6, 6)
    for name in ("read1", "read2", "read3", "readimage", "readboth", "last"):
        nodes[name] = build.affine(rng, 6, 3)
    nodes["last"] = build.affine(rng, 3, 3)
    for name, spec in specs.items():
        nodes[name] = build.spiking_node(spec)
    edges = [("input", "fc1"), ("fc1", "if1"), ("if1", "fc2"), ("fc2", "if2"), ("if2", "fc3"), ("fc3", "if3")]
    edges += [("if3", "read3"), ("if2", "read2"), ("read3", "last"), ("read2", "last"), ("last", "output")]
    if shared:
        edges += [("input", "both"), ("if1", "both"), ("both", "if3"), ("both", "readboth"), ("readboth", "last")]
    else:
        edges += [("if1", "skip"), ("skip", "if3"), ("input", "analog"), ("analog", "if3")]
        edges += [("if1", "read1"), ("read1", "last"), ("input", "readimage"), ("readimage", "output")]
    reached = {name for edge in edges for name in edge}
    nodes = {name: node for name, node in nodes.items() if name in reached}
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs, num_timesteps=4, schedule="layerwise")


def check(network: SpikingNetwork, images: Any, steps: int, options: LavaTarget, **more: Any) -> None:
    expected = simulate(network, images, steps, device="cpu", **more)
    actual = run_network(network, images, steps, options=options, **more)
    assert actual.spikes.keys() == expected.spikes.keys()
    assert any(0.02 < spikes.mean() < 0.98 for spikes in expected.spikes.values())
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], spikes, err_msg=name)
    np.testing.assert_array_equal(actual.logits, expected.logits)
    if more:
        return
    inputs = quantise_input(torch.from_numpy(images), network.quantisation).numpy()
    scale = 1.0 if network.quantisation is None else network.quantisation.readout_scale
    for number, image in enumerate(inputs):
        clocked = windowed_reference.run(network, [(1, image)], steps)
        for name in network.layers:
            np.testing.assert_array_equal(actual.spikes[name][:, number], clocked.spikes[name][0], err_msg=name)
        np.testing.assert_allclose(actual.logits[-1, number], scale * clocked.logits[0], rtol=1e-5, atol=1e-5)


@BOTH
@pytest.mark.parametrize(("seed", "steps"), [(1, 2), (2, 3), (3, 4), (6, 5)])
def test_random_networks(options: LavaTarget, seed: int, steps: int) -> None:
    network = layerwise(build.random_network(seed))
    check(network, build.images(network, 5 if options is BATCHED else 3, seed), steps, options)


@BOTH
@pytest.mark.parametrize("steps", [1, 3])
def test_layers_that_are_skipped(options: LavaTarget, steps: int) -> None:
    """Biases for each step, silent neurons, and a readout of layers of every depth."""
    network = skipping(bias_steps=1, silenced=True)
    assert windows(network, steps).interval == (3 * steps - 2) + 2 * (steps - 1) - (steps - 1)
    check(network, build.images(network, 5), steps, options)


@BOTH
@pytest.mark.parametrize("name", ["convolutions", "pooling", "residual", "one_axis", "scaled"])
def test_integers(options: LavaTarget, name: str) -> None:
    network = layerwise(in_integers(topology(name), 3))
    check(network, pictures(network, 3), 4, options)


@BOTH
def test_a_layer_that_nothing_reads_has_all_of_its_window(options: LavaTarget) -> None:
    """It closes after the readout has been taken, also that of the last sample."""
    network = integers("joined")
    known = windows(network, 3)
    assert known.opens["if4"] + 3 == known.last_step > known.latency
    check(network, pictures(network, 3), 3, options)


@pytest.mark.parametrize(("seed", "steps"), [(0, 1), (0, 4), (2, 3)])
def test_netx(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [build.conv2d(rng, 2, 4), build.IF, build.pool(nir.SumPool2d, 2), build.conv2d(rng, 4, 4), build.IF]
    network = build.sequential(rng, (2, 6, 4), [*layers, build.conv2d(rng, 4, 3), build.IF])
    network = layerwise(in_fixed_point(network, seed))
    check(network, integer_images(network, 3), steps, LavaTarget("netx"))


@BOTH
def test_states_of_each_sample(options: LavaTarget) -> None:
    network, rng = layerwise(build.residual(np.random.default_rng(4))), np.random.default_rng(1)
    states = SampleStates(
        v_init={name: build.dyadic(rng, 3, 4, 6, 5, low=-16, high=16) for name in network.layers},
        silent={"if2": rng.random((3, 4, 6, 5)) < 0.4},
    )
    check(network, build.images(network, 3), 3, options, states=states)


def test_more_steps_than_a_byte_counts() -> None:
    network = layerwise(build.random_network(2))
    check(network, build.images(network, 2), 300, BATCHED)


def test_a_shared_sum_of_unequal_depth_is_refused_by_the_faithful_back_end() -> None:
    network = skipping(shared=True)
    check(network, build.images(network, 3), 3, BATCHED)
    with pytest.raises(TargetError, match=r"'\w+', which is read out, adds layers of different depth.*batched"):
        run_network(network, build.images(network, 1), 3, options=FAITHFUL)


def test_a_reset_to_a_value_is_refused() -> None:
    network = replace(build.residual(np.random.default_rng(0), reset="value"), schedule="layerwise")
    with pytest.raises(NetworkError, match="reset to a value"):
        run_network(network, build.images(network, 1), 2)


def test_a_synapse_is_computed_once_for_all_steps(
    written_job: Callable[..., Job], worker_modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages of the batched back end, in one process and without Lava, on one clock."""
    steps, batch, network = 4, 2, skipping()
    batches = build.images(network, 5)
    job_folder = written_job(network, batches, steps, batch=batch).folder
    monkeypatch.chdir(job_folder)
    np.save("progress.npy", np.zeros(1, np.int64))
    job = worker_modules.job.read_job()
    passes: dict[str, int] = {}
    original = worker_modules.currents.Currents.step

    def step(self: Any, spikes: Any) -> Any:
        passes[self._stage.node.name] = passes.get(self._stage.node.name, 0) + 1
        return original(self, spikes)

    monkeypatch.setattr(worker_modules.currents.Currents, "step", step)
    stages = worker_modules.stages.cut(job.nodes)
    layers = {stage.node.name: worker_modules.layer.Layer(job, stage, 0) for stage in stages}
    outputs: dict[str, list[Any]] = {name: [] for name in layers}
    opens = {node.name: node.opens for node in job.nodes}
    for time_step in range(1, job.clock_steps(3) + 1):
        for stage in stages:
            name, spikes = stage.node.name, {}
            for source in stage.sources:
                wait = opens[name] - opens[source.name] if stage.node.kind == "output" else 0
                frames = outputs[source.name][: len(outputs[source.name]) - wait]
                spikes[source.name] = frames[-1] if frames else np.zeros((batch, *source.shape), bool)
            leaving = layers[name].advance(time_step, spikes)
            outputs[name].append(np.zeros((batch, *stage.node.shape), bool) if leaving is None else leaving)
            layers[name].record()
    expected = simulate(network, batches, steps, device="cpu")
    for index, name in enumerate(network.order):
        if name in network.neurons:
            packed = np.load(job_folder / f"spikes_{index}.npy")
            np.testing.assert_array_equal(np.unpackbits(packed, axis=-1, count=6), expected.spikes[name])
    assert passes == {"if1": 3, "if2": 3, "if3": 3, network.output_name: 3 * steps}


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_turns(worker_modules: SimpleNamespace, steps: int) -> None:
    """Against the contract in words, sample by sample."""
    interval, opens, delay, count = 3 * steps - 2, 2 * (steps - 1), 3, 4
    job = SimpleNamespace(steps=steps, interval=interval, layerwise=True)
    schedule = worker_modules.window_schedule.WindowSchedule(job, SimpleNamespace(opens=opens), delay, count)
    fires, constants = {}, {}
    for time_step in range(1, delay + count * interval + opens + 2 * steps):
        scheduled = schedule.at(time_step)
        if scheduled is not None and scheduled.fires is not None:
            fires[time_step] = (scheduled.number, scheduled.fires)
        if scheduled is not None and scheduled.constant is not None:
            constants[time_step] = (scheduled.number, scheduled.constant)
    window = [(s * interval + delay + opens + k, (s, k - 1)) for s in range(count) for k in range(1, steps + 1)]
    assert fires == dict(window)
    assert constants == {time_step - (steps - 1): scheduled for time_step, scheduled in window}
