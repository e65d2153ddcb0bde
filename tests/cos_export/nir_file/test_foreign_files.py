"""Files of other tools: what is assumed and said, what is refused, and what the check lists."""

import h5py
import nir
import numpy as np
import pytest
import random_networks as build
from foreign_files import image_file, write_chain, write_small
from nir_interpreter import interpret

from cos_export.errors import InputError, NetworkError
from cos_export.nir_file import read_nir, write_nir
from cos_export.nir_file.checking import check_nir
from cos_export.nir_file.conventions import AssumptionNotice, Conventions
from cos_export.simulation import simulate

T = 5


def images(path):
    with np.load(image_file(path)) as archive:
        return archive["images"]


@pytest.mark.parametrize(
    ("reset", "condition"), [("subtract", ">="), ("subtract", ">"), ("value", ">="), ("value", ">")]
)
@pytest.mark.parametrize("r", [1.0, 0.5, 1e4])
def test_every_convention_fires_what_its_equations_do(tmp_path, reset, condition, r):
    write_small(tmp_path / "model.nir", r=r)
    dt = 1 / r if r == 1e4 else 1.0
    network = read_nir(tmp_path / "model.nir", reset=reset, condition=condition, dt=dt)
    shown = images(tmp_path / "data.npz")
    expected = interpret(
        tmp_path / "model.nir",
        np.broadcast_to(shown, (T, *shown.shape)),
        subtract=reset == "subtract",
        at_threshold=condition == ">=",
        # r and dt are each rounded in the file's float32; their product is 1.
        dt=dt,
    )
    actual = simulate(network, shown, T)
    for name, fired in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], fired, err_msg=name)
        assert fired.any()
    np.testing.assert_array_equal(actual.logits, expected.logits.astype(np.float32))


@pytest.mark.parametrize(("r", "dt"), [(1e4, "0.0001"), (1e3, "0.001"), (10.0, "0.1"), (0.01, "100")])
def test_a_resistance_far_from_1_needs_dt(tmp_path, r, dt):
    write_small(tmp_path / "model.nir", r=r)
    with pytest.raises(NetworkError, match=rf"'1' \(IF\): r is {r:g}, far from 1, .*--dt {dt}\)"):
        read_nir(tmp_path / "model.nir")
    read_nir(tmp_path / "model.nir", dt=1.0)
    read_nir(tmp_path / "model.nir", dt=1 / r)


def test_one_neuron_of_a_resistance_far_from_1_is_enough(tmp_path):
    write_small(tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        file["node/nodes/1/r"][3, 2, 1] = 500
    with pytest.raises(NetworkError, match="r is 500, far from 1"):
        read_nir(tmp_path / "model.nir")


def test_what_is_assumed_is_said(tmp_path):
    write_small(tmp_path / "model.nir", r=2.0)
    with pytest.warns(AssumptionNotice) as caught:
        read_nir(tmp_path / "model.nir")
    text = str(caught[0].message)
    for words in ("--reset subtract", "--condition", "'1' charges by 2 times", "initial potentials: 0", "model.nir"):
        assert words in text
    with pytest.warns(AssumptionNotice) as caught:
        read_nir(tmp_path / "model.nir", reset="subtract", condition=">", dt=1.0)
    assert "--" not in str(caught[0].message)


@pytest.mark.filterwarnings("error")
def test_nothing_is_assumed_about_our_own_files(tmp_path):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    read_nir(tmp_path / "model.nir")


def test_what_the_file_says_is_not_overridden(tmp_path):
    write_small(tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        file["node/metadata/dt"] = 1.0
        file["node/nodes/1/metadata/reset_mechanism"] = "subtract"
    assert read_nir(tmp_path / "model.nir").neurons["1"].reset == "subtract"
    assert read_nir(tmp_path / "model.nir").neurons["5"].reset == "value"
    for bad in ({"dt": 0.5}, {"reset": "value"}):
        with pytest.raises(InputError, match="contradicts"):
            read_nir(tmp_path / "model.nir", **bad)


@pytest.mark.parametrize(
    "bad", [{"reset": "hard"}, {"condition": "=="}, {"dt": 0.0}, {"dt": float("nan")}, {"dt": -1.0}]
)
def test_conventions_that_have_no_meaning(bad):
    with pytest.raises(InputError, match="must be"):
        Conventions(**bad)


def test_a_batch_axis_is_recognised(tmp_path):
    write_small(tmp_path / "model.nir", batch=True)
    with pytest.raises(NetworkError, match=r"'0' \(Conv2d\): .*gets shape \(1, 1, 8, 8\).* looks like a batch axis"):
        read_nir(tmp_path / "model.nir")


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (lambda: build.affine(np.random.default_rng(0), 6, 10), (7, 6)),
        (lambda: nir.Linear(np.ones((10, 6), np.float32)), (1, 6)),
        (lambda: build.pool(nir.SumPool2d), (1, 3, 4, 4)),
        (lambda: build.pool(nir.AvgPool2d), (1, 3, 4, 4)),
        (lambda: nir.IF(np.ones((3, 4, 4), np.float32), np.ones((3, 4, 4), np.float32)), (1, 3, 4, 4)),
        (lambda: nir.IF(np.ones((1, 3, 4, 4), np.float32), np.ones((1, 3, 4, 4), np.float32)), (3, 4, 4)),
        (lambda: nir.Scale(np.ones((3, 4, 4), np.float32)), (1, 3, 4, 4)),
    ],
)
def test_a_batch_axis_is_recognised_by_every_node(tmp_path, node, shape):
    write_chain(tmp_path / "model.nir", shape, [node()], (10,))
    with pytest.raises(NetworkError, match=r"'0' .*looks like a batch axis, .*take that axis off"):
        read_nir(tmp_path / "model.nir")


