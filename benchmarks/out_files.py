"""What --out names: OUT.json with all that was measured, and OUT.md with its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["write_out"]


def write_out(out: Path, document: dict[str, Any], text: str) -> None:
    """Writes both; their folder is made if it is not there.

    Args:
        out: Their name without an ending.
        document: For JSON.
        text: In Markdown.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")
    out.with_suffix(".md").write_text(text)
