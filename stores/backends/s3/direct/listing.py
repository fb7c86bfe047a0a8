"""Parse a page of a listing. The memory that this needs is limited before (`check_xml`), and the text's length too."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import unquote_plus

# Expat limits the growth of entities and fetches nothing.
from xml.etree import ElementTree as ET  # nosec B405

from snapferry.stores.backend import Listed
from snapferry.stores.backends.s3.http.xml_limits import check_xml
from snapferry.stores.backends.s3.listing import Page, object_size


class NotAPage(Exception):
    """A text is not a page of a listing, or lacks a field that a page must have."""


def read_page(text: bytes) -> Page:
    """
    Return the page in *text*, an answer to ListObjectsV2.

    Raises `NotAPage`, and `AnswerTooLong` as `check_xml` does. The elements are those of Amazon's API reference,
    ListObjectsV2, "Response Syntax".
    """
    check_xml(text)
    try:
        # Without a document type there is nothing to expand or to fetch.
        root = ET.fromstring(text, ET.XMLParser(encoding="utf-8"))  # noqa: S314  # nosec B314
        space, _, name = root.tag.rpartition("ListBucketResult")
        truncated = root.findtext(f"{space}IsTruncated")
        if name or not root.tag.endswith("ListBucketResult") or truncated not in {"true", "false"}:
            raise NotAPage
        encoded = root.findtext(f"{space}EncodingType") == "url"
        key, size, modified = (f"{space}{field}" for field in ("Key", "Size", "LastModified"))
        found = [
            Listed(
                _decoded(entry.findtext(key), encoded),
                object_size(entry.findtext(size)),
                datetime.fromisoformat(entry.findtext(modified) or "").timestamp(),
            )
            for entry in root.iterfind(f"{space}Contents")
        ]
        return Page(found, truncated == "true", root.findtext(f"{space}NextContinuationToken"))
    except (ET.ParseError, ValueError, ArithmeticError, LookupError) as error:
        raise NotAPage from error


def _decoded(key: str | None, encoded: bool) -> str:
    if not key:
        raise NotAPage
    return unquote_plus(key) if encoded and ("%" in key or "+" in key) else key
