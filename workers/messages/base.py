"""What all messages share: their version, the bounds of their fields, and how a store is named."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from snapferry.stores.urls import StoreURL, parse_url

# Orchestrators that plan a job differently must not share it, so new planning rules are a new version. Version 2 was
# never released, and 3 does not read it.
VERSION: Final = 3

JOB_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""The pattern of a job's id: no path, no file pattern, no part of a key."""

SERIES: Final = r"^[a-z][a-z0-9-]{0,63}$"
MIRROR_NAME: Final = r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$"
"""The pattern of a store's or a mirror's name: it is never a URL or a path, and becomes a part of Redis keys."""

ScheduleKind = Literal["mirror", "scrub"]
"""What runs on a schedule."""

MOST_SNAPSHOTS: Final = 1_000_000
"""Snapshots of one job."""
MOST_OBJECTS: Final = 10_000
"""Objects of one batch."""

GROUP_BATCHES: Final = 64
"""About so many batches a group of many objects is cut into, by default."""

ENCODED_ADDRESS: Final = 43
"""Characters of an encoded address, rounded up."""

# The largest integer that is exact in JSON, in Lua and in a Redis counter.
LARGEST: Final = 2**53 - 1
LONGEST_URL: Final = 8192

JobId = Annotated[str, Field(pattern=JOB_ID)]
OtherJobId = Annotated[str, Field(pattern=rf"{JOB_ID}|^$")]
Concurrency = Annotated[int, Field(ge=1, le=1024)]
"""Objects in flight within one batch."""

_is_job_id = re.compile(JOB_ID.removesuffix("$")).fullmatch

# Fields that the version before does not know. It refuses unknown fields, so they are left out where they have their
# defaults.
_NEW_FIELDS: Final = frozenset(
    {
        "action", "allow_empty_source", "checksum", "checksums", "group_batches", "lines", "more_sources", "names",
        "patience", "rules", "scope", "scrub", "server_side", "tag", "tree", "verify", "waits_at_start",
    }
)  # fmt: skip


def is_job_id(text: str) -> bool:
    """Return whether *text* can be the id of a job."""
    return _is_job_id(text) is not None


class Part(BaseModel):
    """A part of a message: it cannot change, and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Part):
    """A message or a record, with its version."""

    version: Literal[3] = VERSION

    def new_defaults(self) -> set[str]:
        """Return the fields to leave out: they have their defaults, and the version before does not know them."""
        fields = type(self).model_fields
        return {name for name in _NEW_FIELDS & fields.keys() if getattr(self, name) == fields[name].default}


class StoreRef(Part):
    """
    A store by its URL. *objects_url* is the pool that holds its objects, None where that is the store itself.

    The URLs are text, as on the wire: a process may show a job whose URLs it cannot open. `parsed` and
    `parsed_objects` parse them, once; they raise `InvalidStoreURL`.
    """

    url: Annotated[str, Field(min_length=1, max_length=LONGEST_URL)]
    objects_url: Annotated[str, Field(min_length=1, max_length=LONGEST_URL)] | None = None

    @cached_property
    def parsed(self) -> StoreURL:
        """The store's URL."""
        return parse_url(self.url)

    @cached_property
    def parsed_objects(self) -> StoreURL | None:
        """The URL of the pool that holds the store's objects, None where that is the store itself."""
        return None if self.objects_url is None else parse_url(self.objects_url)
