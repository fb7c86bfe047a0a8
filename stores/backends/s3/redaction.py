"""
Keep credentials out of texts: a server receives a key id and a session token, and may repeat them in an error.

The texts of errors go to ledgers, receipts, logs and web pages. More people read those than may know the keys.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import quote

HIDDEN: Final = "***"

# An answer to an earlier request may repeat credentials that were renewed since.
_MAX_REMEMBERED: Final = 16
# A shorter text is not a key. Replacing it would remove ordinary words from every error.
_MIN_LENGTH: Final = 8


class _Keys(Protocol):
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


_escape = re.compile("%[0-9A-F]{2}")

_remembered: list[_Keys] = []


def remember(keys: _Keys) -> None:
    """Redact *keys*, a tuple, from every text from now on. Cheap enough to be called for each request."""
    if _remembered and _remembered[-1] == keys:
        return
    # Two threads may do this at once. Keys that are lost in that race are remembered with their next request.
    _remembered[:] = [*(other for other in _remembered if other != keys), keys][-_MAX_REMEMBERED:]


def redact(text: str) -> str:
    """Return *text* with every remembered key id, secret key and session token replaced by ``***``, in any form."""
    for keys in tuple(_remembered):
        for secret in (keys.token, keys.secret_key, keys.access_key):
            if secret and len(secret) >= _MIN_LENGTH:
                for form in _forms(secret):
                    text = text.replace(form, HIDDEN)
    return text


@lru_cache(3 * _MAX_REMEMBERED)
def _forms(secret: str) -> tuple[str, ...]:
    """Return *secret* as it is, and as it stands in a URL, in JSON and in a Python literal."""
    encoded = quote(secret, safe="", errors="replace")
    small = _escape.sub(lambda found: found.group().lower(), encoded)
    return tuple(dict.fromkeys((secret, encoded, small, json.dumps(secret)[1:-1], repr(secret)[1:-1])))
