"""
Redaction of secrets in text: the last line of defence of logs.

Our own messages, errors and URLs hold no secrets. The exceptions of libraries and the answers of servers may, so every
log line is redacted.

*linear*: a text is cut to `LONGEST` characters before the patterns are applied, and each pattern reads each character a
bounded number of times (`tests/unit/test_patterns.py` counts the steps).
*no partial secrets*: where a text is cut, the word at the cut is dropped, and the part of a known secret that crosses
the cut is dropped too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

HIDDEN: Final = "***"

LONGEST: Final = 16 * 1024
"""The most characters of a text that are kept. A log line has at most 4,096 bytes."""

# Characters that are dropped of a cut word that is longer than this.
_LONG_WORD: Final = 256

# The shortest known secret that is redacted. Shorter secrets would match ordinary words.
_SHORTEST: Final = 6

# The rest of a word after its first scheme: it may hold user and password of a URL.
_AUTHORITIES: Final = re.compile(r"(?<=://)[^\s'\"]++")

# Each pattern starts only at the start of a word or at a literal, and repeats possessively.
_PATTERNS: Final = (
    # AWS access keys, of a user and of a session.
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}+"), HIDDEN),
    # Signed URLs and the Authorization header of a signed request.
    (
        re.compile(
            r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|Credential)=[^\s&,'\"]++"
        ),
        r"\1=" + HIDDEN,
    ),
    # name=value and name: value, if the name is that of a secret.
    (
        re.compile(
            r"(?i)(?<![\w-])"
            r"(?=[\w-]*?(?:secret|passw(?:or)?d|token|authorization|api[_-]?key|access[_-]?key))"
            r"([\w-]++\\?['\"]?\s*+[:=]\s*+(?:b(?=['\"]))?\\?['\"]?)"
            r"(?:(?:bearer|basic|token)\s++)?[^\s'\",&})\]\\]++"
        ),
        r"\1" + HIDDEN,
    ),
)


ALL_PATTERNS: Final = (_AUTHORITIES, *(pattern for pattern, _ in _PATTERNS))


class Redaction:
    """Replaces *secrets* in text, also in encoded form, and everything that has the form of a secret."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {
            form
            for secret in secrets
            if len(secret) >= _SHORTEST
            # Plain, in a URL, in JSON, and in a Python literal.
            for form in (
                secret,
                quote(_bytes_of(secret), safe=""),
                json.dumps(secret)[1:-1],
                repr(secret)[1:-1],
            )
        }
        # The longest first, because a secret may begin with another secret.
        self._forms = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None

    def __call__(self, text: str) -> str:
        """Return *text* without secrets. A text longer than `LONGEST` is cut at its end."""
        if len(text) <= LONGEST:
            return self._without_patterns(self._without_known(text))
        beginning = self._without_known(text[:LONGEST])
        halves = (
            length
            for form in self._forms
            for length in range(min(len(form) - 1, len(beginning)), 0, -1)
            if beginning.endswith(form[:length])
        )
        beginning = beginning[: len(beginning) - max(halves, default=0)]
        return _without_last_word(self._without_patterns(beginning)) + "…"

    def end_of(self, text: str) -> str:
        """Return *text* without secrets. A text longer than `LONGEST` is cut to its last whole lines, if it has any."""
        if len(text) <= LONGEST:
            return self(text)
        # The name of a secret may stand at the end of the line before its value.
        lines = text[-LONGEST:].split("\n", 2)
        if len(lines) <= 2:
            return self(text)
        end = self._without_known(lines[2])
        halves = (
            length
            for form in self._forms
            for length in range(min(len(form) - 1, len(end)), 0, -1)
            if end.startswith(form[-length:])
        )
        return "…\n" + self._without_patterns(end[max(halves, default=0) :])

    def _without_known(self, text: str) -> str:
        return text if self._known is None else self._known.sub(HIDDEN, text)

    @staticmethod
    def _without_patterns(text: str) -> str:
        text = _AUTHORITIES.sub(_without_user, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


def _bytes_of(secret: str) -> bytes:
    """Return the bytes of *secret*. A variable of the environment may hold any bytes."""
    try:
        return secret.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return secret.encode(errors="replace")


def _without_last_word(text: str) -> str:
    """
    Return *text*, which was cut at its end, without the last word, which may be the beginning of a secret.

    Of a long word, drop only the end, and everything after the first ``://``.
    """
    kept = max(map(text.rfind, " \n\t\r")) + 1
    if len(text) - kept > _LONG_WORD:
        authority = text.find("://", kept)
        kept = len(text) - _LONG_WORD if authority < 0 else min(authority + 3, len(text) - _LONG_WORD)
    return text[:kept]


def _without_user(found: re.Match[str]) -> str:
    """Return the rest of a URL without user and password, even if the password is not percent-encoded."""
    rest = found.group()
    user, at, place = rest.rpartition("@")
    if not at:
        return rest
    if ":" in user or not any(mark in user for mark in "/?#"):
        return f"{HIDDEN}@{place}"
    # Without a colon the user ends before the path.
    end = min(place for place in map(rest.find, "/?#") if place >= 0)
    user, at, place = rest[:end].rpartition("@")
    return f"{HIDDEN}@{place}{rest[end:]}" if at else rest


without_secrets: Final = Redaction()
"""Removes from a text everything that has the form of a secret: for texts of libraries that are kept or shown."""
