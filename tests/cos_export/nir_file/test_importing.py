"""Files of other tools: NIR's own equations, and what cannot be run."""

from itertools import pairwise
from typing import Any

import h5py
import nir
import numpy as np
import pytest
import random_networks as build
from narrowing import present

from cos_export.errors import InputError, NetworkError
from cos_export.nir_file import read_nir, write_nir
from cos_export.simulation import simulate

T = 6


def _nir_reference(weight, bias, node, image, steps, dt=1.0):
    """Affine -> IF by NIR's equations: v' = R I; z = v > v_thr; v = v_reset where z. Spikes (steps, n)."""
    v = np.zeros(np.shape(node.v_threshold))
    spikes = []
    for _ in range(steps):
        v = v + node.r * dt * (weight @ image + bias)
        z = v > node.v_threshold
        v = np.where(z, node.v_reset, v)
        spikes.append(z)
    return np.array(spikes)


def _write(path, node, *, names=("in", "0", "10", "2", "out"), metadata=None, edges=None, n=6):
    rng = np.random.default_rng(4)
    nodes = {
        names[0]: nir.Input(np.array([4])),
        names[1]: build.affine(rng, 4, n),
        names[2]: node,
        names[3]: build.affine(rng, n, 3),
        names[4]: nir.Output(np.array([3])),
    }
    edges = edges or list(pairwise(names))[::-1]
    nir.write(path, nir.NIRGraph(nodes, edges, metadata=metadata or {}, type_check=False))
    return nodes[names[1]]


def _if(rng, n=6, r=1.0, v_reset=None, threshold=None):
    threshold = build.dyadic(rng, n, low=2, high=8, unit=0.25) if threshold is None else threshold
    return nir.IF(np.full(n, r, np.float32), threshold, v_reset)


@pytest.mark.parametrize("r", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("hard", [False, True])
def test_a_foreign_graph_means_what_nir_says(tmp_path, r, hard):
    rng = np.random.default_rng(5)
    node = _if(rng, r=r, v_reset=build.dyadic(rng, 6, low=-4, high=1) if hard else None)
    synapse = _write(tmp_path / "model.nir", node)
    network = read_nir(tmp_path / "model.nir")
    spec = network.neurons["10"]
    assert (spec.condition, spec.reset, network.num_timesteps, network.method) == (">", "value", None, "none")
    images = build.dyadic(rng, 20, 4, low=-8, high=16)
    actual = simulate(network, images, T).spikes["10"]
    expected = [_nir_reference(synapse.weight, synapse.bias, node, image, T) for image in images]
    assert np.array_equal(actual, np.stack(expected, axis=1))
    assert actual.any()


def test_resistance_and_time_step_that_cancel_change_nothing(tmp_path):
    rng = np.random.default_rng(5)
    node = _if(rng, r=1e4)
    _write(tmp_path / "model.nir", node)
    network = read_nir(tmp_path / "model.nir", dt=1e-4)
    np.testing.assert_array_equal(network.neurons["10"].threshold, node.v_threshold)
    assert (network.graph.nodes["10"].r == 1).all()


@pytest.mark.parametrize("dt", [1e-4, np.float32(1e-4)])
def test_the_time_step_may_be_in_the_file(tmp_path, dt):
    node = _if(np.random.default_rng(5), r=1e4)
    _write(tmp_path / "model.nir", node, metadata={"dt": dt})
    np.testing.assert_array_equal(read_nir(tmp_path / "model.nir").neurons["10"].threshold, node.v_threshold)


@pytest.mark.parametrize("r", [0.0, -1.0])
def test_a_resistance_that_is_not_positive(tmp_path, r):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5), r=r))
    with pytest.raises(NetworkError, match=r"'10' \(IF\): r \* dt must be a positive"):
        read_nir(tmp_path / "model.nir")


def test_the_user_may_say_how_it_resets_and_fires(tmp_path):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    spec = read_nir(tmp_path / "model.nir", reset="subtract", condition=">=").neurons["10"]
    assert (spec.reset, spec.condition, spec.v_reset) == ("subtract", ">=", None)
    wrong: list[dict[str, Any]] = [{"reset": "hard"}, {"condition": "=="}]
    for bad in wrong:
        with pytest.raises(InputError, match="must be"):
            read_nir(tmp_path / "model.nir", **bad)


def test_subtraction_does_not_go_with_a_reset_value(tmp_path):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5), v_reset=np.full(6, -0.5, np.float32)))
    with pytest.raises(NetworkError, match="v_reset is not 0"):
        read_nir(tmp_path / "model.nir", reset="subtract")


