"""
What a listing of a bucket is held against, page by page: it must move on, in byte order, below the prefix.

*repeated keys are passed over*: servers repeat them where their own answer stalled. A key out of order is an error.
*start-after may be ignored*: a few pages that lie before the start are passed over; a listing that stays there
is an error that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from snapferry.stores.base import Listed
from snapferry.stores.errors import StoreFault

from .direct.listing import Page

# S3 may answer with an empty page where it passed over many deleted keys.
MAX_PAGES_WITHOUT_NEWS: Final = 1000
# The pages before the start that are passed over, of a server that ignores start-after.
MAX_PAGES_BEFORE_START: Final = 10


class Asked:
    """
    One listing of the keys that begin with *full_prefix* and sort behind *start_after*, both from the bucket's root.

    *parameters* are those of the request for the next page.
    """

    def __init__(self, label: str, prefix: str, full_prefix: str, start_after: str) -> None:
        self._label = label
        self._prefix = prefix
        self._full_prefix = full_prefix
        self._start_after = start_after
        self.parameters = {"Prefix": full_prefix} | ({"StartAfter": start_after} if start_after else {})
        self._last = ""
        self._without_news = 0
        self._before_start = 0

    def new_on(self, page: Page) -> Iterator[Listed]:
        """Yield what is new on *page*. Raises `StoreFault` where it is not a page of this listing."""
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
        self._without_news = 0 if news else self._without_news + 1
        self._before_start += early
        if not page.goes_on:
            return
        if self._before_start > MAX_PAGES_BEFORE_START:
            raise self._fault(
                f"the server ignores start-after: it lists {_shown(last)} where only keys behind"
                f" {_shown(start_after)} were asked for"
            )
        if self._without_news > MAX_PAGES_WITHOUT_NEWS:
            raise self._fault(
                f"{self._without_news} pages in a row have no new key, and the listing says that it goes on"
            )
        if not page.token or page.token == self.parameters.get("ContinuationToken"):
            raise self._fault("a listing says that it goes on, but not where")
        self.parameters["ContinuationToken"] = page.token

    def _fault(self, said: str) -> StoreFault:
        return StoreFault(self._label, self._prefix, said)


def _shown(key: str) -> str:
    """Return *key* as it may stand in a message, cut short."""
    return key[:200].encode("unicode_escape").decode()
