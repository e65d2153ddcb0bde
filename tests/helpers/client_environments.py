"""Environments of clients that hold no client."""

from __future__ import annotations

from pathlib import Path

from targets.clients import CLIENTS_SOFTWARE


def pretend(root: Path, python: str) -> None:
    """An environment by its files alone, whose Python is a program that is given."""
    packages = root / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "pyvenv.cfg").write_text("version = 3.11.7\n")
    (root / "complete.json").write_text("{}")
    (root / "bin" / "python").write_text(python)
    (root / "bin" / "python").chmod(0o755)
    for software in CLIENTS_SOFTWARE.values():
        for package in software.packages:
            (packages / f"{package.name}-{package.version}.dist-info").mkdir()
