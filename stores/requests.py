"""
What a provider charges for: requests, counted by the names of their operations.

The names are those of Amazon's price lists and logs. Directories and memory need no requests, so their counts are
empty. A prediction counts every request once; a count of what was sent includes retries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

Requests = Counter[str]

GET: Final = "GetObject"
HEAD: Final = "HeadObject"
LIST: Final = "ListObjectsV2"
PUT: Final = "PutObject"
COPY: Final = "CopyObject"
DELETE: Final = "DeleteObject"
CREATE_UPLOAD: Final = "CreateMultipartUpload"
UPLOAD_PART: Final = "UploadPart"
COPY_PART: Final = "UploadPartCopy"
COMPLETE_UPLOAD: Final = "CompleteMultipartUpload"
ABORT_UPLOAD: Final = "AbortMultipartUpload"
LIST_PARTS: Final = "ListParts"
HEAD_BUCKET: Final = "HeadBucket"


class RequestAccounting:
    """
    How many requests a store's operations take. This class is for stores that do not count requests: all counts are 0.

    Advisory sizes and lengths are in bytes.
    """

    def sent(self) -> Requests:
        """Return what the store was sent so far, every attempt counted."""
        return Requests()

    def by_kind(self) -> dict[str, Requests]:
        """Return the same by kind of store, the scheme of its URL. Split pools may be of two kinds."""
        return {}

    def to_survey(self, wanted: int, keys_between: int) -> Requests:
        """
        Return what `StreamStore.survey` sends for *wanted* distinct addresses with *keys_between* keys between them.

        Exact if the keys between are spread evenly. If the first answer of a store is that a key is absent, one more
        `HeadBucket` may be sent.
        """
        return Requests()

    def to_survey_among(self, wanted: Sequence[str], there: Sequence[str]) -> Requests:
        """Return what a survey of *wanted* sends to a store that holds exactly what is *there*; both sorted."""
        return Requests()

    def to_read_object(self, size: int) -> Requests:
        """Return what reading an object of this advisory size sends."""
        return Requests()

    def to_write_object(self, size: int) -> Requests:
        """Return what writing an object of this advisory size sends."""
        return Requests()

    def to_read_parts(self, parts: int) -> Requests:
        """Return what reading an object in so many *parts* sends (`stores.pools.in_parts`), by the owner alone."""
        return Requests()

    def to_write_parts(self, parts: int) -> Requests:
        """Return what writing an object in so many *parts* sends (`stores.pools.in_parts`), by the owner alone."""
        return Requests()

    def to_copy_on_server(self, size: int) -> Requests:
        """Return what this store is sent so that its server copies an object of this advisory size to it."""
        return Requests()

    def to_read_manifest(self) -> Requests:
        """Return what one reading of a manifest sends."""
        return Requests()

    def to_publish(self, length: int, *, already: bool) -> Requests:
        """
        Return what publishing a manifest of *length* bytes sends after its objects were found.

        *already*: it is published and intact, so it is only read.
        """
        return Requests()