def test_an_argument_does_not_contradict_our_metadata(tmp_path):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    assert read_nir(tmp_path / "model.nir", reset="subtract", condition=">=", dt=1.0).method == "half"
    for bad in ({"reset": "value"}, {"condition": ">"}, {"dt": 0.5}):
        with pytest.raises(InputError, match="contradicts"):
            read_nir(tmp_path / "model.nir", **bad)


def test_v_reset_may_be_missing(tmp_path):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/nodes/10/v_reset"]
    assert not present(read_nir(tmp_path / "model.nir").neurons["10"].v_reset).any()


@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 5, 6), (4, 5, 6)])
def test_parameters_of_fewer_elements_are_spread(tmp_path, shape):
    rng = np.random.default_rng(1)
    threshold = build.dyadic(rng, *shape, low=1, high=4)
    conv, flatten = build.conv2d(rng, 2, 4), nir.Flatten(np.array([4, 5, 6]), 0, -1)
    conv.input_shape = np.array([5, 6])
    nodes = {
        "input": nir.Input(np.array([2, 5, 6])),
        "conv": conv,
        "if": nir.IF(np.ones(shape, np.float32), np.asarray(threshold)),
        "flatten": flatten,
        "output": nir.Output(np.array([120])),
    }
    names = list(nodes)
    # The library writes no array of no axes compressed, so such a file comes from one that does not compress.
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    nir.write(tmp_path / "model.nir", graph, compression=None)
    spec = read_nir(tmp_path / "model.nir").neurons["if"]
    np.testing.assert_array_equal(spec.threshold, np.broadcast_to(threshold, (4, 5, 6)))


@pytest.mark.parametrize("shape", [(6,), (120,), (2, 1, 1), (5, 6)])
def test_parameters_that_do_not_say_which_neuron(tmp_path, shape):
    nodes = {
        "input": nir.Input(np.array([4, 5, 6])),
        "if": nir.IF(np.ones(shape), np.ones(shape)),
        "output": nir.Output(np.array([4, 5, 6])),
    }
    nir.write(tmp_path / "model.nir", nir.NIRGraph(nodes, [("if", "output"), ("input", "if")], type_check=False))
    with pytest.raises(NetworkError, match=r"Node 'if' \(IF\): r has shape"):
        read_nir(tmp_path / "model.nir")


def test_a_threshold_that_is_not_positive(tmp_path):
    _write(tmp_path / "model.nir", nir.IF(np.ones(6), np.zeros(6)))
    with pytest.raises(NetworkError, match=r"'10' \(IF\): A threshold must be a positive"):
        read_nir(tmp_path / "model.nir")


def test_integer_geometry_groups_and_narrow_kernels(tmp_path):
    rng = np.random.default_rng(2)
    layers = [build.conv2d(rng, 2, 4, (3, 1), padding=(1, 0)), build.IF, nir.SumPool2d(2, 2, 0)]
    layers += [build.conv2d(rng, 4, 4, groups=4), build.IF, nir.AvgPool2d((2, 1), (1, 1), (0, 0))]
    network = build.sequential(rng, (2, 8, 6), layers)
    nodes = dict(network.graph.nodes)
    for name, node in nodes.items():
        if isinstance(node, nir.Conv2d):
            node.input_shape = np.array(network.shapes[network.predecessors[name][0]][1:])
        if isinstance(node, nir.Flatten):
            node.input_type = {"input": np.array([4, 3, 3])}
    nir.write(tmp_path / "model.nir", nir.NIRGraph(nodes, network.graph.edges[::-1], type_check=False))
    assert read_nir(tmp_path / "model.nir").shapes == network.shapes


@pytest.mark.parametrize("key", ["v_init", "reset_mechanism", "spike_condition"])
def test_our_graph_that_lost_a_nodes_metadata_does_not_run_as_something_else(tmp_path, key):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file[f"node/nodes/if2/metadata/{key}"]
    with pytest.raises(NetworkError, match=r"'if2' \(IF\): the graph is of our schema, but this node lacks"):
        read_nir(tmp_path / "model.nir")


# --- what is not a network ----------------------------------------------------------------------------------


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_nir(tmp_path / "none.nir")
    (tmp_path / "text.nir").write_text("not HDF5")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read_nir(tmp_path / "text.nir")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(InputError, match="has no group 'node'"):
        read_nir(tmp_path / "other.h5")
    nir.write(tmp_path / "node.nir", nir.Linear(np.zeros((2, 2))))
    with pytest.raises(NetworkError, match="holds a Linear, and not a NIRGraph"):
        read_nir(tmp_path / "node.nir")


@pytest.mark.parametrize("kind", [np.array([1, 2]), np.array([]), 3.0, np.array(["NIRGraph"], object)])
def test_a_graph_whose_type_is_not_a_word(tmp_path, kind):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/type"]
        file["node/type"] = kind
    with pytest.raises(NetworkError, match="holds a node without a type"):
        read_nir(tmp_path / "model.nir")


