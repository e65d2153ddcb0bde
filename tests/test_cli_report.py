"""`report` and the tables of `verify`, as a user meets them."""

from __future__ import annotations

import html
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import scale_threshold
from command_line import Done, run
from rich.console import Console
from small_networks import two_layers

from cos_export.bundle import load, sha256_of
from cos_export.errors import InputError
from cos_export.exporting import export_and_verify
from cos_export.parity import verify
from cos_export.parity.local import LocalLayer
from cos_export.report import report_destination
from cos_export.terminal.tables import show_parity
from targets import get

ROWS = [
    {"method": "half", "num_timesteps": None, "rho": 0, "accuracy": {"1": 0.5, "2": 0.75}},
    {"method": "cos", "num_timesteps": None, "rho": 4, "accuracy": {"1": 0.7, "2": 0.8125}},
]
METRICS = {"dataset": "noise", "samples": 9, "ann_accuracy": 0.9, "methods": ROWS}
IMAGES = (np.random.default_rng(1).integers(-16, 17, (6, 2, 5, 5)) / 16).astype(np.float32)


def exported(folder: Path, *targets: str) -> Path:
    run_on = [get(name) for name in targets]
    export_and_verify(two_layers(seed=1), folder, 2, golden=IMAGES, metrics=METRICS, targets=run_on)
    return folder


def spoiled(folder: Path) -> Path:
    """A bundle whose ONNX graph has other thresholds in its second layer, with the manifest made to agree."""
    exported(folder)
    scale_threshold(folder, "second", 1.5)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.mark.usefixtures("every_chart")
@pytest.mark.parametrize("targets", [(), ("pytorch", "onnxruntime")])
def test_the_page_of_the_export_comes_out_again_beside_the_bundle(tmp_path: Path, targets: tuple[str, ...]) -> None:
    bundle = exported(tmp_path / "out", *targets)
    before = contents(bundle)
    done = run("report", "out", cwd=tmp_path)
    page = tmp_path / "out.report.html"
    assert done.returncode == 0 and str(page) in done.stdout
    assert page.read_bytes() == (bundle / "report.html").read_bytes()
    assert contents(bundle) == before and load(bundle).steps == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.report.html"]
    inside = run("report", ".", cwd=bundle)
    assert inside.returncode == 0 and str(page) in inside.stdout, "the folder has a name from within, too"


