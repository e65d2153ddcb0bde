"""The bundle on disk: reading it, and putting a new one in place whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cos_export.atomic_file import umask
from cos_export.bundle.golden import Golden, read_golden
from cos_export.errors import BundleError, InputError
from cos_export.network import SpikingNetwork
from cos_export.nir_file import read_nir

__all__ = ["BUNDLE_FORMAT", "Bundle", "check_destination", "load", "network_of", "replacing_folder", "sha256_of"]

BUNDLE_FORMAT = "cos-export-bundle/1"
"""What manifest.json calls its format."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        path: Its folder.
        manifest: What manifest.json says.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def nir_path(self) -> Path:
        """The NIR graph with its metadata."""
        return self.path / "model.nir"

    @property
    def onnx_path(self) -> Path:
        """The T-step ONNX graph."""
        return self.path / "model.onnx"

    @property
    def golden_path(self) -> Path:
        """The reference run."""
        return self.path / "golden.npz"

    @property
    def report_path(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def steps(self) -> int:
        """T of the ONNX graph and of the golden run."""
        return int(self.manifest["num_timesteps"])

    @cached_property
    def network(self) -> SpikingNetwork:
        """The network, read from model.nir."""
        return read_nir(self.nir_path)

    @cached_property
    def golden(self) -> Golden:
        """The reference run, read from golden.npz."""
        return read_golden(self.golden_path, self.network)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | os.PathLike[str]) -> Bundle:
    """Opens a bundle and checks every file against the manifest.

    Raises:
        BundleError: It is no bundle, of a later format, or a file is missing or altered.
    """
    folder = Path(path)
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        what = "holds no manifest.json" if folder.is_dir() else "does not exist" if not folder.exists() else "is a file"
        raise BundleError(f"{folder} is no bundle: it {what}. Make one with `cos-export convert-and-export`.")
    try:
        manifest = json.loads(manifest_path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{manifest_path} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise BundleError(
            f"{manifest_path} has the format {found!r}, and this version reads {BUNDLE_FORMAT!r}. "
            "Export the bundle again, or update cos-export."
        )
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{file} is missing, and the manifest lists it. Export the bundle again.")
        if sha256_of(file) != entry["sha256"]:
            raise BundleError(f"{file} was altered after the export: its SHA-256 is not the manifest's.")
    return Bundle(folder, manifest)


def network_of(path: str | os.PathLike[str]) -> SpikingNetwork:
    """The network of a bundle, or of a NIR file.

    Raises:
        BundleError: The folder is no bundle, or a file in it is missing or altered.
        InputError: There is no such file, or it is no HDF5 file.
        NetworkError: What the file holds is no feed-forward network of integrate-and-fire neurons.
    """
    return load(path).network if Path(path).is_dir() else read_nir(path)


def check_destination(path: Path) -> None:
    """Refuses to write over anything but nothing, an empty folder or an earlier bundle.

    Raises:
        InputError: Something else is there.
    """
    if path.is_dir():
        if any(path.iterdir()) and not _is_bundle(path):
            raise InputError(f"{path} holds files that are no bundle, and will not be replaced. Name another folder.")
    elif path.exists():
        raise InputError(f"{path} is a file. Name a folder for the bundle.")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A staging folder beside `path` that takes its place when the block ends, and vanishes if it fails.

    Raises:
        InputError: `path` holds something that is no bundle, or its parent cannot be written.
    """
    check_destination(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written: {error.strerror}.") from error
    staging.chmod(0o777 & ~umask())
    try:
        yield staging
        _take_place(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take_place(staging: Path, path: Path) -> None:
    if not path.exists():
        staging.rename(path)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        path.rename(retired / "old")
        try:
            staging.rename(path)
        except OSError:
            (retired / "old").rename(path)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def _is_bundle(path: Path) -> bool:
    try:
        found = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and str(found.get("format", "")).startswith("cos-export-bundle/")
