"""MD5, which S3 uses against errors of transport. It does not protect against an attacker."""

from __future__ import annotations

import hashlib


def md5_of(data: bytes | bytearray) -> str:
    """Return the MD5 of *data* in hex, "" on a machine whose OpenSSL does not provide it (FIPS)."""
    try:
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    except ValueError:
        return ""