def test_a_shape_that_is_wrong_otherwise_has_no_such_hint(tmp_path):
    write_chain(tmp_path / "model.nir", (5,), [build.affine(np.random.default_rng(0), 6, 10)], (10,))
    with pytest.raises(NetworkError, match=r"takes shape \(6,\), and gets \(5,\)\.$"):
        read_nir(tmp_path / "model.nir")


@pytest.mark.parametrize("kind", [nir.LIF, nir.CubaLIF])
def test_leaky_neurons_are_refused_by_name(tmp_path, kind):
    write_small(tmp_path / "model.nir", neurons=kind)
    with pytest.raises(NetworkError, match=f"Node '1' is of type {kind.__name__}, .*leaky neurons are not supported"):
        read_nir(tmp_path / "model.nir")


def test_recurrent_neurons_are_refused_by_name(tmp_path):
    write_small(tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        edges = [*file["node/edges"][()].tolist(), [b"1", b"1"]]
        del file["node/edges"]
        file["node/edges"] = edges
    with pytest.raises(NetworkError, match=r"cycle through '1', .*: recurrent neurons are not supported"):
        read_nir(tmp_path / "model.nir")


def test_a_node_of_ours_in_a_graph_that_lost_its_metadata(tmp_path):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/metadata"]
    with pytest.raises(
        NetworkError, match=r"'if1' \(IF\): this node has the metadata of our schema, and the graph has"
    ):
        read_nir(tmp_path / "model.nir")


def test_a_graph_of_integers_that_lost_its_numerics(tmp_path):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/metadata/numerics"]
        file["node/metadata/readout_scale"] = 0.5
    with pytest.raises(NetworkError, match=r"has readout_scale, .* and no numerics"):
        read_nir(tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        file["node/metadata/numerics"] = "float32"
    with pytest.raises(NetworkError, match=r"has readout_scale, .* and says numerics = 'float32'"):
        read_nir(tmp_path / "model.nir")


# --- check ----------------------------------------------------------------------------------------------------


def test_the_check_lists_every_node_that_cannot_be_run(tmp_path):
    write_small(tmp_path / "model.nir", neurons=nir.LIF)
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/nodes/3/type"]
        file["node/nodes/3/type"] = "Quantum"
    result = check_nir(tmp_path / "model.nir")
    assert not result.passed
    assert [finding.module for finding in result.blockers] == ["1", "3"]
    assert "leaky neurons are not supported" in str(result.blockers[0].blocker)


def test_the_check_says_what_each_node_becomes_and_what_is_assumed(tmp_path):
    write_small(tmp_path / "model.nir")
    result = check_nir(tmp_path / "model.nir", Conventions(reset="subtract"))
    assert result.passed
    assert [finding.module for finding in result.findings] == ["input", *"012345", "output", ""]
    becomes = {finding.module: finding.becomes for finding in result.findings}
    assert becomes["1"] == "4x8x8 neurons, theta 1.25, fire at m > theta, reset minus theta"
    assert becomes["2"] == "pooling, 4x4x4"
    (warned,) = result.warnings
    assert "--condition" in str(warned.warning)
    assert "--reset" not in str(warned.warning)


def test_the_check_names_what_is_wrong_with_the_graph(tmp_path):
    write_small(tmp_path / "model.nir", r=1e4)
    (blocker,) = check_nir(tmp_path / "model.nir").blockers
    assert "Node '1' (IF): r is 10000" in str(blocker.blocker)
    assert check_nir(tmp_path / "model.nir", Conventions(dt=1e-4)).passed
