"""The text of the C files, their names, and the folder that they are written to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import random_networks as build
from eight_bit_networks import in_integers, pictures, topology
from hypothesis import given, settings
from hypothesis import strategies as st
from unusual_topologies import unusual

from cos_export.bundle import Bundle, load
from cos_export.c_code import c_source, quantised_images
from cos_export.c_code.memory import Claim, placed
from cos_export.c_code.names import Identifiers, prefix_of, readable
from cos_export.c_code.operations import Multiply
from cos_export.c_code.plan import Apply, contributions, plan_of
from cos_export.c_code.storage import channels_last
from cos_export.c_code.vectors import fired_bytes, integer_sums
from cos_export.c_code.writer import write_c
from cos_export.datasets import Normalisation
from cos_export.errors import InputError
from cos_export.exporting import export
from cos_export.network import SpikingNetwork
from cos_export.simulation import simulate


def residual() -> SpikingNetwork:
    return in_integers(topology("residual"), 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    network = residual()
    yield export(network, tmp_path_factory.mktemp("bundles") / "my-net.v1", 2, golden=pictures(network, 4))


def test_neither_allocation_nor_floating_point_nor_a_library_is_in_the_code() -> None:
    code = c_source(in_integers(topology("every_option"), 1), 3, "net").code
    text = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    assert not re.search(r"\b(float|double|malloc|calloc|free|printf|long|math)\b|\d\.\d", text)
    assert re.findall(r"#include (\S+)", text) == ['"net.h"', "<string.h>"]


def test_the_header_says_both_sizes_and_what_the_input_is() -> None:
    network = replace(residual(), class_names=("a", 'b "*/ c', "d"), normalisation=Normalisation.of([0.5], [0.25]))
    source = c_source(network, 4, "net", "a */ title")
    assert f"#define NET_STATE_BYTES {source.state_bytes}u" in source.header
    assert f"#define NET_TABLE_BYTES {source.table_bytes}u" in source.header
    assert "less 0.5, divided by 0.25" in source.header and "0 a, 1 b ___ c, 2 d" in source.header
    assert source.header.startswith("/* a __ title:")
    arrays = re.findall(r"static const (u?int\d+)_t \w+((?:\[\d+\])+) =", source.code)
    sizes = [int(kind.strip("uint")) // 8 * math.prod(map(int, re.findall(r"\d+", sides))) for kind, sides in arrays]
    assert sum(sizes) == source.table_bytes


def test_one_logit_decides_by_its_sign_and_a_readout_of_pixels_has_no_class() -> None:
    single = build.sequential(
        np.random.default_rng(0), (3,), [build.affine(np.random.default_rng(0), 3, 2), build.IF], 1
    )
    assert "return state->sums[steps - 1u][0] > 0 ? 1u : 0u;" in c_source(in_integers(single, 0), 1, "net").code
    pixels = c_source(unusual("readout of pixels"), 1, "net")
    assert "net_class" not in pixels.code + pixels.header


@settings(deadline=None)
@given(shape=st.lists(st.integers(1, 11), min_size=1, max_size=3), steps=st.integers(1, 3))
def test_bits_are_packed_and_unpacked(shape: list[int], steps: int) -> None:
    storage = channels_last(tuple(shape))
    spikes = np.random.default_rng(0).random((steps, 2, *shape)) < 0.5
    packed = storage.packed(spikes, 2)
    assert packed.shape == (steps, 2, storage.spike_bytes)
    np.testing.assert_array_equal(storage.unpacked(packed, tuple(shape)), spikes)
    # The bit of (channel, place) is the lowest but `channel` of the bytes of its place.
    place, channel = storage.pixels - 1, shape[0] - 1
    byte = packed[0, 1, place * storage.row_bytes + channel // 8]
    assert bool(byte >> (channel % 8) & 1) == spikes[0, 1].reshape(shape[0], -1)[channel, place]


claims = st.builds(
    lambda name, size, first, length: Claim((name,), size, first, first + length),
    st.text("abcdef", min_size=3),
    st.integers(1, 20),
    st.integers(0, 6),
    st.integers(0, 3),
)


@settings(deadline=None)
@given(st.lists(claims, max_size=12, unique_by=lambda claim: claim.name))
def test_what_is_needed_at_the_same_time_never_shares_a_place(listed: list[Claim]) -> None:
    begins, total = placed(listed)
    for step in range(12):
        alive = [claim for claim in listed if claim.first <= step <= claim.last]
        places = [place for claim in alive for place in range(begins[claim.name], begins[claim.name] + claim.size)]
        assert len(places) == len(set(places)) and all(place < total for place in places)
    assert total <= sum(claim.size for claim in listed)


def test_names_become_identifiers_and_never_end_a_comment() -> None:
    taken = Identifiers()
    assert [taken.of(name, "_weights") for name in ("a.b", "a/b", "a b", "", "7up", "ä*/")] == [
        "a_b_weights",
        "a_b_2_weights",
        "a_b_3_weights",
        "node_weights",
        "n7up_weights",
        "node_2_weights",
    ]
    assert len(taken.of("x" * 1000)) <= 63
    assert [prefix_of(name) for name in ("Digits-int8", "3d", "__x__")] == ["digits_int8", "n3d", "x"]
    with pytest.raises(InputError, match="Give a name with --name"):
        prefix_of("../..")
    assert readable('*/ "\\\n??/ é') == "__ ______ _"


def test_an_identity_path_of_several_synapses_is_one_factor() -> None:
    plan = plan_of(unusual("factors side by side"))
    steps = contributions(plan, "b", "layer")
    multiplied = [step for step in steps if isinstance(step, Apply) and isinstance(step.operation, Multiply)]
    assert [step.node for step in multiplied] == ["one + two + depth + scale"]


def test_pixels_have_a_table_that_is_what_the_network_takes() -> None:
    network = replace(residual(), normalisation=Normalisation.of([0.1, 0.4], [0.2, 0.3]))
    source = c_source(network, 1, "net")
    text = source.code.split("pixel_inputs[512] = {")[1].split("}")[0]
    table = np.array(text.split(","), int).reshape(2, 256)
    for channel, (mean, std) in enumerate(((0.1, 0.2), (0.4, 0.3))):
        exact = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
        assert network.quantisation is not None
        gain = np.float32(1 / network.quantisation.input_scale)
        np.testing.assert_array_equal(table[channel], np.clip(np.rint(exact * gain), -127, 127))
    assert "i % 2u * 256u + pixels[i]" in source.code


def test_images_lie_with_the_channels_of_a_pixel_together() -> None:
    network = residual()
    images = pictures(network, 2)
    assert network.quantisation is not None
    scaled = np.rint(images * np.float32(1 / network.quantisation.input_scale)).clip(-127, 127)
    expected = scaled.transpose(0, 2, 3, 1).reshape(2, -1).astype(np.int8)
    np.testing.assert_array_equal(quantised_images(network, images), expected)


def test_the_vectors_are_the_golden_run(bundle: Bundle) -> None:
    source = c_source(bundle.network, 2, "net")
    trace = simulate(bundle.network, bundle.golden.images, 2, device="cpu")
    sums = integer_sums(source, trace.logits)
    for t in range(2):
        mean = (sums[:, t] / np.float32(t + 1)).astype(np.float32) * np.float32(bundle.network.readout_scale)
        np.testing.assert_array_equal(mean, trace.logits[t])
    fired = fired_bytes(source, "if1", trace.spikes["if1"])
    storage = source.storages["if1"]
    assert fired.shape == (4, 2 * storage.spike_bytes)
    np.testing.assert_array_equal(fired[1, storage.spike_bytes :], storage.packed(trace.spikes["if1"][1, 1]))


def test_a_folder_is_written_whole_and_replaces_its_own_kind_only(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "code"
    written = write_c(bundle, out)
    assert written.source.prefix == "my_net_v1"
    assert (
        {path.name for path in out.iterdir()}
        == set(written.files)
        == {
            "my_net_v1.c",
            "my_net_v1.h",
            "my_net_v1_test.c",
            "Makefile",
        }
    )
    (out / "my_net_v1_test").write_bytes(b"built")
    write_c(bundle, out, name="Other", samples=1)
    assert {path.name for path in out.iterdir()} == {"other.c", "other.h", "other_test.c", "Makefile"}
    (out / "main.c").write_text("int main(void) { return 0; }\n")
    with pytest.raises(InputError, match=r"not part of the code there, and will not be replaced: main\.c"):
        write_c(bundle, out)
    with pytest.raises(InputError, match="holds what is not a code"):
        write_c(bundle, bundle.path)
    assert load(bundle.path)


def test_what_the_check_raises_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    def check(folder: Path, prefix: str) -> None:
        assert (folder / f"{prefix}.c").is_file()
        raise InputError("planted")

    with pytest.raises(InputError, match="planted"):
        write_c(bundle, tmp_path / "code", check=check)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_of_float32_is_refused(tmp_path: Path) -> None:
    network: Any = topology("residual")
    whole = export(network, tmp_path / "float", 1, golden=np.zeros((1, *network.input_shape), np.float32))
    with pytest.raises(InputError, match="--numerics int8"):
        write_c(whole, tmp_path / "code")
    assert not (tmp_path / "code").exists()
