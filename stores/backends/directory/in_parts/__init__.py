"""
Objects that several processes copy in parts: ranges of an open file, and parts of one temporary file.

    source  read ranges of one version of a file
    locks   locks of ranges of a file
    upload  the temporary file, and the note by which other processes find it
"""

from .source import pin, pinned
from .upload import begin_parts, drop_parts, join_parts

__all__ = ["begin_parts", "drop_parts", "join_parts", "pin", "pinned"]
