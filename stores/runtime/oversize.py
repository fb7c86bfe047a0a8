"""
How far an object may be longer than expected before it is looked at with suspicion.

The SIZE of a manifest is advisory, and wrong for a link that was followed, so it refuses nothing alone.
"""

from __future__ import annotations

from typing import Final

FAR_BEYOND_BYTES: Final = 1024**3
FAR_BEYOND_TIMES: Final = 8

LARGEST_BYTES: Final = 5 * 1024**4
"""No S3 server takes a larger object. What is far longer than expected and larger than this is copied nowhere."""


def far_beyond(size_hint: int) -> int:
    """Return the length in bytes above which an object is grossly longer than *size_hint*, its advisory size."""
    return max(FAR_BEYOND_BYTES, FAR_BEYOND_TIMES * size_hint)
