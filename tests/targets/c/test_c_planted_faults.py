"""An error planted in what the C code runs is found, and named by layer, step, sample and neuron."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_faults import FAULTS, check_found_and_located

from targets.c import CTarget

pytestmark = pytest.mark.skipif(not CTarget().available().ready, reason="no C compiler is installed")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_located(fault: str, tmp_path: Path) -> None:
    check_found_and_located(CTarget(options=("-O0",)), FAULTS[fault], tmp_path)
