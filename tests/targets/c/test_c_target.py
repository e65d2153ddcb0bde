"""The C code against PyTorch and Python's own integers: every spike, and every bit of the logits."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_networks as build
from eight_bit_networks import TOPOLOGIES, in_integers, pictures, topology
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import integer_images
from integer_reference import run
from lowered_networks import integers
from unusual_topologies import NAMES, unusual

import cos_export
from cos_export.errors import InputError, NetworkError, StorageError, TargetError, UnavailableError
from cos_export.network import SampleStates, SpikingNetwork
from cos_export.quantisation import quantise
from cos_export.simulation import simulate
from targets.c import CTarget
from targets.c.compiler import Compiler, find

pytestmark = pytest.mark.skipif(not CTarget().available().ready, reason="no C compiler is installed")

QUICK = CTarget(options=("-O0", "-Werror"))
"""A warning is an error here, and compiling takes longer than running."""

SANITIZED = CTarget(options=("-O1", "-g", "-Werror", "-fsanitize=undefined,address", "-fno-sanitize-recover=all"))


def differences(network: SpikingNetwork, images: Any, steps: int, target: CTarget = QUICK) -> dict[str, int]:
    """Spikes that differ from PyTorch's by layer, and bits of the logits."""
    expected = simulate(network, images, steps, device="cpu")
    actual = target.run_network(network, images, steps)
    assert set(actual.spikes) == set(expected.spikes)
    counts = {name: int((actual.spikes[name] != spikes).sum()) for name, spikes in expected.spikes.items()}
    counts["logits"] = int((actual.logits.view(np.uint32) != expected.logits.view(np.uint32)).sum())
    return {name: count for name, count in counts.items() if count}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 4), layerwise=st.booleans())
def test_networks_of_integers_fire_the_same_spikes(seed: int, steps: int, layerwise: bool) -> None:
    network = build.random_network(seed)
    if any(type(node).__name__ == "AvgPool2d" for node in network.graph.nodes.values()):
        images = build.images(network, 3, seed)
        network = quantise(network, images, device="cpu")
    else:
        network = in_integers(network, seed)
        images = pictures(network, 3, seed)
    resets = any(spec.reset == "value" for spec in network.neurons.values())
    network = replace(network, schedule="layerwise" if layerwise and not resets else "synchronous")
    assert not differences(network, images, steps)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("name", NAMES)
def test_rare_wiring(name: str, schedule: Any) -> None:
    network = replace(unusual(name), schedule=schedule)
    assert not differences(network, integer_images(network, 4), 3)


@pytest.mark.parametrize("name", ["convolutions", "every_option"])
def test_the_code_is_clean_under_the_sanitizers(name: str) -> None:
    network = in_integers(topology(name), 5)
    assert not differences(network, pictures(network, 3), 4, SANITIZED)
    if name == "convolutions":
        assert not differences(replace(network, schedule="layerwise"), pictures(network, 3), 4, SANITIZED)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_python_integers_fire_the_same_spikes(name: str) -> None:
    network = in_integers(topology(name), 7)
    images, steps = pictures(network, 2), 3
    trace = QUICK.run_network(network, images, steps)
    for sample, image in enumerate(images):
        spikes, means = run(network, image, steps)
        for layer, fired in spikes.items():
            np.testing.assert_array_equal(trace.spikes[layer][:, sample], fired)
        scale = Fraction(network.readout_scale)
        for t, mean in enumerate(means):
            exact = [float(mean[index] * scale) for index in range(len(mean))]
            np.testing.assert_allclose(trace.logits[t, sample], exact, rtol=1e-6, atol=0)


def test_a_lowered_network_whose_input_is_held_for_some_steps() -> None:
    network = cos_export.lowered(integers("joined"), 2)
    assert network.input_steps is not None and network.num_timesteps is not None
    assert network.input_steps < network.num_timesteps
    assert not differences(network, pictures(network, 3), network.num_timesteps)


@pytest.mark.parametrize("schedule", ["synchronous", "layerwise"])
@pytest.mark.parametrize("name", sorted(set(TOPOLOGIES) - {"every_option"}))
def test_frames_are_heard_one_in_each_step(name: str, schedule: Any) -> None:
    network = replace(in_integers(topology(name), 4), schedule=schedule, input_encoding="frames")
    images = pictures(network, 12)
    frames = images.reshape(3, 4, *images.shape[1:])
    assert not differences(network, frames, 4)
    held = np.repeat(images[:3, None], 4, axis=1)
    expected = QUICK.run_network(replace(network, input_encoding="constant"), images[:3], 4)
    np.testing.assert_array_equal(QUICK.run_network(network, held, 4).logits, expected.logits)
    assert (QUICK.run_network(network, frames, 4).logits[-1] != expected.logits[-1]).any()


def test_frames_read_no_memory_that_is_not_theirs() -> None:
    network = replace(in_integers(topology("residual"), 3), input_encoding="frames")
    frames = pictures(network, 6).reshape(2, 3, *network.input_shape)
    assert not differences(network, frames, 3, SANITIZED)
    assert not differences(replace(network, input_encoding="constant"), frames, 3), "frames for any network"


