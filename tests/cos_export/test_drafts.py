from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cos_export.drafts import draft_beside


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

    def interrupted(self: Path) -> None:
        make(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), draft_beside(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []
