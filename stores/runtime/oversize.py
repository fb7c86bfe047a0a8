"""
How far an object may exceed its advisory size before its length is checked.

The SIZE in a manifest is advisory, and wrong for a link that was followed. Alone it is no reason to refuse an object.
"""

from __future__ import annotations

from typing import Final

FAR_BEYOND_BYTES: Final = 1024**3
FAR_BEYOND_TIMES: Final = 8

LARGEST_BYTES: Final = 5 * 1024**4
"""No S3 server takes a larger object. An object far beyond its advisory size and larger than this is not copied."""


def far_beyond(size_hint: int) -> int:
    """Return the length in bytes above which an object is far longer than *size_hint*, its advisory size."""
    return max(FAR_BEYOND_BYTES, FAR_BEYOND_TIMES * size_hint)
