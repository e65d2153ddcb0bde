"""`cos-export code`, and the target `c` on the command line."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from eight_bit_networks import in_integers, pictures, topology

from cos_export.exporting import export
from targets.c import CTarget

pytestmark = pytest.mark.skipif(not CTarget().available().ready, reason="no C compiler is installed")


@pytest.fixture(scope="module", params=["synchronous", "layerwise"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dataclasses import replace

    network = replace(in_integers(topology("residual"), 1), schedule=request.param)
    return export(network, tmp_path_factory.mktemp("bundles") / "net", 2, golden=pictures(network, 4)).path


def test_code_is_written_compiled_and_tested(bundle: Path, tmp_path: Path) -> None:
    done = run("code", bundle, "--language", "c", "--out", tmp_path / "c", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["tested_samples"] == 4 and not document["notes"]
    assert document["code_bytes"] is None or 500 < document["code_bytes"] < 20_000
    header = (tmp_path / "c" / "net.h").read_text()
    assert f"NET_STATE_BYTES {document['state_bytes']}u" in header
    made = subprocess.run(["make", "test"], cwd=tmp_path / "c", capture_output=True, text=True, check=True)
    assert "4 images, 2 layers, 2 steps: nothing differs" in made.stdout and "warning" not in made.stderr
    shown = run("code", bundle, "--out", tmp_path / "c")
    assert shown.returncode == 0
    assert re.search(r"Flash: [\d,]+ bytes of constants", shown.stdout) and "nothing differs" in shown.stdout
    assert f"RAM: {document['state_bytes']:,} bytes" in shown.stdout


def test_the_test_finds_weights_that_were_changed(bundle: Path, tmp_path: Path) -> None:
    assert run("code", bundle, "--out", tmp_path / "c").returncode == 0
    code = tmp_path / "c" / "net.c"
    before, weights, behind = re.split(r"(conv2_weights\[[^;]+;)", code.read_text())
    code.write_text(before + weights.replace("-", "") + behind)
    made = subprocess.run(["make", "test"], cwd=tmp_path / "c", capture_output=True, text=True, check=False)
    assert made.returncode != 0 and "the spikes of layer if2 differ" in made.stdout and "FAILED" in made.stdout


def test_verify_runs_the_target_c(bundle: Path) -> None:
    done = run("verify", bundle, "--targets", "c,onnxruntime", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["passed"]
    assert document["targets"]["c"]["mismatches"] == 0 and document["targets"]["c"]["logit_difference"] == 0


def test_what_is_wrong_exits_with_2_and_what_is_missing_with_3(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("code", bundle, "--language", "ada", "--out", tmp_path / "c")
    assert refused.returncode == 2 and "no writer of 'ada'" in refused.stderr
    (tmp_path / "mine").mkdir()
    np.savez(tmp_path / "mine" / "data.npz", images=np.zeros(3))
    refused = run("code", bundle, "--out", tmp_path / "mine")
    assert refused.returncode == 2 and "data.npz" in refused.stderr
    monkeypatch.setenv("CC", "no-such-compiler")
    missing = run("verify", bundle, "--targets", "c")
    assert missing.returncode == 3 and "no-such-compiler" in missing.stderr
    written = run("code", bundle, "--out", tmp_path / "c")
    assert written.returncode == 0 and "was not compiled and its test not run" in written.stdout
    assert (tmp_path / "c" / "net.c").is_file()
