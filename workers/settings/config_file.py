"""
The configuration file, `snapferry.toml`: names of stores, mirrors and scrubs, and the allow-list.

    [stores]
    live = "s3://live/store?region=eu-central-1"
    backup = "file:///srv/backup"

    [stores.archive]             # or a table, for an S3 store with settings; see `store_table`
    url = "s3://archive/store"
    storage-class = "STANDARD_IA"

    [[mirror]]                   # see `snapferry.workers.settings.schedule_tables`
    name = "nightly"
    from = "live"
    to = "backup"
    every = "6h"

    [[scrub]]                    # see there as well
    name = "backup"
    store = "backup"
    every = "1d"
    share = "1/30"

    [access]                     # see `snapferry.workers.settings.access`
    read = ["live"]
    write = ["backup"]

The file must not hold secrets: everyone who can read the queue can read its URLs.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import parse_url
from snapferry.workers.messages import MIRROR_NAME

from .environment import InvalidSettings
from .schedule_tables import Mirror, Scrub, Table
from .store_table import url_of_store
from .toml_file import InvalidToml, read_toml


def _checked_url(url: str) -> str:
    try:
        parse_url(url)
    except InvalidStoreURL as error:
        raise ValueError(str(error)) from None
    return url


class Access(Table):
    """The allow-list: the stores that jobs may use, as URL prefixes or names of stores. None: the list is not set."""

    read: tuple[str, ...] | None = None
    write: tuple[str, ...] | None = None
    delete: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    profiles: tuple[str, ...] | None = None
    link_local: bool = False


class Config(Table):
    """The whole file."""

    stores: dict[
        Annotated[str, Field(pattern=MIRROR_NAME)],
        Annotated[str, BeforeValidator(url_of_store), AfterValidator(_checked_url)],
    ] = Field(default_factory=dict)
    mirror: tuple[Mirror, ...] = ()
    scrub: tuple[Scrub, ...] = ()
    access: Access = Access()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen = set()
        for one in self.scheduled:
            if (one.kind, one.name) in seen:
                raise ValueError(f"more than one {one.kind} is named {one.name!r}")
            seen.add((one.kind, one.name))
            for store in one.stores:
                if "/" not in store and store not in self.stores:
                    raise ValueError(f"{one.kind} {one.name!r}: no store is named {store!r}")
                _checked_url(self.url(store))
        for entry in (*(self.access.read or ()), *(self.access.write or ()), *(self.access.delete or ())):
            if "/" not in entry and entry not in self.stores:
                raise ValueError(f"access: no store is named {entry!r}")
        return self

    @property
    def scheduled(self) -> tuple[Mirror | Scrub, ...]:
        """The mirrors and the scrubs."""
        return *self.mirror, *self.scrub

    def url(self, store: str) -> str:
        """Return the URL of the store named *store*, or *store* itself if no store has this name."""
        return self.stores.get(store, store)


def read_config(path: str) -> Config:
    """Return the configuration in the file at *path*. Raises `InvalidSettings`, which names the file and the key."""
    try:
        found = read_toml(path)
    except InvalidToml as error:
        raise InvalidSettings(f"{path}: {error}") from None
    try:
        return Config.model_validate(found)
    except ValidationError as error:
        raise InvalidSettings(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    # Messages count tables from 1.
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
