"""
Read a store's URL.

    file:///abs/path   file://localhost/abs/path   /abs/path
    s3://bucket/prefix?endpoint_url=https://...&region=...&profile=...   (more: `backends.s3.options`)

A URL never carries a secret: a URL with a secret is refused, and `redact` hides the secret in messages. Query
parameters belong to one URL, so the two sides of a copy can be at two endpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.printable import subject

from .registry import find_kind, schemes
from .store_url import StoreURL, redact, unprintable

# Longer than any URL that can be meant: a path has at most 4,096 bytes, a key 1,024, a host's name 253.
MAX_URL: Final = 8192


def parse_url(text: str) -> StoreURL:
    """
    Read a store URL.

    Raises `InvalidStoreURL`, whose text repeats no secret, for an unknown scheme, a relative path, a missing bucket, an
    unknown parameter, or anything that looks like a credential.
    """
    if len(text) > MAX_URL:
        raise InvalidStoreURL("", "the URL of a store", f"has more than {MAX_URL:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidStoreURL("", "the URL of a store", "is not UTF-8") from None
    if "\0" in text:
        raise InvalidStoreURL("", ascii(redact(text)), "has a NUL character in it")
    if unprintable.search(text):
        raise InvalidStoreURL("", ascii(redact(text)), "has a control character in it")
    scheme, separator, rest = ("file", "://", text) if text.startswith("/") else text.partition("://")
    kind = find_kind(scheme) if separator else None
    if kind is None:
        if scheme in ("http", "https"):
            instead = f"s3://BUCKET/PREFIX?endpoint_url={scheme}://HOST"
            raise InvalidStoreURL("", redact(text), f"is not a store URL; for a bucket, write {instead}")
        known = ", ".join(f"{name}://" for name in schemes())
        raise InvalidStoreURL(
            "", subject(redact(text)), f"is not a store URL; use {known} or an absolute path"
        )
    return kind.parse(kind, rest)


def parse_place(text: str) -> StoreURL:
    """
    Read a place of an allow-list: a store's URL, or ``s3://`` for any bucket, maybe with parameters.

    The location of any place is empty. Raises `InvalidStoreURL`.
    """
    scheme, separator, rest = text.partition("://")
    kind = find_kind(scheme) if separator and rest[:1] in {"", "?"} else None
    if kind is not None and not kind.is_local:
        return replace(parse_url(f"{scheme}://any{rest}"), location="")
    return parse_url(text)
