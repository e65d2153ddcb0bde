"""NIR files that were damaged, or made to do harm: each is refused in words, in time and in little memory."""

import os
import resource
import zlib

import h5py
import numpy as np
import pytest
import random_networks as build
from nir_mutations import mutations

from cos_export.errors import CosExportError, InputError, NetworkError
from cos_export.nir_file import read_nir, write_nir
from cos_export.nir_file.importing import import_graph
from cos_export.nir_file.reader import graph_of
from cos_export.reading import hdf5_process, hdf5_program
from cos_export.reading.hdf5_process import Hdf5Process, read_own, read_tree
from cos_export.simulation import simulate

WEIGHT = "node/nodes/conv1/weight"
BIAS = "node/nodes/conv1/bias"


@pytest.fixture(autouse=True)
def own_reading_process(monkeypatch):
    """As for users, a new process reads each file; other tests share one."""
    monkeypatch.setattr(hdf5_process, "Hdf5Process", Hdf5Process)


@pytest.fixture
def path(tmp_path):
    write_nir(build.residual(np.random.default_rng(0)), tmp_path / "model.nir")
    return tmp_path / "model.nir"


def _external_link(file, folder):
    with h5py.File(folder / "secret.h5", "w") as other:
        other["bias"] = np.full(4, 42, np.float32)
    file[BIAS] = h5py.ExternalLink(str(folder / "secret.h5"), "bias")


def _external_storage(file, folder):
    (folder / "secret.bin").write_bytes(np.full(4, 42, np.float32).tobytes())
    file.create_dataset(BIAS, (4,), "f4", external=[(str(folder / "secret.bin"), 0, 16)])


def _pipe_as_storage(file, folder):
    os.mkfifo(folder / "pipe")
    file.create_dataset(BIAS, (4,), "f4", external=[(str(folder / "pipe"), 0, 16)])


def _virtual(file, folder):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "bias", (4,))
    file.create_virtual_dataset(BIAS, layout)


def _terabyte(file, folder):
    file.create_dataset(BIAS, (2**38,), "f4", chunks=(2**20,))


def _terabyte_contiguous(file, folder):
    space = h5py.h5s.create_simple((2**38,))
    h5py.h5d.create(file["node/nodes/conv1"].id, b"bias", h5py.h5t.NATIVE_FLOAT, space)


def _bomb(file, folder):
    data = file.create_dataset(BIAS, (6 * 2**28,), "f4", chunks=(2**22,), compression="gzip")
    data[: 2**22] = 0


def _deep(file, folder):
    group = file["node/metadata"]
    for _ in range(40):
        group = group.create_group("deeper")
    group["value"] = 1.0


def _loop(file, folder):
    file["node/metadata/again"] = file["node"]


def _soft_loop(file, folder):
    file["node/metadata/again"] = h5py.SoftLink("/node")


def _many(file, folder):
    group = file["node"].create_group("many", track_order=False)
    space, kind = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.NATIVE_INT8
    first = h5py.h5d.create(group.id, b"0", kind, space)
    for number in range(1, 20_000):
        group.id.links.create_hard(str(number).encode(), group.id, b"0")
    del first


def _named_type(file, folder):
    file[BIAS] = np.dtype("f4")


def _reference(file, folder):
    file[BIAS] = file["node"].ref


def _variable_length(file, folder):
    data = file.create_dataset(BIAS, (4,), h5py.vlen_dtype(np.float32))
    data[0] = np.ones(3, np.float32)


def _enumerated(file, folder):
    file.create_dataset(BIAS, (4,), h5py.enum_dtype({"a": 0, "b": 1}, "i1"))


def _long_double(file, folder):
    file.create_dataset(BIAS, data=np.ones(4, np.longdouble))


def _unknown_filter(file, folder):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((4,))
    creation.set_scaleoffset(h5py.h5z.SO_FLOAT_DSCALE, 2)
    h5py.h5d.create(file["node/nodes/conv1"].id, b"bias", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4,)), creation)


def _text(file, folder):
    file[BIAS] = np.array(["1", "2"], object)


def _name_that_is_not_utf8(file, folder):
    nodes, conv = file["node/nodes"], file["node/nodes/conv1"]
    nodes.id.links.create_hard(b"\xff\xfe", conv.id, b"weight")
    file[BIAS] = 1.0


def _text_that_is_not_utf8(file, folder):
    file[BIAS] = np.bytes_(b"\xff\xfe")


HOSTILE = {
    "a link to another file": (_external_link, "'nodes/conv1/bias' is a link to another file"),
    "storage in another file": (_external_storage, "'nodes/conv1/bias' has its numbers in another file"),
    "a named pipe as storage": (_pipe_as_storage, "'nodes/conv1/bias' has its numbers in another file"),
    "a virtual data set": (_virtual, "'nodes/conv1/bias' has its numbers in another file"),
    "a terabyte in no chunk": (_terabyte, "claims 1,099,511,627,776 bytes"),
    "a terabyte never written": (_terabyte_contiguous, "claims 1,099,511,627,776 bytes"),
    "a bomb": (_bomb, "claim 6,44.* bytes, more than"),
    "40 groups deep": (_deep, "groups deep"),
    "a group within itself": (_loop, "is a group that the file has at another place"),
    "a soft link": (_soft_loop, "'metadata/again' is a link"),
    "20,000 members": (_many, "has 20,000 members"),
    "a type in place of numbers": (_named_type, "neither a group nor a data set"),
    "a reference": (_reference, "is of type object"),
    "arrays of any length": (_variable_length, "is of type object"),
    "an enumeration": (_enumerated, "is of type int8"),
    "a long double": (_long_double, "is of type"),
    "another filter": (_unknown_filter, "compressed by a filter"),
    "text": (_text, r"'conv1' \(Conv2d\): bias is of type object"),
    "a name that is not UTF-8": (_name_that_is_not_utf8, "whose name is not UTF-8"),
    "text that is not UTF-8": (_text_that_is_not_utf8, "text that is not UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_made_to_do_harm(path, tmp_path, name):
    make, message = HOSTILE[name]
    with h5py.File(path, "r+") as file:
        if make not in (_deep, _loop, _soft_loop, _many):
            del file[BIAS]
        make(file, tmp_path)
    with pytest.raises((InputError, NetworkError), match=message):
        read_nir(path)


def test_a_bomb_in_one_chunk_is_ended_by_its_limits(path):
    """A chunk of 16 bytes that inflates to 1 GiB: nothing in the file says so before it is inflated."""
    packer = zlib.compressobj(1)
    chunk = b"".join([*(packer.compress(bytes(2**24)) for _ in range(64)), packer.flush()])
    with h5py.File(path, "r+") as file:
        del file[BIAS]
        data = file.create_dataset(BIAS, (4,), "f4", chunks=(4,), compression="gzip")
        data.id.write_direct_chunk((0,), chunk)
    with pytest.raises(InputError, match="not a NIR file"):
        read_nir(path)


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.nir")
    with pytest.raises(InputError, match="a named pipe"):
        read_nir(tmp_path / "pipe.nir")


def test_many_compressed_arrays_are_read_one_after_the_other(tmp_path):
    """What has been read takes no memory: together they are more than the reading process may have."""
    with h5py.File(tmp_path / "many.nir", "w") as file:
        for i in range(320):
            numbers = np.full((1, 1 << 18), i, np.float32)
            file.create_dataset(f"node/{i:03}", data=numbers, chunks=numbers.shape, compression=1)
    tree = read_tree(tmp_path / "many.nir", "node")
    assert len(tree) == 320 and all((tree[f"{i:03}"] == i).all() for i in (0, 7, 319))


def test_what_is_read_is_what_the_file_holds(tmp_path):
    """All types that are accepted, in both byte orders, against h5py itself."""
    rng = np.random.default_rng(0)
    arrays = {
        kind: (100 * rng.normal(size=(3, 5))).astype(kind)
        for kind in ("<f4", ">f4", "<f8", ">f2", "<i2", ">i8", "u1", "?")
    }
    with h5py.File(tmp_path / "arrays.h5", "w") as file:
        group = file.create_group("node")
        for kind, array in arrays.items():
            group[kind] = array
        group["text"], group["scalar"], group["none"] = "w\u00f6rt", 2.5, np.zeros((0, 4))
        large = group.create_dataset("large", data=rng.normal(size=(3000, 999)), compression="gzip", shuffle=True)
        expected = large[()]
        group.create_group("empty")
    for read in (read_tree, read_own):
        actual = read(tmp_path / "arrays.h5", "node")
        for kind, array in arrays.items():
            assert actual[kind].dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(actual[kind], array)
        scalars = actual["text"], actual["scalar"], actual["none"].shape, actual["empty"]
        assert scalars == ("w\u00f6rt", 2.5, (0, 4), {})
        assert actual["large"].tobytes() == expected.tobytes()


def test_an_interrupt_ends_the_process_that_reads(path, monkeypatch):
    started = []
    original = hdf5_process._start

    def start():
        started.append(original())
        return started[0]

    monkeypatch.setattr(hdf5_process, "_start", start)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(hdf5_process, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_nir(path)
    assert started[0].poll() is not None


def _read(process, path):
    return import_graph(graph_of(process.read(path, "node"), path))


def test_300_damaged_files(path):
    """Each reads to a network that is finite and runs, or is refused in the product's own words."""
    images = build.images(read_nir(path), 2)
    refused, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Hdf5Process() as process:
        for what, content in mutations(path.read_bytes(), 300, seed=1):
            path.write_bytes(content)
            try:
                network = _read(process, path)
                simulate(network, images, 2)
            except CosExportError as error:
                refused += 1
                assert len(str(error)) < 4000, what
    assert refused > 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "1 GiB, in kB"


CRASH = "import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGSEGV)"
LOOP = "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); sys.stdin.readline()\nwhile True: pass"
STOP = "import time, sys; sys.stdin.readline(); time.sleep(600)"
FLOOD = "import sys; sys.stdin.readline()\nwhile True: sys.stdout.write('H' * 4096)"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (CRASH, r"damaged, and reading it ends in signal 11 \("),
        (LOOP, "takes too long|signal 9"),
        (STOP, "takes too long"),
        (FLOOD, "reading it gives no sense"),
        ("import sys; sys.exit(3)", "ends with exit code 3"),
    ],
)
def test_a_process_that_does_not_answer(path, tmp_path, monkeypatch, program, message):
    """What libhdf5 does to some damaged files, on purpose; the next file is read by a new process."""
    monkeypatch.setattr(hdf5_process, "_SECONDS", 0.5 if program == STOP else 60)
    monkeypatch.setattr(hdf5_process, "most_bytes", lambda path: 0 if program == STOP else 2**29)
    (tmp_path / "program.py").write_text(program)
    with Hdf5Process() as process:
        with monkeypatch.context() as patch:
            patch.setattr(hdf5_program, "__file__", str(tmp_path / "program.py"))
            with pytest.raises(InputError, match=message):
                process.read(path, "node")
        monkeypatch.undo()
        assert process.read(path, "node")["type"] == "NIRGraph"


def test_empty_arrays_leave_nothing_that_the_next_file_is_read_with(path, tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["node/first"], file["node/none"], file["node/last"] = np.arange(3), np.zeros((0, 4)), 7
    with Hdf5Process() as process:
        tree = process.read(tmp_path / "empty.h5", "node")
        assert tree["first"].tolist() == [0, 1, 2] and tree["none"].shape == (0, 4) and tree["last"] == 7
        expected = read_tree(path, "node")
        actual = process.read(path, "node")
    assert sorted(actual) == sorted(expected) and actual["type"] == "NIRGraph"
