from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cos_export.bundle import BUNDLE_FORMAT, check_destination, replacing, replacing_folder
from cos_export.drafts import draft_beside
from cos_export.errors import InputError, StorageError


def write_bundle(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "model.nir").write_text(text)
    (folder / "manifest.json").write_text(json.dumps({"format": BUNDLE_FORMAT, "files": {"model.nir": {}}}))


def replace_by(path: Path, text: str) -> None:
    with replacing_folder(path) as new:
        write_bundle(new, text)


def content(folder: Path) -> str:
    return (folder / "model.nir").read_text()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot exchange two folders in one step."""
    monkeypatch.setattr(replacing, "_exchanged", lambda *paths: False)


def test_what_the_manifest_does_not_list_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_bundle(out, "first")
    (out / "notes.txt").write_text("mine")
    (out / "figures").mkdir()
    (out / "figures" / "one.png").write_text("mine")
    with pytest.raises(InputError, match=r"not part of the bundle there, .* not be replaced: figures, notes\.txt"):
        replace_by(out, "second")
    assert content(out) == "first" and (out / "figures" / "one.png").read_text() == "mine"
    assert names(out) == ["figures", "manifest.json", "model.nir", "notes.txt"] and names(tmp_path) == ["out"]
    (out / "notes.txt").unlink()
    (out / "figures" / "one.png").rename(tmp_path / "one.png")
    (out / "figures").rmdir()
    replace_by(out, "second")
    assert content(out) == "second" and names(tmp_path) == ["one.png", "out"]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_listed_name_that_is_not_a_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    write_bundle(out, "first")
    (out / "model.nir").unlink()
    (out / "model.nir").mkdir() if kind == "folder" else (out / "model.nir").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"will not be replaced: model\.nir"):
        check_destination(out)


@pytest.mark.parametrize("manifest", ["{", "[]", '{"files": {"notes.txt": {}}}', "[" * 100_000])
def test_the_manifest_of_something_else_lists_nothing(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(manifest)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"not a bundle, .* manifest\.json, notes\.txt"):
        check_destination(tmp_path / "out")


@pytest.mark.parametrize("exchange", [True, False])
def test_what_is_put_there_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool, request: pytest.FixtureRequest
) -> None:
    if not exchange:
        request.getfixturevalue("no_exchange")
    out = tmp_path / "out"
    write_bundle(out, "first")
    with pytest.raises(InputError, match=r"late\.txt"), replacing_folder(out) as new:
        write_bundle(new, "second")
        (out / "late.txt").write_text("mine")
    assert content(out) == "first" and (out / "late.txt").read_text() == "mine"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("empty", [True, False])
def test_an_empty_folder_or_none_becomes_the_bundle(tmp_path: Path, empty: bool) -> None:
    out = tmp_path / "out"
    if empty:
        out.mkdir()
    replace_by(out, "first")
    assert content(out) == "first" and names(tmp_path) == ["out"]


@pytest.mark.usefixtures("no_exchange")
def test_without_an_exchange_it_is_replaced_all_the_same(tmp_path: Path) -> None:
    replace_by(tmp_path / "out", "first")
    replace_by(tmp_path / "out", "second")
    assert content(tmp_path / "out") == "second" and names(tmp_path) == ["out"]


@pytest.mark.usefixtures("no_exchange")
@pytest.mark.parametrize("error", [OSError(errno.EIO, os.strerror(errno.EIO)), KeyboardInterrupt()])
def test_the_earlier_bundle_comes_back_if_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = tmp_path / "out"
    write_bundle(out, "first")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((StorageError, KeyboardInterrupt), match=r"out cannot be written: Input/output error|^$"):
        replace_by(out, "second")
    assert content(out) == "first" and names(tmp_path) == ["out"]


def test_a_kill_between_two_moves_is_mended_by_the_next_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = """
import os, sys, pathlib
from cos_export.bundle import replacing
replacing._exchanged = lambda *paths: False
rename = pathlib.Path.rename
def killed(self, target):
    if self.name == "new":
        os.kill(os.getpid(), 9)
    return rename(self, target)
with replacing.replacing_folder(sys.argv[1]) as new:
    (new / "manifest.json").write_text("{}")
    pathlib.Path.rename = killed
