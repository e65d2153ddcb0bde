from __future__ import annotations

from pathlib import Path

import pytest

from cos_export.report import charts
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
    layers = {f"{name}{k}" * (1 + k): {"local": part, "own": part, "divergence": effect} for k in range(30)}
    networks = {"spiking": {"divergence": 0.2, "accuracy": None}}
    about = {"method": name, "schedule": "layerwise", "steps": 4, "samples": 9, "worst": f"{name}0"}
    picture = save_analysis_picture(tmp_path / "b.png", {**about, "networks": networks, "layers": layers})
    assert picture.read_bytes().startswith(b"\x89PNG")
