from __future__ import annotations

from pathlib import Path

import pytest

from cos_export.report import charts, save_report
from cos_export.report.analysis_picture import save_analysis_picture
from cos_export.report.offset_picture import save_offset_picture

NAMES = ["$", r"$\frac{1}{0$", "$a$", r"\$a$", "a$b$c", "<b>&", "$" * 9]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_letter_for_letter_and_is_not_a_formula(name: str, tmp_path: Path) -> None:
    rows = [{"method": name, "rho": 0, "accuracy": {"1": 0.5, "2": 0.6}}]
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    pictures = [
        charts.accuracy_chart({"ann_accuracy": 0.9, "methods": rows}),
        charts.potential_chart({"edges": [0.0, 0.5, 1.0], "counts": {name: [1, 2]}}),
        charts.firing_rate_chart({name: [0.1, 0.2]}),
    ]
    assert all(f">{shown}<" in picture for picture in pictures)
    layers = {name: {"0": {"no_offset": 0.5, "counts": [1, 2, 1], "mse": 0.1}}}
    save_offset_picture(tmp_path / "a.png", {"rho": 4, "samples": 1, "steps": 4, "psi": [-1, 0, 1], "layers": layers})
    part = {"clipping": 0.1, "levels": 0.2, "timing": 0.3, "cross": -0.1, "total": 0.5, "cause": "timing"}
    effect = {"unclipped": 0.0, "alone": 0.1, "repaired": 1e-6}
    errors = {f"{name}{k}" * (1 + k): {"local": part, "own": part, "divergence": effect} for k in (0, 1, 29)}
    networks = {"spiking": {"divergence": 0.2, "accuracy": None}}
    about = {"method": name, "schedule": "layerwise", "steps": 4, "samples": 9, "worst": f"{name}0"}
    picture = save_analysis_picture(tmp_path / "b.png", {**about, "networks": networks, "layers": errors})
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_thousands_of_layers_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_export.report.analysis_picture._MOST_LAYERS", 9)
    part = {"clipping": 0.1, "levels": 0.2, "timing": 0.3, "cross": -0.1, "total": 0.5, "cause": "timing"}
    effect = {"unclipped": 0.0, "alone": 0.1, "repaired": 1e-6}
    layers = {f"layer{k}": {"local": part, "own": part, "divergence": effect} for k in range(3000)}
    about = {"method": "half", "schedule": "layerwise", "steps": 4, "samples": 9, "worst": "layer7"}
    networks = {"spiking": {"divergence": 0.2, "accuracy": None}}
    picture = save_analysis_picture(tmp_path / "a.png", {**about, "networks": networks, "layers": layers})
    assert int.from_bytes(picture.read_bytes()[20:24], "big") < 1000, "pixels high"
    layers = {f"layer{k}": {"0": {"no_offset": 0.5, "counts": [1, 2, 1], "mse": 0.1}} for k in range(3000)}
    save_offset_picture(tmp_path / "b.png", {"rho": 4, "samples": 1, "steps": 4, "psi": [-1, 0, 1], "layers": layers})


def test_a_report_of_thousands_of_methods_and_steps_stays_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cos_export.report.page._MOST_LAYERS", 6)
    accuracy = {str(t): 0.5 for t in range(1, 3001)}
    rows = [{"method": f"m{k}<b>\udcff", "num_timesteps": None, "rho": 0, "accuracy": accuracy} for k in range(20_000)]
    beside = {"methods": rows[:1], "agreement": 0.75, "agreement_samples": 8}
    metrics = {"dataset": "[/x]", "samples": 3, "ann_accuracy": 0.9, "methods": rows, "float32": beside}
    layer = {"shape": [2], "threshold_min": 1.0, "threshold_max": 1.0}
    names = [f"layer{k}" for k in range(2000)]
    document = {
        **{"num_timesteps": 2, "rho": 0, "total_timesteps": 2, "method": "m", "calibration": {"name": "m"}},
        **{
            "calibrated_timesteps": 4,
            "numerics": "int8",
            "neurons": 2,
            "parity": None,
            "costs": None,
            "versions": {},
            "notes": [],
        },
        "metrics": metrics,
        "layers": [{**layer, "name": name, "v_init_min": 0.5, "v_init_mean": 0.5, "v_init_max": 0.5} for name in names],
        "schedule": "layerwise",
        "normalisation": {"mean": [0.25], "std": [0.5]},
        "classes": [f"class {k}" for k in range(100)],
        "initial_potentials": {"edges": [0.0, 0.5, 1.0], "counts": {name: [1, 2] for name in names}},
        "firing_rates": {name: [0.1] * 3000 for name in names},
    }
    save_report(tmp_path / "page.html", document)
    page = (tmp_path / "page.html").read_text("utf-8")
    assert len(page) < 2**21 and page.count("<td>m") == 40 and "40 of 20000 methods are shown" in page
    assert "m0&lt;b&gt;\\udcff" in page and "T = 1<" in page and "T = 3000<" in page
    for said in (
        "Schedule layerwise",
        "Made for T = 4, exported for T = 2",
        "mean 0.25 and standard deviation 0.5",
        "100 classes: class 0, class 1,",
        "and 68 more",
        "int8 beside float32",
        "int8 decides 75.0 % of 8 calibration images",
        "@media print",
        '<td data-label="T = 1">50.0</td>',
        ".figures td:empty { display: none; }",
        "400 of 2,000 layers are shown",
        "6 of 2,000 layers are drawn",
        ">layer0<",
        ">layer1999<",
    ):
        assert said in page, said
