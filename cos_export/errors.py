"""The one tree of errors. Each says what happened, where, and what to do."""

from __future__ import annotations

__all__ = [
    "BundleError",
    "CaptureError",
    "CosExportError",
    "InputError",
    "LostProcessError",
    "NetworkError",
    "Notice",
    "ParityError",
    "StorageError",
    "TargetError",
    "UnavailableError",
]


class CosExportError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        exit_code: What the command line exits with: 1 a check or a run failed, 2 the input is
            wrong, 3 a target or a device is missing.
    """

    exit_code = 2


class InputError(CosExportError):
    """A file, array or option the user gave cannot be used."""


class CaptureError(CosExportError):
    """A PyTorch module holds something that has no spiking equivalent here."""


class NetworkError(CosExportError):
    """A graph is not a network of integrate-and-fire neurons that can be run."""


class BundleError(CosExportError):
    """A bundle on disk is missing, incomplete or altered."""


class StorageError(CosExportError):
    """A file could not be written, and not by the user's fault: the disk is full, or has failed."""

    exit_code = 1


class TargetError(CosExportError):
    """A target was there, and failed while it ran."""

    exit_code = 1


class ParityError(CosExportError):
    """Two runs that must agree do not."""

    exit_code = 1


class UnavailableError(CosExportError):
    """A target, device or environment is not there."""

    exit_code = 3


class LostProcessError(UnavailableError):
    """Another process of the same run has ended, or does not answer."""


class Notice(UserWarning):
    """What was done to the user's input without changing what it means. The command line prints it in one line."""


class ResolutionWarning(UserWarning):
    """A network of integers cannot tell apart what the network of float32 does; the message names layer and channel."""