def test_a_truncated_file(tmp_path):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    whole = (tmp_path / "model.nir").read_bytes()
    (tmp_path / "model.nir").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a NIR file"):
        read_nir(tmp_path / "model.nir")


@pytest.mark.parametrize("kind", [nir.LIF, nir.CubaLIF, nir.LI])
def test_other_neurons_are_named(tmp_path, kind):
    count = {nir.LIF: 4, nir.CubaLIF: 5, nir.LI: 3}[kind]
    _write(tmp_path / "model.nir", kind(*[np.ones(6)] * count))
    with pytest.raises(NetworkError, match=f"'10' is of type {kind.__name__}, which cannot be run"):
        read_nir(tmp_path / "model.nir")


def test_an_unknown_type_is_named(tmp_path):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/nodes/10/type"]
        file["node/nodes/10/type"] = "Quantum"
    with pytest.raises(NetworkError, match="'10' is of type Quantum"):
        read_nir(tmp_path / "model.nir")


def test_an_unknown_field_is_named(tmp_path):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        file["node/nodes/10/v_init"] = np.zeros(6)
    with pytest.raises(NetworkError, match=r"'10' \(IF\) cannot be read: .*v_init"):
        read_nir(tmp_path / "model.nir")


def test_a_nested_graph(tmp_path):
    inner = nir.NIRGraph.from_list(nir.Input(np.array([6])), nir.Linear(np.zeros((6, 6))), nir.Output(np.array([6])))
    _write(tmp_path / "model.nir", inner)
    with pytest.raises(NetworkError, match=r"'10' is of type NIRGraph, .*it is a graph inside the graph"):
        read_nir(tmp_path / "model.nir")


def test_a_recurrent_graph(tmp_path):
    edges = [("in", "0"), ("0", "10"), ("10", "2"), ("2", "out"), ("10", "10")]
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)), edges=edges)
    with pytest.raises(NetworkError, match="cycle through '10'"):
        read_nir(tmp_path / "model.nir")


@pytest.mark.parametrize("missing", ["in", "out"])
def test_missing_ends(tmp_path, missing):
    _write(tmp_path / "model.nir", _if(np.random.default_rng(5)))
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file[f"node/nodes/{missing}"]
    with pytest.raises(NetworkError, match="this graph has 0"):
        read_nir(tmp_path / "model.nir")


def _alter(path, key, value, node=None):
    with h5py.File(path, "r+") as file:
        group = file["node/metadata" if node is None else f"node/nodes/{node}/metadata"]
        if key in group:
            del group[key]
        group[key] = value


@pytest.mark.parametrize(
    ("node", "key", "value", "message"),
    [
        (None, "schema", "cos-export/2", "Upgrade cos-export"),
        (None, "readout", "max", "readout = 'max'"),
        (None, "spike_amplitude", 2.0, "spike_amplitude = 2.0"),
        (None, "numerics", "int4", "numerics = 'int4'"),
        (None, "num_timesteps", 0, "num_timesteps"),
        (None, "num_timesteps", 2.5, "num_timesteps"),
        (None, "rho", -1, "rho"),
        (None, "input_steps", 2, "input_encoding = 'constant' and input_steps"),
        (None, "input_encoding", "constant_then_zero", "'constant_then_zero' and no input_steps"),
        (None, "input_encoding", "poisson", "input_encoding = 'poisson'"),
        (None, "method", np.zeros(3), "method.*must be a string"),
        ("if1", "v_init", np.zeros(3, np.float32), r"'if1' \(IF\): v_init has shape \(3,\)"),
        ("if1", "v_init", np.full((4, 6, 5), np.inf, np.float32), "'if1' .*finite"),
        ("if1", "v_init", "half", "'if1' .*v_init is of type"),
        ("if2", "silent", np.zeros((4, 6), np.uint8), r"'if2' \(IF\): silent has shape \(4, 6\)"),
        ("if2", "silent", np.full((4, 6, 5), 2), "'if2' .*other than 0 and 1"),
        ("if2", "v_bias", np.zeros((3, 7), np.float32), r"'if2' \(IF\): bias must be \(steps, 4\)"),
        ("if2", "reset_mechanism", "zero", "'if2' .*reset_mechanism = 'zero'"),
        ("if2", "spike_condition", "<", "'if2' .*spike_condition = '<'"),
        ("if2", "levels", 0, "'if2' .*levels"),
    ],
)
def test_metadata_that_cannot_be(tmp_path, node, key, value, message):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    _alter(tmp_path / "model.nir", key, value, node)
    with pytest.raises(NetworkError, match=message):
        read_nir(tmp_path / "model.nir")
