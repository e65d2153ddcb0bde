"""The bundle on disk, its golden run, and what a target does with it."""

from cos_export.bundle.folder import Bundle, load, network_of, sha256_of
from cos_export.bundle.manifest import BUNDLE_FORMAT
from cos_export.bundle.replacing import check_destination, replacing_folder

__all__ = ["BUNDLE_FORMAT", "Bundle", "check_destination", "load", "network_of", "replacing_folder", "sha256_of"]
