"""What a target is."""

from cos_export.target import Availability, Target

__all__ = ["Availability", "Target"]
