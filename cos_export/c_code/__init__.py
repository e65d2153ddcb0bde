"""Networks of integers as C99."""

from cos_export.c_code.source import CSource, c_source, quantised_images

__all__ = ["CSource", "c_source", "quantised_images"]