"""
    write_bundle(out, "first")
    done = subprocess.run([sys.executable, "-c", program, str(out)], check=False)
    assert done.returncode == -9 and not out.exists() and len(names(tmp_path)) == 1
    assert check_destination(out) == out
    assert content(out) == "first" and names(tmp_path) == ["out"]


def test_drafts_of_others_stay_and_those_of_the_dead_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with draft_beside(out) as alive:
        dead = alive.with_name(alive.name[:-9] + "0123.part")
        (dead / "new").mkdir(parents=True)
        other = tmp_path / ".cos-export-01234567-89abcdef.part"
        users = [other, tmp_path / f"{dead.name}.bak"]
        for folder in users:
            folder.mkdir()
        replace_by(out, "first")
        assert names(tmp_path) == sorted(["out", alive.name, *(folder.name for folder in users)])
    assert names(tmp_path) == sorted(["out", *(folder.name for folder in users)])


def test_many_writers_and_readers_of_one_bundle_never_miss_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_bundle(out, "start")
    program = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_replacing import replace_by
for number in range(60):
    replace_by(Path(sys.argv[1]), sys.argv[2] + str(number))
"""
    arguments = [sys.executable, "-c", program, str(out)]
    writers = [subprocess.Popen([*arguments, name, str(Path(__file__).parent)]) for name in "abc"]
    reads = 0
    while any(writer.poll() is None for writer in writers):
        assert out.is_dir(), "there is a bundle at any moment"
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0, 0] and reads > 100
    assert content(out) in ("a59", "b59", "c59") and names(tmp_path) == ["out"]


def test_the_working_folder_and_those_above_it_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_bundle(out, "first")
    monkeypatch.chdir(out)
    for path in (".", "", "..", "/", out, "../out"):
        with pytest.raises(InputError, match="the folder that this command runs in"):
            check_destination(path)
    assert content(out) == "first"


def test_links_are_followed_and_stay(tmp_path: Path) -> None:
    out, link, dangling = tmp_path / "out", tmp_path / "link", tmp_path / "dangling"
    write_bundle(out, "first")
    link.symlink_to(out)
    replace_by(link, "second")
    assert link.is_symlink() and content(out) == "second"
    dangling.symlink_to(tmp_path / "new")
    replace_by(dangling, "third")
    assert dangling.is_symlink() and content(tmp_path / "new") == "third"
    assert names(tmp_path) == ["dangling", "link", "new", "out"]


def test_places_that_cannot_hold_a_bundle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in (
        ("file", "is a file"),
        ("file/out", r"file is a file, and not a folder"),
        ("file/new/out", r"file is a file, and not a folder"),
        ("loop", "Too many levels of symbolic links"),
        ("loop/out", "Too many levels of symbolic links"),
        ("n" * 300, "File name too long"),
        ("a\0b", "is not a path"),
    ):
        with pytest.raises(InputError, match=message):
            check_destination(tmp_path / path)
    with pytest.raises(InputError, match="is a file"):
        check_destination("/dev/null")
    with pytest.raises(InputError, match=r"mount point|that this command runs in"):
        check_destination("/proc")
    assert names(tmp_path) == ["file", "loop"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_folders_that_may_not_be_written_are_named_before_any_work() -> None:
    """As somebody who is not root, whom no permission stops."""
    program = (
        "import os, sys; from cos_export.bundle import check_destination; from cos_export.errors import InputError\n"
        "os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: check_destination(path)\n"
        "    except InputError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as name:  # tmp_path is for its owner alone
        folder = Path(name)
        folder.chmod(0o755)
        write_bundle(folder / "out", "first")
        arguments = [sys.executable, "-c", program, str(folder / "out"), str(folder / "new" / "out")]
        done = subprocess.run(arguments, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert "may not be read or written" in first and "may not be written" in second, done.stderr


@pytest.mark.parametrize("kind", [FileNotFoundError, InputError, StorageError])
def test_a_folder_that_is_removed_meanwhile_is_said_of_the_folder_that_was_named(
    tmp_path: Path, kind: type[Exception]
) -> None:
    """What fails then is about a draft, whose hidden name means nothing to the user."""
    above = tmp_path / "above"
    with pytest.raises(StorageError) as raised, replacing_folder(above / "b") as new:
        write_bundle(new, "half")
        shutil.rmtree(above)
        raise kind(f"{new}/model.onnx does not exist")
    assert str(raised.value) == (
        f"{above / 'b'} cannot be written: the folder that it was written in was removed meanwhile."
    )
    assert names(tmp_path) == []


def test_a_path_that_is_not_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    """ONNX Runtime would fail on the finished bundle."""
    for path in (tmp_path / os.fsdecode(b"\xff"), tmp_path / os.fsdecode(b"\xff") / "b"):
        with pytest.raises(InputError, match="is not UTF-8, and ONNX Runtime opens no other"):
            check_destination(path)
    assert check_destination(tmp_path / "ünï ☃") == tmp_path / "ünï ☃"
