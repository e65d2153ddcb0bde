"""Networks of integers as C99."""

from cos_export.c_code.source import CSource, c_source, encoded_images

__all__ = ["CSource", "c_source", "encoded_images"]
