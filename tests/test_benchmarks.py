"""The benchmarks are run by hand: what they import must be there all the same."""

from __future__ import annotations

import importlib
import os
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


def test_a_checkout_is_measured_with_its_own_code_by_the_modules_beside_the_benchmark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("update_speed")
    assert module.search_path(tmp_path).split(os.pathsep) == [str(tmp_path.resolve()), str(BENCHMARKS.resolve())]