def test_json_is_what_the_page_shows(tmp_path: Path) -> None:
    bundle = exported(tmp_path / "out")
    page = tmp_path / "mine.html"
    page.write_text("earlier")
    done = run("report", bundle, "--out", page, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["report"] == str(page) and document["bundle"] == str(bundle)
    opened = load(bundle)
    for key in ("num_timesteps", "rho", "method", "numerics", "neurons", "metrics", "layers", "versions"):
        assert document[key] == opened.manifest[key]
    assert document["costs"] == opened.manifest["costs"] and "Costs of one image" in page.read_text()
    assert document["parity"] is None and "No target was run" in page.read_text()
    spikes = opened.golden.trace.spikes
    assert document["firing_rates"] == {
        name: [spikes[name][t].mean() for t in range(2)] for name in ("first", "second")
    }
    potentials = document["initial_potentials"]
    assert {name: sum(counts) for name, counts in potentials["counts"].items()} == {"first": 75, "second": 6}
    half = np.digitize(0.5, potentials["edges"]) - 1
    assert potentials["counts"]["first"][half] == 75, "every potential is half the threshold"
    assert "81.2" in page.read_text() and page.read_text().count("<svg") == 3


def test_targets_are_run_first_and_their_parity_is_in_the_page(tmp_path: Path) -> None:
    bundle, page = exported(tmp_path / "out"), tmp_path / "p.html"
    done = run("report", bundle, "--targets", "pytorch,onnxruntime", "--out", page)
    assert done.returncode == 0 and done.stdout.count("passed") == 2 and str(page) in done.stdout
    assert page.read_text().count('class="passed"') == 2 and "first differs" not in page.read_text()
    assert load(bundle).manifest["parity"] is None


def test_a_failed_parity_is_written_with_its_place_and_exits_1(tmp_path: Path) -> None:
    bundle, page = spoiled(tmp_path / "out"), tmp_path / "p.html"
    done = run("report", bundle, "--targets", "onnxruntime", "--out", page, "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)["parity"]["targets"]["onnxruntime"]
    first, text = result["first_divergence"], html.unescape(page.read_text())
    assert not result["passed"] and first["layer"] == "second" and 'class="failed"' in text
    neuron, margin = ", ".join(map(str, first["neuron"])), f"margin {first['margin']:.3g}, bound {first['bound']:.3g}"
    place = f"layer second, step {first['step']}, sample {first['sample']}, neuron ({neuron})"
    assert f"onnxruntime first differs at {place}, which did not fire: {margin}." in text
    assert len(result["violations"]) > 0 and text.count("<li>") == len(result["violations"])


@pytest.mark.usefixtures("every_chart")
def test_the_export_that_failed_says_so_when_the_page_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command did what it was asked: what failed, and where, is in the page."""
    target = get("pytorch")
    original = type(target).run

    def silenced(*arguments: object, **options: object) -> object:
        trace = original(*arguments, **options)  # type: ignore[arg-type]
        return replace(trace, spikes={**trace.spikes, "second": np.zeros_like(trace.spikes["second"])})

    monkeypatch.setattr(type(target), "run", silenced)
    bundle = exported(tmp_path / "out", "pytorch")
    done = run("report", bundle)
    assert done.returncode == 0
    text = (tmp_path / "out.report.html").read_text()
    assert text == (bundle / "report.html").read_text()
    assert "FAILED" in text and "pytorch first differs at layer second" in text and "<li>" in text


@pytest.mark.parametrize("out", ["out/report.html", "out/extra.html", "out/../out/manifest.json", "link/page.html"])
def test_a_bundle_is_not_written_into(tmp_path: Path, out: str) -> None:
    bundle = exported(tmp_path / "out")
    (tmp_path / "link").symlink_to(bundle, target_is_directory=True)
    before = contents(bundle)
    refused = run("report", "out", "--out", out, cwd=tmp_path)
    assert refused.returncode == 2 and "not altered after its export" in refused.stderr
    assert contents(bundle) == before
    with pytest.raises(InputError, match="not altered"):
        report_destination(load(bundle), bundle / "model.nir")


def test_what_is_wrong_is_named_before_any_target_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = exported(tmp_path / "out")

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("ran")

    monkeypatch.setattr("cos_export.parity.verify", never)
    cases: list[tuple[tuple[str | Path, ...], int, str]] = [
        ((tmp_path / "none",), 2, "is not a bundle"),
        ((bundle, "--out", tmp_path / "no" / "p.html"), 2, "there is no folder"),
        ((bundle, "--out", tmp_path), 2, "is a folder"),
        ((bundle, "--targets", "loihi"), 2, "loihi"),
        ((bundle, "--targets", ""), 2, "Name at least one target"),
    ]
    for arguments, code, message in cases:
        done: Done = run("report", "--targets", "onnxruntime", *arguments)
        assert done.returncode == code and message in done.stderr, done
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_report_leaves_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, page = exported(tmp_path / "out"), tmp_path / "p.html"
    page.write_text("earlier")
    original = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        original(path, content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    assert run("report", bundle, "--out", page).returncode == 130
    assert page.read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "p.html"]


def test_help_of_report_has_an_example() -> None:
    done = run("report", "--help")
    assert done.returncode == 0 and "cos-export report out/digits" in " ".join(done.stdout.split())


def test_verify_shows_layers_only_of_a_target_that_differs(tmp_path: Path) -> None:
    bundle = spoiled(tmp_path / "out")
    done = run("verify", bundle, "--targets", "pytorch,onnxruntime")
    assert done.returncode == 1
    assert "onnxruntime: differing spikes by layer and step" in done.stdout
    assert "pytorch: differing spikes" not in done.stdout
    assert "pytorch" in done.stdout and "passed" in done.stdout, "its line in the table of targets is there"


@pytest.mark.parametrize(("layer", "shown"), [(None, False), ("second", True), ("readout", False)])
def test_a_violation_alone_shows_the_layers(tmp_path: Path, layer: str | None, shown: bool) -> None:
    """Nothing differs end to end; a readout that is off is in no layer's row."""
    result = verify(load(exported(tmp_path / "out")), [get("pytorch")])
    target = result["pytorch"]
    if layer is not None:
        violated = LocalLayer(np.array([0, 1]), np.array([0, 0]), 0.0)
        local = replace(target.local, readout=violated)
        if layer != "readout":
            local = replace(target.local, layers={**target.local.layers, layer: violated})
        result = replace(result, targets={"pytorch": replace(target, local=local)})
    text = io.StringIO()
    show_parity(Console(file=text, width=200), result)
    assert ("differing spikes by layer" in text.getvalue()) == shown
    assert ("FAILED" in text.getvalue()) == (layer is not None)
