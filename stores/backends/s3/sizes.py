"""
Sizes and counts: the limits of S3, how objects are cut into parts and ranges, and how many requests that takes.

The limits of S3 are those of Amazon's documentation, "Amazon S3 multipart upload limits"
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html): an object of 5 TiB, 10,000 parts, each part of
5 MiB to 5 GiB except the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Final

from snapferry.stores.requests import (
    COMPLETE_UPLOAD,
    COPY,
    COPY_PART,
    CREATE_UPLOAD,
    DELETE,
    GET,
    HEAD,
    LIST_PARTS,
    PUT,
    UPLOAD_PART,
    Requests,
)

MIB: Final = 1024 * 1024

# Objects that one process reads or writes at the same time. Measured: with a store nearby, 16 and 32 requests in
# flight are equally fast, because the CPU is the limit. With a store 30 ms away, 32 are nearly twice as fast as 16,
# and 64 are no faster than 32.
CONCURRENCY: Final = 32

MAX_PARTS: Final = 10_000
# A page of a listing of parts has at most as many (API reference, ListParts).
LISTED_PARTS: Final = 1000
MAX_OBJECT_BYTES: Final = 5 * 1024 * 1024 * MIB

# With a larger body, a client waits for "100 Continue" before it sends the body.
EXPECT_BYTES: Final = MIB

MIN_PART_BYTES: Final = 8 * MIB
PARTS_IN_FLIGHT: Final = 4
MAX_IN_FLIGHT_BYTES: Final = 64 * MIB
# Half of the part numbers are planned for. The rest is for a stream that turns out longer than its size hint.
PLANNED_PARTS: Final = MAX_PARTS // 2
MIN_PLANNED_PARTS: Final = 1000

RANGE_BYTES: Final = 8 * MIB
RANGES_IN_FLIGHT: Final = 4
# Smaller objects are read by one request. A batch holds few larger objects, so few objects are read in ranges at
# the same time.
RANGED_ABOVE_BYTES: Final = RANGES_IN_FLIGHT * RANGE_BYTES


# What a server copies by itself it copies by one request up to this length, and in parts beyond. It may answer only at
# the end of a copy, and an answer must begin within 60 s: so a copy may be as slow as 2 MiB a second.
COPIED_WHOLE_BYTES: Final = 128 * MIB
# The most by one request, where a server cannot copy parts. Amazon allows 5 GB (API reference, CopyObject).
MAX_COPIED_WHOLE_BYTES: Final = 1024 * MIB
COPIES_IN_FLIGHT: Final = 4


def copied_part_bytes(length: int) -> int:
    """Return the size of the parts in which a server copies an object of *length* bytes."""
    return max(COPIED_WHOLE_BYTES, math.ceil(length / MAX_PARTS / MIB) * MIB)


def part_sizes(size_hint: int) -> Iterator[int]:
    """
    Yield the sizes in bytes of the parts of a multipart upload that should become *size_hint* bytes long.

    All parts are equal, at least 8 MiB and at least 1/5,000 of the hint, up to the end of the hint and in any case for
    the first 1,000 parts. Every later part is larger than the one before it, by the step with which the last part
    number reaches 5 TiB. A part has at most 1.05 GiB where the hint is right. It approaches 2.1 GiB only at the end
    of 5 TiB that were announced as 40 GiB.
    """
    size = max(MIN_PART_BYTES, math.ceil(size_hint / PLANNED_PARTS / MIB) * MIB)
    planned = min(PLANNED_PARTS, max(MIN_PLANNED_PARTS, math.ceil(size_hint / size)))
    left = MAX_PARTS - planned
    beyond = MAX_OBJECT_BYTES - MAX_PARTS * size
    step = max(0, math.ceil(2 * beyond / (left * (left + 1))))
    for number in count():
        yield size + max(0, number + 1 - planned) * step


def requests_to_upload(size: int) -> Requests:
    """Return the requests that an upload of *size* bytes sends when its size hint is right."""
    parts = math.ceil(size / next(part_sizes(size)))
    if parts <= 1:
        return Requests({PUT: 1})
    return Requests({CREATE_UPLOAD: 1, UPLOAD_PART: parts, COMPLETE_UPLOAD: 1})


def requests_to_download(size: int) -> Requests:
    """Return the requests that reading an object of *size* bytes sends when its size hint is right."""
    return Requests({GET: math.ceil(size / RANGE_BYTES) if size > RANGED_ABOVE_BYTES else 1})


def requests_to_read_parts(parts: int) -> Requests:
    """Return the requests that read an object in so many *parts*: one finds its version."""
    return Requests({HEAD: 1, GET: parts})


def requests_to_write_parts(parts: int) -> Requests:
    """
    Return the requests of an upload to which one process sends all *parts*.

    Its note is looked for twice, written and deleted. Before the end, the parts are listed.
    """
    upload = Requests({CREATE_UPLOAD: 1, UPLOAD_PART: parts, COMPLETE_UPLOAD: 1})
    return upload + Requests({GET: 2, PUT: 1, DELETE: 1, LIST_PARTS: math.ceil(parts / LISTED_PARTS)})


def requests_to_copy(size: int) -> Requests:
    """
    Return the requests by which a server copies an object of *size* bytes, without the probe of each process.

    A copy with another ETag than the source has is looked at. So it is after a copy in parts, and usually if the source
    was uploaded in parts.
    """
    look = Requests({HEAD: 1} if size > MIN_PART_BYTES else {})
    if size <= COPIED_WHOLE_BYTES:
        return Requests({COPY: 1}) + look
    parts = math.ceil(size / copied_part_bytes(size))
    return Requests({CREATE_UPLOAD: 1, COPY_PART: parts, COMPLETE_UPLOAD: 1}) + look
