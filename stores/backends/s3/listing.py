"""
Pages of a listing of a bucket, and the checks on each page: it must continue in byte order, below the prefix.

*repeated keys are skipped*: a server repeats keys after its own answer stalled. A key out of order is an error.
*start-after may be ignored*: a few pages with keys before the start are skipped. More such pages are an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from snapferry.stores.backend import Listed
from snapferry.stores.errors import StoreFault

# S3 may return an empty page where many deleted keys lie.
MAX_PAGES_WITHOUT_NEWS: Final = 1000
# Pages of a server that ignores start-after.
MAX_PAGES_BEFORE_START: Final = 10

_LARGEST_SIZE: Final = 2**63 - 1


class Page(NamedTuple):
    """A page of a listing: keys from the bucket's root, in byte order. *token* asks for the next page."""

    found: list[Listed]
    truncated: bool
    """The listing continues after this page."""
    token: str | None


def page_of(answer: Mapping[str, Any]) -> Page:
    """Return boto3's *answer* to ListObjectsV2 as a page. Raises KeyError where a field is missing, ValueError."""
    found = [
        Listed(entry["Key"], object_size(entry["Size"]), entry["LastModified"].timestamp())
        for entry in answer.get("Contents", ())
    ]
    return Page(found, answer["IsTruncated"], answer.get("NextContinuationToken"))


def object_size(size: str | int | None) -> int:
    """Return *size*, as a listing has it, as a number of bytes. Raises ValueError."""
    number = int(size or "") if isinstance(size, str | None) else size
    if not 0 <= number <= _LARGEST_SIZE:
        raise ValueError(f"{size} is not the size of an object")
    return number


class Listing:
    """
    One listing of the keys that begin with *full_prefix* and sort after *start_after*, both from the bucket's root.

    *parameters* are the parameters of the request for the next page, by boto3's names. *label* and *prefix* are for
    error messages.
    """

    def __init__(self, label: str, prefix: str, full_prefix: str, start_after: str) -> None:
        self._label = label
        self._prefix = prefix
        self._full_prefix = full_prefix
        self._start_after = start_after
        self.parameters = {"Prefix": full_prefix} | ({"StartAfter": start_after} if start_after else {})
        self._last = ""
        self._pages_without_news = 0
        self._pages_before_start = 0

    def new_keys(self, page: Page) -> Iterator[Listed]:
        """Yield the new keys of *page*, the next one. Raises `StoreFault` where it cannot be a page of this listing."""
        last, start_after, full_prefix = self._last, self._start_after, self._full_prefix
        news = early = False
        for found in page.found:
            key = found.key
            if key <= last:
                if key == last:
                    continue
                raise self._fault(f"is not listed in byte order: {_shown(key)} after {_shown(last)}")
            if not key.startswith(full_prefix):
                raise self._fault(f"the server ignores the prefix: it lists {_shown(key)}")
            last = self._last = key
            if key <= start_after:
                early = True
                continue
            news = True
            yield found
        self._pages_without_news = 0 if news else self._pages_without_news + 1
        self._pages_before_start += early
        if page.truncated:
            self._prepare_next(page)

    def _prepare_next(self, page: Page) -> None:
        if self._pages_before_start > MAX_PAGES_BEFORE_START:
            raise self._fault(
                f"the server ignores start-after: it lists {_shown(self._last)} although only keys after"
                f" {_shown(self._start_after)} were requested"
            )
        if self._pages_without_news > MAX_PAGES_WITHOUT_NEWS:
            raise self._fault(
                f"the listing does not end: {self._pages_without_news} pages in a row have no new key"
            )
        if not page.token or page.token == self.parameters.get("ContinuationToken"):
            raise self._fault("the listing is truncated, but has no token for its next page")
        self.parameters["ContinuationToken"] = page.token

    def _fault(self, detail: str) -> StoreFault:
        return StoreFault(self._label, self._prefix, detail)


def _shown(key: str) -> str:
    """Return *key* escaped and cut to a length that fits a message."""
    return key[:200].encode("unicode_escape").decode()
