"""
Damage by other programs: keys of the fleet that have another type, or that never expire where they must.

    key_types     the type of each key
    damaged_keys  find damaged keys, and set them aside
"""

from .damaged_keys import DAMAGED, DamagedKey, KeyRepair, damaged_keys, is_wrong_type, shared_damage

__all__ = ["DAMAGED", "DamagedKey", "KeyRepair", "damaged_keys", "is_wrong_type", "shared_damage"]
