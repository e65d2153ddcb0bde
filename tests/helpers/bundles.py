"""Bundles that tests alter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cos_export.bundle import sha256_of


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrites the manifest after `change` has altered it in place."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def relist(folder: Path) -> None:
    """Makes the manifest agree with the files as they are now."""

    def listed(manifest: dict[str, Any]) -> None:
        for name, entry in manifest["files"].items():
            entry |= {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}

    change_manifest(folder, listed)
