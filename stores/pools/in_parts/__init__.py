"""
One object that several processes copy in parts, verified as a whole.

    record   what a process tells the others about a part, signed
    copying  copy parts, and make the object visible
"""

from .copying import PartsCopy, can_copy_in_parts, drop_parts
from .record import DonePart

__all__ = ["DonePart", "PartsCopy", "can_copy_in_parts", "drop_parts"]
