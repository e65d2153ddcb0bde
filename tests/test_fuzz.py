"""Three hundred damaged files of each kind: each gives a valid result or the product's own error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import KINDS, Trials, outcome

TRIALS = 300
NATIVE = "model.onnx"
"""What native code reads, which might end the process: in a child."""

_FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith((NATIVE, "model.nir"))])
def test_damage_is_refused_or_harmless(kind: str, tmp_path: Path) -> None:
    trials = Trials(kind, tmp_path)
    outcomes = {seed: outcome(trials.kind, trials.file(seed)) for seed in range(TRIALS)}
    assert {seed: each for seed, each in outcomes.items() if each not in ("valid", "refused")} == {}
    assert list(outcomes.values()).count("refused") > TRIALS // 10, "most damage is seen"


def test_damage_does_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, _FUZZ, "--kinds", NATIVE, "--trials", str(TRIALS), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [actual] = json.loads(done.stdout)
    assert actual["trials"] == TRIALS and actual["valid"] + actual["refused"] == TRIALS
