"""A page of a listing, as S3 writes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from ..base import Listed


class Page(NamedTuple):
    """Keys in the order of the listing, from the bucket's root; *goes_on* behind *token*."""

    found: list[Listed]
    goes_on: bool
    token: str | None


class NotAPage(Exception):
    """A text is no page of a listing, or lacks what a page must have."""


def read_page(text: bytes) -> Page:
    """Return the page that an answer to ListObjectsV2 is. Raises `NotAPage`."""
    try:
        # Expat bounds what entities can grow to, and fetches nothing.
        root = ET.fromstring(text)  # noqa: S314
        space, _, name = root.tag.rpartition("ListBucketResult")
        goes_on = root.findtext(f"{space}IsTruncated")
        if name or not root.tag.endswith("ListBucketResult") or goes_on not in {"true", "false"}:
            raise NotAPage
        encoded = root.findtext(f"{space}EncodingType") == "url"
        key, size, modified = (f"{space}{field}" for field in ("Key", "Size", "LastModified"))
        found = [
            Listed(
                _plain(entry.findtext(key), encoded),
                int(entry.findtext(size) or ""),
                datetime.fromisoformat(entry.findtext(modified) or "").timestamp(),
            )
            for entry in root.iterfind(f"{space}Contents")
        ]
        return Page(found, goes_on == "true", root.findtext(f"{space}NextContinuationToken"))
    except (ET.ParseError, ValueError) as error:
        raise NotAPage from error


def page_of(answer: Mapping[str, Any]) -> Page:
    """Return the same of an answer that boto3 has read. Raises KeyError where it lacks something."""
    found = [
        Listed(entry["Key"], entry["Size"], entry["LastModified"].timestamp())
        for entry in answer.get("Contents", ())
    ]
    return Page(found, answer["IsTruncated"], answer.get("NextContinuationToken"))


def _plain(key: str | None, encoded: bool) -> str:
    if not key:
        raise NotAPage
    return unquote_plus(key) if encoded and ("%" in key or "+" in key) else key
