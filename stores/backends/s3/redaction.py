"""
Keys kept out of texts: a server is sent a key id and a session token, and may say them in an error.

The texts of errors go into ledgers, receipts, logs and pages, which more people read than may know the keys.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

HIDDEN: Final = "***"

# Credentials that were renewed may still be in the answer to an earlier request.
_KEPT: Final = 16
# A shorter text is no key, and would take ordinary words out of every error.
_SHORTEST: Final = 8


class _Keys(Protocol):
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


class _Known(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


_known: list[_Known] = []


def remember(keys: _Keys) -> None:
    """Keep *keys* out of every text from now on. May be called for each request: it costs a comparison."""
    found = _Known(keys.access_key, keys.secret_key, keys.token)
    if _known and _known[-1] == found:
        return
    # Threads may do this at once: what one of them loses, it remembers with its next request.
    _known[:] = [*(other for other in _known if other != found), found][-_KEPT:]


def conceal(text: str) -> str:
    """Return *text* without the key ids, secret keys and session tokens that were remembered."""
    for keys in tuple(_known):
        for secret in (keys.token, keys.secret_key, keys.access_key):
            if secret and len(secret) >= _SHORTEST:
                text = text.replace(secret, HIDDEN)
    return text
