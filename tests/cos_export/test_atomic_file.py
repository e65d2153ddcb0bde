from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cos_export.atomic_file import atomic_write, check_derived_destination, check_file_destination
from cos_export.errors import CosExportError, InputError, StorageError
from cos_export.storage import exit_code, storage_error


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_it_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as draft:
        draft.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_a_full_disk_is_said_with_the_file_and_what_is_free(tmp_path: Path, code: int) -> None:
    path = tmp_path / "file"
    path.write_text("earlier")
    with pytest.raises(StorageError) as raised, atomic_write(path) as draft:
        draft.write_text("half")
        raise OSError(code, os.strerror(code))
    assert raised.value.exit_code == 1
    assert str(raised.value).startswith(f"{path} cannot be written: {os.strerror(code)}.")
    assert ("ulimit" if code == errno.EFBIG else "MiB are free in") in str(raised.value)
    assert path.read_text() == "earlier" and names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP])
def test_a_place_that_may_not_be_written_is_the_users_to_change(code: int) -> None:
    error = OSError(code, os.strerror(code))
    actual = storage_error("there", error)
    assert isinstance(actual, InputError) and actual.exit_code == 2 == exit_code(error)
    assert str(actual) == f"there cannot be written: {os.strerror(code)}. Name another place."
    assert exit_code(OSError(errno.ENOSPC, "full")) == 1


def test_the_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """The kernel itself refuses: it sends SIGXFSZ, which must not end the process."""
    program = (
        "import resource, sys; from cos_export.atomic_file import atomic_write\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.RLIM_INFINITY}))\n"
        "try:\n"
        "    with atomic_write(sys.argv[1]) as draft: draft.write_bytes(bytes(8192))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("StorageError") and "ulimit -f" in done.stdout
    assert names(tmp_path) == []


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    for text in ("first", "second"):
        with atomic_write(link) as draft:
            draft.write_text(text)
        assert link.is_symlink() and (tmp_path / "there" / "file").read_text() == text
    assert names(tmp_path / "there") == ["file"]


def test_what_is_not_a_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    for path, message in (
        (tmp_path, "is a folder"),
        ("", "is a folder"),
        ("/", "is a folder"),
        ("/dev/full", "a device or a pipe"),
        ("/dev/null", "a device or a pipe"),
        (tmp_path / "pipe", "a device or a pipe"),
        (tmp_path / "no" / "file", "there is no folder"),
        (tmp_path / "file" / "file", "is a file, and not a folder"),
        (tmp_path / "loop", "Too many levels of symbolic links"),
        (tmp_path / ("n" * 300), "File name too long"),
        ("a\0b", "is not a path"),
    ):
        with pytest.raises(InputError, match=message):
            check_file_destination(path)
        with pytest.raises(InputError, match=message), atomic_write(path):
            pass
    assert names(tmp_path) == before and Path("/dev/full").is_char_device()


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with atomic_write(path) as draft:
        draft.write_text("x")
    assert names(tmp_path) == [path.name]


def test_a_file_of_another_kind_is_not_replaced_by_one_that_was_not_named(tmp_path: Path) -> None:
    path = tmp_path / "net.png"
    assert check_derived_destination(path, b"ours") == path
    path.write_bytes(b"PNG ours")
    assert check_derived_destination(path, b"ours") == path
    path.write_bytes(b"PNG of a holiday")
    with pytest.raises(InputError, match="another file of that name"):
        check_derived_destination(path, b"ours")


def test_what_a_kill_has_left_is_removed_by_the_next_run_and_no_sooner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    program = (
        "import sys; from cos_export.atomic_file import atomic_write\n"
        "with atomic_write(sys.argv[1]) as draft:\n"
        "    draft.write_text('half'); print('there', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    with atomic_write(path) as draft:
        draft.write_text("mine")
    assert len(names(tmp_path)) == 2, "the other process is alive"
    process.kill()
    process.communicate()
    assert len(names(tmp_path)) == 2
    with atomic_write(path) as draft:
        draft.write_text("again")
    assert names(tmp_path) == ["file"]


def test_the_error_is_one_of_ours() -> None:
    assert issubclass(StorageError, CosExportError)
