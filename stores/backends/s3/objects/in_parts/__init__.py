"""
Objects that several processes copy in parts: ranges of one version from a bucket, and parts of one upload into one.

    source  read ranges of one version of an object
    note    what the bucket remembers of an upload, so that other processes can join
    upload  the upload
"""

from .source import pin, pinned
from .upload import begin_parts, drop_parts, join_parts

__all__ = ["begin_parts", "drop_parts", "join_parts", "pin", "pinned"]
