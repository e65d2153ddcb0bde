"""An environment that is damaged, and results that are not what a worker writes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integer_networks import in_fixed_point, integer_images
from random_networks import IF, affine, sequential

from cos_export.errors import TargetError, UnavailableError
from targets.lava import LavaTarget, install, run_network
from targets.workers import installation
from targets.workers.environment import WorkerEnvironment
from targets.workers.integrity import damaged_file
from targets.workers.job import PROTOCOL, Job
from targets.workers.results import read_result, read_trace

NETWORK = in_fixed_point(sequential(np.random.default_rng(0), (4,), [affine(np.random.default_rng(1), 4, 5), IF]), 0)
STEPS = 2


@pytest.fixture
def copied(lava_environment: WorkerEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lava's environment as one that may be damaged: folders of its own, files that are those of the whole one."""
    root = tmp_path / "lava"
    shutil.copytree(lava_environment.path, root, symlinks=True, copy_function=_link)
    monkeypatch.setenv("COS_EXPORT_LAVA_ENV", str(root))
    return root


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # Another file system.
        shutil.copy2(source, destination)


def _packages(root: Path) -> Path:
    return next(root.glob("lib/python3.*/site-packages"))


def _cut(root: Path, module: str | Path) -> None:
    path = _packages(root) / module
    content = path.read_bytes()
    path.unlink()  # The other name of the same file stays whole.
    path.write_bytes(content[: len(content) // 2])


def _remove(root: Path, package: str) -> None:
    for path in _packages(root).glob(f"{package}*"):
        shutil.rmtree(path)


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a package is gone": ("batched", lambda root: _remove(root, "scipy")),
    "a package is gone that netx alone needs": ("netx", lambda root: _remove(root, "h5py")),
    "numpy is gone": ("batched", lambda root: _remove(root, "numpy")),
    "a module is cut short": ("batched", lambda root: _cut(root, "lava/magma/core/process/process.py")),
    "a model is cut short": ("faithful", lambda root: _cut(root, "lava/proc/dense/models.py")),
    "a compiled module is cut short": (
        "batched",
        lambda root: _cut(root, next(_packages(root).glob("numpy/core/_multiarray_umath*.so"))),
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_environment_is_one_line(copied: Path, name: str) -> None:
    backend, damage = DAMAGES[name]
    damage(copied)
    with pytest.raises(UnavailableError) as caught:
        run_network(NETWORK, integer_images(NETWORK, 1), STEPS, options=LavaTarget(backend))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert message.startswith(f"Lava's environment at {copied} is damaged: ")
    assert message.endswith('. Make it anew with "cos-export targets --install lava".')
    assert caught.value.exit_code == 3


def test_a_python_that_is_gone(copied: Path) -> None:
    (copied / "bin" / "python").unlink()
    with pytest.raises(UnavailableError, match=r"is not a program.*--install lava"):
        run_network(NETWORK, integer_images(NETWORK, 1), STEPS)


def test_an_environment_that_is_whole_holds_all_that_was_installed(lava_environment: WorkerEnvironment) -> None:
    assert damaged_file(lava_environment.path) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"x = 1\n", "has been altered"), (b"x", "1 bytes in place of 6"), (None, "cannot be read")],
)
def test_a_file_that_is_altered_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    packages = tmp_path / "lib" / "python3.10" / "site-packages"
    (packages / "some-1.dist-info").mkdir(parents=True)
    (packages / "some").mkdir()
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"x = 2\n").digest()).rstrip(b"=").decode()
    (packages / "some-1.dist-info" / "RECORD").write_text(
        f"some/module.py,sha256={digest},6\nsome/__pycache__/module.pyc,,\n../../../bin/some,sha256=x,1\ntests/a.py,sha256=x,1\n"
    )
    module = packages / "some" / "module.py"
    module.write_bytes(b"x = 2\n")
    assert damaged_file(tmp_path) is None
    module.unlink()
    if content is not None:
        module.write_bytes(content)
    actual = damaged_file(tmp_path)
    assert actual is not None
    assert "some/module.py" in actual
    assert words in actual
    assert (damaged_file(tmp_path, contents=False) is None) == (content == b"x = 1\n")