def test_without_spikes_the_logits_are_the_same() -> None:
    network = in_integers(topology("residual"), 1)
    images = pictures(network, 3)
    trace = QUICK.run_network(network, images, 2, record_spikes=False)
    assert not trace.spikes
    np.testing.assert_array_equal(trace.logits, simulate(network, images, 2, device="cpu").logits)


def test_what_it_cannot_run_is_refused_by_name() -> None:
    network = build.random_network(1)
    with pytest.raises(InputError, match=r"this one is of float32\. Export it with --numerics int8"):
        QUICK.run_network(network, build.images(network, 1), 2)
    whole = in_integers(topology("pooling"), 1)
    with pytest.raises(NetworkError, match="'cos' sets the potentials of each image in 4 steps"):
        QUICK.run_network(replace(whole, method="cos", rho=4), pictures(whole, 1), 2)
    with pytest.raises(InputError, match="The network takes frames"):
        QUICK.run_network(replace(whole, input_encoding="frames"), pictures(whole, 1), 2)
    with pytest.raises(NetworkError, match="at most 255 steps, and 256"):
        QUICK.run_network(replace(whole, schedule="layerwise"), pictures(whole, 1), 256)
    resetting = replace(in_integers(topology("every_option"), 1), schedule="layerwise")
    with pytest.raises(NetworkError, match="is reset to a value"):
        QUICK.run_network(resetting, pictures(resetting, 1), 2)
    bundle: Any = type("Bundle", (), {"network": whole})
    with pytest.raises(InputError, match="same potentials"):
        QUICK.run(bundle, pictures(whole, 1), 2, states=SampleStates())


def test_without_a_compiler_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    availability = CTarget().available()
    assert not availability.ready and "CC names 'no-such-compiler', which is not installed" in availability.reason
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    availability = CTarget().available()
    assert not availability.ready and "there is no cc, gcc or clang" in availability.reason
    network = in_integers(topology("pooling"), 1)
    with pytest.raises(UnavailableError, match="No C compiler"):
        CTarget().run_network(network, pictures(network, 1), 1)


def planted(tmp_path: Path, script: str) -> str:
    """A compiler that is a script; it knows its version."""
    compiler = tmp_path / "planted-cc"
    version = 'case "$*" in *--version) echo planted 1.0; exit 0;; esac'
    compiler.write_text(f"#!/bin/sh\n{version}\n{script}\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    return str(compiler)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo network.c:1: error: planted >&2; exit 4", "ended with 4 on the network's code:\n  network.c:1: error"),
        ("sleep 60", "compiler was not done within 0.5 s"),
        (
            'while [ "$1" != -o ]; do shift; done; printf "#!/bin/sh\\nsleep 60\\n" > $2; chmod +x $2',
            "was not done within 0.5 s",
        ),
        ('while [ "$1" != -o ]; do shift; done; printf "#!/bin/sh\\nexit 3\\n" > $2; chmod +x $2', "ended with 3"),
        ('while [ "$1" != -o ]; do shift; done; printf "#!/bin/sh\\nexit 0\\n" > $2; chmod +x $2', "of 0 samples"),
    ],
)
def test_failures_are_explained_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setenv("CC", planted(tmp_path, script))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    network = in_integers(topology("pooling"), 1)
    begun = time.monotonic()
    with pytest.raises(TargetError) as caught:
        CTarget(deadline=0.5 if "sleep" in script else 60).run_network(network, pictures(network, 2), 1)
    assert message in str(caught.value) and time.monotonic() - begun < 30
    assert [path.name for path in tmp_path.iterdir()] == ["planted-cc"]


def test_an_interrupted_run_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = tmp_path / "pid"
    program = f"#!/bin/sh\\necho \\$\\$ > {noted}; sleep 60\\n"
    script = f'while [ "$1" != -o ]; do shift; done; printf "{program}" > $2; chmod +x $2'
    monkeypatch.setenv("CC", planted(tmp_path, script))
    network = in_integers(topology("pooling"), 1)

    def interrupt(stage: str, done: int, total: int) -> None:
        if noted.exists() and noted.read_text().strip():
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        CTarget().run_network(network, pictures(network, 1), 1, progress=interrupt)
    assert not Path(f"/proc/{noted.read_text().strip()}").exists()


def test_the_compiler_is_the_one_that_cc_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", f"{planted(tmp_path, 'exit 0')} -m32")
    assert find().command[1:] == ("-m32",) and find().version == "planted 1.0"


def test_a_full_temporary_folder_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler's own words go to the same disk, and do not arrive."""
    for script in ("exit 1", "echo 'fatal error: /tmp/x.s: No space left on device'; exit 1"):
        with pytest.raises(StorageError, match=r"MiB are free in .* in the environment variable TMPDIR"):
            Compiler(("sh", "-c", script), "1").compile([tmp_path / "a.c"], tmp_path / "a", [])
    with pytest.raises(TargetError, match="on the network's code:\n  an error in the code"):
        Compiler(("sh", "-c", "echo an error in the code; exit 1"), "1").compile([tmp_path / "a.c"], tmp_path / "a", [])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    network = in_integers(build.random_network(3), 3)
    monkeypatch.setattr("targets.c.c_target.quantised_images", full)
    with pytest.raises(StorageError, match=r"cannot hold the C code .* in the environment variable TMPDIR"):
        QUICK.run_network(network, pictures(network, 2, 3), 1)
