"""Networks as NIR files."""

from cos_export.nir_file.reader import read_nir
from cos_export.nir_file.writer import write_nir

__all__ = ["read_nir", "write_nir"]