def test_installing_makes_a_damaged_environment_anew(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which the message asks for: it must not be taken for one that is there."""
    _cut(copied, "lava/magma/core/process/process.py")
    (copied / "complete.json").unlink()  # The other name of the same file stays as it is.
    (copied / "complete.json").write_text("{}")
    made: list[Path] = []

    def make(recipe: Any, root: Path, progress: Any) -> None:
        assert not root.exists(), "what was damaged is gone"
        made.append(root)
        root.mkdir()

    monkeypatch.setattr(installation, "_make", make)
    with pytest.raises(UnavailableError, match="is not a program"):
        install()
    assert made == [copied]


def _done(job: Job, samples: int = 2) -> None:
    """What a worker writes that is done."""
    np.save(job.folder / "outputs.npy", np.zeros((STEPS, samples, 3), np.float32))
    for index, name in enumerate(NETWORK.order):
        if name in NETWORK.neurons:
            np.save(job.folder / f"spikes_{index}.npy", np.zeros((STEPS, samples, 1), np.uint8))
    (job.folder / "result.json").write_text(json.dumps({"protocol": PROTOCOL, "status": "done"}))


def _read(job: Job) -> Any:
    return read_trace(job, NETWORK, STEPS, record_spikes=True, states=None)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _linked(path: Path) -> None:
    path.rename(path.with_suffix(".other"))
    path.symlink_to(path.with_suffix(".other"))


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(content), None)[1]


def _array(array: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, **options)


def _claims(path: Path) -> None:
    """A terabyte, in a header."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((STEPS, 2, 3), np.float32))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (STEPS, 2**38, 3)})


ARRAYS: dict[str, Callable[[Path], None]] = {
    "a named pipe": _pipe,
    "a link": _linked,
    "a device": _device,
    "a folder": _folder,
    "missing": Path.unlink,
    "empty": _bytes(b""),
    "cut short": lambda path: (path.write_bytes(path.read_bytes()[:-4]), None)[1],
    "too long": lambda path: (path.write_bytes(path.read_bytes() + b"\0"), None)[1],
    "not an array": _bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': open}\n "),
    "of another shape": _array(np.zeros((STEPS, 3, 3), np.float32)),
    "of another type": _array(np.zeros((STEPS, 2, 3))),
    "in another order": _array(np.asfortranarray(np.zeros((STEPS, 2, 3), np.float32))),
    "in another byte order": _array(np.zeros((STEPS, 2, 3), ">f4")),
    "of objects": _array(np.array([[print]], object), allow_pickle=True),
    "a terabyte": _claims,
}


@pytest.mark.parametrize("file", ["outputs.npy", "spikes_2.npy"])
@pytest.mark.parametrize("name", ARRAYS)
def test_results_that_no_worker_writes(written_job: Callable[..., Job], name: str, file: str) -> None:
    job = written_job(NETWORK, integer_images(NETWORK, 2), STEPS)
    _done(job)
    assert _read(job).logits.shape == (STEPS, 2, 3)
    ARRAYS[name](job.folder / file)
    with pytest.raises(TargetError, match=f"Lava worker.*{file}"):
        _read(job)


@pytest.mark.parametrize(
    "spoil",
    [
        _pipe,
        _linked,
        _device,
        _folder,
        _bytes(b"{"),
        _bytes(b"[" * 100_000),
        _bytes(b"[]"),
        _bytes(b"\xff\xfe"),
        _bytes(b'{"protocol": %d}' % PROTOCOL),
        _bytes(b'{"protocol": %d, "status": "perhaps"}' % PROTOCOL),
        _bytes(b'{"protocol": %d, "status": "failed", "message": 3}' % PROTOCOL),
        _bytes(b'{"protocol": 99, "status": "done"}'),
    ],
)
def test_an_answer_that_no_worker_writes(written_job: Callable[..., Job], spoil: Callable[[Path], None]) -> None:
    job = written_job(NETWORK, integer_images(NETWORK, 2), STEPS)
    _done(job)
    result = read_result(job)
    assert result is not None
    assert result.status == "done"
    spoil(job.folder / "result.json")
    with pytest.raises(TargetError, match="Lava worker"):
        read_result(job)


def test_the_command_line_ends_with_3(copied: Path, tmp_path: Path) -> None:
    from cos_export.exporting import export

    export(NETWORK, tmp_path / "bundle", steps=STEPS, golden=integer_images(NETWORK, 2))
    _remove(copied, "scipy")
    done = subprocess.run(
        [sys.executable, "-m", "cos_export", "verify", str(tmp_path / "bundle"), "--targets", "lava"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr
