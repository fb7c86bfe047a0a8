"""
A page of a listing, as S3 writes it.

*bounded*: what a text becomes in memory is bounded before it is parsed (`check_xml`); its length is bounded while it
is received.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

# Expat bounds what entities grow to, and fetches nothing.
from xml.etree import ElementTree as ET  # nosec B405

from snapferry.stores.backends.s3.http.sockets import AnswerTooLong
from snapferry.stores.base import Listed

# A page of 1,000 keys has some 30,000 tags.
MAX_TAGS: Final = 100_000
# A shorter text has room for fewer.
_LONG: Final = 4 * MAX_TAGS

_LARGEST_SIZE: Final = 2**63 - 1


class Page(NamedTuple):
    """Keys in the order of the listing, from the bucket's root; *goes_on* behind *token*."""

    found: list[Listed]
    goes_on: bool
    token: str | None


class NotAPage(Exception):
    """A text is no page of a listing, or lacks what a page must have."""


def check_xml(text: bytes) -> None:
    """
    Raise `AnswerTooLong` where *text* would become something much larger than itself.

    S3 declares no entities. The text is taken for UTF-8 by whoever parses it, whatever it says of itself.
    """
    if b"<!DOCTYPE" in text:
        raise AnswerTooLong("the answer declares a document type, which could grow without bound")
    if len(text) > _LONG and (text.count(b"<") > MAX_TAGS or text.count(b'"') + text.count(b"'") > MAX_TAGS):
        raise AnswerTooLong(f"the answer has more than {MAX_TAGS} tags or attributes")


def read_page(text: bytes) -> Page:
    """Return the page that an answer to ListObjectsV2 is. Raises `NotAPage`, and `AnswerTooLong` as `check_xml`."""
    check_xml(text)
    try:
        # Without a document type there is nothing to expand or to fetch.
        root = ET.fromstring(text, ET.XMLParser(encoding="utf-8"))  # noqa: S314  # nosec B314
        space, _, name = root.tag.rpartition("ListBucketResult")
        goes_on = root.findtext(f"{space}IsTruncated")
        if name or not root.tag.endswith("ListBucketResult") or goes_on not in {"true", "false"}:
            raise NotAPage
        encoded = root.findtext(f"{space}EncodingType") == "url"
        key, size, modified = (f"{space}{field}" for field in ("Key", "Size", "LastModified"))
        found = [
            Listed(
                _plain(entry.findtext(key), encoded),
                _size(entry.findtext(size)),
                datetime.fromisoformat(entry.findtext(modified) or "").timestamp(),
            )
            for entry in root.iterfind(f"{space}Contents")
        ]
        return Page(found, goes_on == "true", root.findtext(f"{space}NextContinuationToken"))
    except (ET.ParseError, ValueError, ArithmeticError, LookupError) as error:
        raise NotAPage from error


def page_of(answer: Mapping[str, Any]) -> Page:
    """Return the same of an answer that boto3 has read. Raises KeyError where it lacks something, ValueError."""
    found = [
        Listed(entry["Key"], _size(entry["Size"]), entry["LastModified"].timestamp())
        for entry in answer.get("Contents", ())
    ]
    return Page(found, answer["IsTruncated"], answer.get("NextContinuationToken"))


def _plain(key: str | None, encoded: bool) -> str:
    if not key:
        raise NotAPage
    return unquote_plus(key) if encoded and ("%" in key or "+" in key) else key


def _size(said: str | int | None) -> int:
    size = int(said or "") if isinstance(said, str | None) else said
    if not 0 <= size <= _LARGEST_SIZE:
        raise ValueError(f"{said} is not the size of an object")
    return size
