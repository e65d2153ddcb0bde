from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cos_export.drafts import draft_beside, temporary_folder


def test_an_interruption_of_the_cleaning_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, calls = shutil.rmtree, list[Path]()

    def interrupted(path: Path, ignore_errors: bool) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), draft_beside(tmp_path / "out") as draft:
        (draft / "half").write_text("written")
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []


def test_an_interruption_before_it_is_lent_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def interrupted(self: Path, mode: int) -> None:
        make(self, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), draft_beside(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_temporary_folder_is_for_its_owner_and_goes_with_its_block(temporary: Path) -> None:
    with temporary_folder("spikes") as one, temporary_folder("spikes") as other:
        assert one != other and {one.parent, other.parent} == {temporary}
        assert one.name.startswith("cos-export-spikes-") and one.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_killed_run_has_left_goes_with_the_next(temporary: Path, ended: bool) -> None:
    """And what a run uses that is going on does not."""
    script = (
        "import sys, tempfile\n"
        "from cos_export.drafts import temporary_folder\n"
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "with temporary_folder('spikes') as folder:\n"
        "    (folder / '0.npy').write_bytes(b'1')\n"
        "    print(folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    (temporary / "cos-export-spikes-mine").mkdir()
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().decode().strip())
        try:
            if ended:
                process.kill()
                process.wait()
            with temporary_folder("lava"):
                assert left.is_dir(), "another kind is left to its own runs"
            with temporary_folder("spikes"):
                assert left.is_dir() is not ended
        finally:
            process.kill()
    assert [path.name for path in temporary.iterdir() if path != left] == ["cos-export-spikes-mine"]
