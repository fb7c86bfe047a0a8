"""
One object that several processes copy in parts, verified as a whole.

    record   what a process tells the others about a part, signed
    copying  copy parts, and make the object visible
"""

from .copying import MOST_PARTS, PartsCopy, can_copy_in_parts, drop_parts, parts_of
from .record import DonePart

__all__ = ["MOST_PARTS", "DonePart", "PartsCopy", "can_copy_in_parts", "drop_parts", "parts_of"]
