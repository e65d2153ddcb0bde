"""`verify` by name: what one target has come to is kept, whatever becomes of another."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from rich.console import Console
from small_networks import two_layers

from cos_export.bundle import Bundle, load
from cos_export.bundle.target import Availability
from cos_export.errors import CosExportError, NetworkError, TargetError, UnavailableError
from cos_export.exporting import export_and_verify
from cos_export.parity import verify as parity_verify
from cos_export.simulation.trace import Trace
from cos_export.terminal.tables import show_parity
from targets import get
from targets.verification import verify

IMAGES = (np.random.default_rng(1).integers(-16, 17, (6, 2, 5, 5)) / 16).astype(np.float32)

ERRORS = [
    (NetworkError("Layer 'a' has thresholds of its own for each channel."), 2),
    (TargetError("It failed while it ran."), 1),
    (UnavailableError("It is not installed."), 3),
]


class Refusing:
    """A target that has no result."""

    def __init__(self, error: CosExportError, name: str = "refusing") -> None:
        self.name, self._error = name, error

    def available(self) -> Availability:
        missing = isinstance(self._error, UnavailableError)
        return Availability(ready=not missing, reason=str(self._error) if missing else "")

    def run(self, *arguments: object, **options: object) -> Trace:
        raise self._error


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / "out"
    export_and_verify(two_layers(seed=1), folder, 2, golden=IMAGES)
    return load(folder)


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_target_without_a_result_leaves_the_others_theirs(
    bundle: Bundle, error: CosExportError, code: int, first: bool
) -> None:
    others = [get("pytorch", device="cpu"), get("onnxruntime")]
    result = verify(bundle, [Refusing(error), *others] if first else [*others, Refusing(error)])
    assert list(result.targets) == ["pytorch", "onnxruntime"]
    assert all(target.passed for target in result.values())
    assert not result.passed and result.exit_code == code
    assert result.to_dict()["refused"] == {"refusing": {"error": str(error), "exit_code": code}}
    shown = io.StringIO()
    show_parity(Console(file=shown, width=200), result)
    assert f"refusing: no result. {error}" in shown.getvalue()
    rows = {line.split()[0]: line for line in shown.getvalue().splitlines() if line.split()}
    assert "NO RESULT" in rows["refusing"] and "passed" in rows["pytorch"] and "passed" in rows["onnxruntime"]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_without_any_result_the_error_is_raised(bundle: Bundle, error: CosExportError, code: int) -> None:
    with pytest.raises(type(error), match=str(error)) as caught:
        verify(bundle, [Refusing(error)])
    assert caught.value.exit_code == code


def test_a_spike_that_differs_weighs_more_than_a_target_that_is_missing(bundle: Bundle) -> None:
    class Silent:
        name = "silent"

        def available(self) -> Availability:
            return Availability(ready=True)

        def run(self, bundle: Bundle, *arguments: object, **options: object) -> Trace:
            trace = bundle.golden.trace
            return Trace(trace.logits, {name: spikes & False for name, spikes in trace.spikes.items()})

    assert parity_verify(bundle, [Refusing(ERRORS[2][0]), Silent()]).exit_code == 1


@pytest.mark.parametrize(("error", "code"), ERRORS[:2], ids=lambda value: type(value).__name__)
def test_an_export_is_not_lost_with_a_target(tmp_path: Path, error: CosExportError, code: int) -> None:
    made, result = export_and_verify(
        two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES, targets=[get("pytorch", device="cpu"), Refusing(error)]
    )
    assert result is not None and not result.passed and result["pytorch"].passed
    parity = load(made.path).manifest["parity"]
    assert not parity["passed"]
    assert parity["refused"] == {"refusing": {"error": str(error), "exit_code": code}}
    assert "refusing has no result" in (made.path / "report.html").read_text("utf-8")


def test_the_whole_story_of_a_failure_stays_out_of_the_manifest(tmp_path: Path) -> None:
    error = TargetError("It failed.\nTraceback:\n" + "x" * 5000)
    made, _ = export_and_verify(two_layers(seed=1), tmp_path / "out", 2, golden=IMAGES, targets=[Refusing(error)])
    assert load(made.path).manifest["parity"]["refused"]["refusing"]["error"] == "It failed."


def test_on_the_command_line(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COS_EXPORT_LAVA_ENV", str(tmp_path / "none"))
    done = run("verify", bundle.path, "--targets", "lava,pytorch", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 3 and not document["passed"]
    assert document["targets"]["pytorch"]["passed"]
    assert "not installed" in document["refused"]["lava"]["error"]
    assert run("verify", bundle.path, "--targets", "lava").returncode == 3
    page = tmp_path / "page.html"
    assert run("report", bundle.path, "--targets", "lava,pytorch", "--out", page).returncode == 3
    assert "lava has no result" in page.read_text("utf-8")
