"""
Secrets kept out of text: the last line of defence of logs.

Messages, errors and URLs carry no secrets in the first place. What a library or
a server says in an exception is beyond that, so every line passes through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "***"

# A shorter one would take ordinary words out of every line.
_SHORTEST: Final = 6

_PATTERNS: Final = (
    # User and password of a URL, also one whose password was not percent-encoded.
    (re.compile(r"(?<=://)(?:[^\s/?#@'\"]+|[^\s'\"]*:[^\s'\"]*)@"), HIDDEN + "@"),
    # AWS access keys, of a user and of a session.
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), HIDDEN),
    # Signed URLs and the Authorization header of a signed request.
    (
        re.compile(
            r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|Credential)=[^\s&,'\"]+"
        ),
        r"\1=" + HIDDEN,
    ),
    # name=value and name: value, where the name says what the value is.
    (
        re.compile(
            r"(?i)((?:secret|passw(?:or)?d|token|authorization|api[_-]?key|access[_-]?key)[\w-]*['\"]?\s*[:=]\s*b?['\"]?)"
            r"(?:(?:bearer|basic)\s+)?[^\s'\",&})\]\\]+"
        ),
        r"\1" + HIDDEN,
    ),
)


class Redaction:
    """Takes *secrets* out of text, as they are and percent-encoded, and whatever has the form of a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= _SHORTEST
            for form in (secret, quote(secret, safe=""))
        }
        # The longest first: a secret may begin with another one.
        known = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """Return *text* without them."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text
