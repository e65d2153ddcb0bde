"""The bundle on disk, its golden run, and what a target does with it."""

from cos_export.bundle.folder import (
    BUNDLE_FORMAT,
    Bundle,
    check_destination,
    load,
    network_of,
    replacing_folder,
    sha256_of,
)

__all__ = ["BUNDLE_FORMAT", "Bundle", "check_destination", "load", "network_of", "replacing_folder", "sha256_of"]
