"""The benchmarks are run by hand: what they import must be there all the same."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_it_can_be_imported(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    module = importlib.import_module(name)
    is_run = '__name__ == "__main__"' in (BENCHMARKS / f"{name}.py").read_text()
    assert callable(module.main) if is_run else module.__all__
    for added in set(sys.modules) - before:
        if Path(getattr(sys.modules[added], "__file__", None) or "").parent == BENCHMARKS:
            monkeypatch.delitem(sys.modules, added)
