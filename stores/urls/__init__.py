"""
Store URLs: reading, showing, and the kinds of stores that they name.

    store_url  the value: `StoreURL` and its `StoreKind`; `redact`
    registry   scheme -> kind, with entry points for plug-ins
    parse      text -> `StoreURL`
"""

from .parse import parse_place, parse_url
from .registry import GROUP, find_kind, is_local, is_metered, kind_of, register, schemes
from .store_url import Opening, StoreKind, StoreURL, check_on_server, parse_path, redact

__all__ = [
    "GROUP",
    "Opening",
    "StoreKind",
    "StoreURL",
    "check_on_server",
    "find_kind",
    "is_local",
    "is_metered",
    "kind_of",
    "parse_path",
    "parse_place",
    "parse_url",
    "redact",
    "register",
    "schemes",
]
