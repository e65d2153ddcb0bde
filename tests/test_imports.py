"""Who may import whom: the architecture as a contract."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cos_export", "calibration", "targets")

MAY_IMPORT = {
    "targets": {"cos_export", "targets"},
    "calibration": {"cos_export", "calibration"},
    "cos_export": {"cos_export"},
    "cos_export/commands": {"cos_export", "calibration", "targets"},
}
"""By folder, the deepest that holds a module: our packages that it may import. cli.py may import all of them."""

EXCEPTIONS = {"targets/verification.py": {"calibration"}}
"""`verify` refuses a bundle whose calibration method is not known here, and methods are known to `calibration`."""

FACES = (ROOT / "cos_export" / "__init__.py", ROOT / "cos_export" / "__main__.py")
"""The first hands on names of the other two when they are asked for; the second is `cli.py` under another name."""

LOWER = {
    "cos_export/datasets": {
        "cos_export.datasets",
        "cos_export.errors",
        "cos_export.reading",
        "cos_export.user_code",
        "cos_export.user_factory",
        "cos_export.whole_number",
    },
    "cos_export/network": {
        "cos_export.network",
        "cos_export.bounds",
        "cos_export.datasets",
        "cos_export.decisions",
        "cos_export.errors",
        "cos_export.numerics",
        "cos_export.whole_number",
    },
    "cos_export/simulation": {
        "cos_export.network",
        "cos_export.simulation",
        "cos_export.bounds",
        "cos_export.decisions",
        "cos_export.errors",
        "cos_export.device",
        "cos_export.freed_memory",
        "cos_export.progress",
        "cos_export.datasets",
        "cos_export.storage",
        "cos_export.whole_number",
    },
}
"""What the three lowest folders may import of `cos_export`: nothing that stands on them."""


def modules() -> list[Path]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if "worker" not in path.parts and path not in FACES]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
    return {name for name in names if name.split(".")[0] in (*PACKAGES, "cli")}


def deepest(path: Path, rules: dict[str, set[str]]) -> set[str] | None:
    folder = path.parent.relative_to(ROOT).as_posix()
    fitting = [key for key in rules if folder == key or folder.startswith(f"{key}/")]
    return rules[max(fitting, key=len)] if fitting else None


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_what_its_folder_may(path: Path) -> None:
    allowed = deepest(path, MAY_IMPORT)
    assert allowed is not None
    excepted = EXCEPTIONS.get(path.relative_to(ROOT).as_posix(), set())
    assert {name.split(".")[0] for name in imports(path)} <= allowed | excepted
    below = deepest(path, LOWER)
    if below is not None:
        assert {".".join(name.split(".")[:2]) for name in imports(path)} <= below


def test_only_the_commands_and_the_face_know_the_other_packages() -> None:
    knowing = {
        path.parent.relative_to(ROOT).as_posix()
        for path in modules()
        if path.is_relative_to(ROOT / "cos_export")
        and any(name.split(".")[0] in ("calibration", "targets", "cli") for name in imports(path))
    }
    assert knowing <= {"cos_export/commands"}
