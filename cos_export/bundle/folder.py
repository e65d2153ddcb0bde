"""The bundle on disk, and how it is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cos_export.bundle.file_names import GOLDEN_FILE, MANIFEST, NIR_FILE, ONNX_FILE, REPORT_FILE, STEP_FILE
from cos_export.bundle.golden import Golden, read_golden
from cos_export.bundle.manifest import BUNDLE_FORMAT, read_manifest
from cos_export.datasets import Normalisation
from cos_export.errors import BundleError, InputError
from cos_export.network import SpikingNetwork
from cos_export.nir_file import read_nir
from cos_export.reading.plain_file import check_plain_file, open_plain

__all__ = ["Bundle", "load", "network_of", "sha256_of"]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    `network` and `golden` are read once, and are what targets and `verify` take: write into copies of their arrays.

    Attributes:
        path: Its folder.
        manifest: What manifest.json says.
    """

    path: Path
    manifest: Mapping[str, Any]

    @property
    def nir_path(self) -> Path:
        """The NIR graph with its metadata."""
        return self.path / NIR_FILE

    @property
    def onnx_path(self) -> Path:
        """The T-step ONNX graph."""
        return self.path / ONNX_FILE

    @property
    def step_path(self) -> Path:
        """The ONNX graph of one step; a bundle of an earlier format has none."""
        return self.path / STEP_FILE

    @property
    def golden_path(self) -> Path:
        """The reference run."""
        return self.path / GOLDEN_FILE

    @property
    def report_path(self) -> Path:
        """The page for people."""
        return self.path / REPORT_FILE

    @property
    def steps(self) -> int:
        """T of the ONNX graph and of the golden run."""
        return int(self.manifest["num_timesteps"])

    @property
    def rounds_logits_once(self) -> bool:
        """Whether the recorded logits of a network of integers are one product of an exact sum, as they are now."""
        return bool(self.manifest.get("format", BUNDLE_FORMAT) == BUNDLE_FORMAT)

    @cached_property
    def network(self) -> SpikingNetwork:
        """The network, read from model.nir.

        Raises:
            BundleError: It is not the network that the manifest tells of.
        """
        network = read_nir(self.nir_path)
        self._check_manifest_tells(
            self.nir_path,
            num_timesteps=network.num_timesteps,
            rho=network.rho,
            method=network.method,
            numerics=network.numerics,
            schedule=network.schedule,
            input_encoding=network.input_encoding,
            normalisation=None if network.normalisation is None else network.normalisation.to_dict(),
            classes=None if network.class_names is None else list(network.class_names),
            input_shape=list(network.input_shape),
            output_shape=list(network.output_shape),
            readout_shape=None if network.readout_shape is None else list(network.readout_shape),
            left_out=list(network.left_out),
            neurons=network.neuron_count,
        )
        if "normalisation" in self.manifest:
            return network
        # A bundle of the first format has it in words alone.
        words = str(self.manifest["metrics"].get("normalisation", ""))
        return replace(network, normalisation=network.normalisation or Normalisation.in_words(words))

    @cached_property
    def golden(self) -> Golden:
        """The reference run, read from golden.npz.

        Raises:
            BundleError: It is damaged, or not the run of this network that the manifest tells of.
        """
        golden = read_golden(self.golden_path, self.network)
        self._check_manifest_tells(
            self.golden_path,
            num_timesteps=golden.trace.steps,
            rho=golden.trace.rho,
            golden_samples=len(golden.images),
        )
        return golden

    def _check_manifest_tells(self, file: Path, **actual: object) -> None:
        for key, value in actual.items():
            told = self.manifest.get(key, value)
            if told != value:
                raise BundleError(f"{file} has {key} {value}, and the manifest says {told}. Export the bundle again.")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | os.PathLike[str]) -> Bundle:
    """Opens a bundle and checks every file against the manifest.

    The manifest lists exactly a bundle's own files, by plain names. Each must be a regular file, not a link, of the
    size and the SHA-256 that it says.

    Raises:
        BundleError: It is not a bundle, is of a later format, or a file is missing or altered.
    """
    folder = Path(path)
    if not os.path.lexists(folder / MANIFEST):
        what = "holds no manifest.json" if folder.is_dir() else "does not exist" if not folder.exists() else "is a file"
        raise BundleError(f"{folder} is not a bundle: it {what}. Make one with `cos-export convert-and-export`.")
    manifest = read_manifest(folder)
    try:
        for name, entry in manifest["files"].items():
            _check_file(folder / name, entry["bytes"], entry["sha256"])
    except InputError as error:
        raise BundleError(f"{error} Export the bundle again.") from error
    return Bundle(folder, manifest)


def _check_file(file: Path, size: int, digest: str) -> None:
    if not os.path.lexists(file):
        raise InputError(f"{file} is missing, and the manifest lists it.")
    actual_size = check_plain_file(file, links=False)
    if actual_size != size:
        raise InputError(
            f"{file} was altered after the export: it has {actual_size:,} bytes, and the manifest says {size:,}."
        )
    with open_plain(file, links=False) as opened:
        if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
            raise InputError(f"{file} was altered after the export: its SHA-256 is not the manifest's.")


def network_of(path: str | os.PathLike[str]) -> SpikingNetwork:
    """The network of a bundle, or of a NIR file.

    Raises:
        BundleError: The folder is not a bundle, or a file in it is missing or altered.
        InputError: There is no such file, or it is not an HDF5 file.
        NetworkError: What the file holds is not a feed-forward network of integrate-and-fire neurons.
    """
    return load(path).network if Path(path).is_dir() else read_nir(path)
