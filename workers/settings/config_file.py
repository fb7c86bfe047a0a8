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

    [notify]                     # see `snapferry.workers.settings.notify_table`
    urls-file = "/etc/snapferry/notify.urls"

    [access]                     # see `snapferry.workers.settings.access`
    read = ["live"]
    write = ["backup"]

The file must not hold secrets: everyone who can read the queue can read its URLs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.similar import suggestion
from snapferry.stores.urls import parse_place, parse_url
from snapferry.workers.messages import MIRROR_NAME

from .environment import InvalidSettings, Settings
from .notify_table import Notify
from .schedule_tables import Mirror, Scrub, Table
from .store_table import url_of_store
from .toml_faults import Fault, first_fault
from .toml_file import InvalidToml, parse_toml, read_text

# The settings that a table with another name might be meant for.
_SETTINGS: Final = {name: name for name in Settings.model_fields} | {"broker": "broker_url"}


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
    notify: Notify = Notify()

    @model_validator(mode="before")
    @classmethod
    def _without_settings(cls, found: object) -> object:
        """Refuse a setting of the environment. The broker's URL, for one, holds a password, and this file must not."""
        for key in found if isinstance(found, dict) else ():
            setting = _SETTINGS.get(str(key).replace("-", "_").lower())
            if key not in cls.model_fields and setting is not None:
                option = ", or use --broker" if setting == "broker_url" else ""
                raise Fault(
                    f"is not a key of this file. Set the variable SNAPFERRY_{setting.upper()}{option}", (key,)
                )
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen = set()
        for tables in (self.mirror, self.scrub):
            for index, one in enumerate(tables):
                if (one.kind, one.name) in seen:
                    raise Fault(f"more than one {one.kind} is named {one.name!r}", (one.kind, index, "name"))
                seen.add((one.kind, one.name))
                for key, store in zip(one.store_keys, one.stores, strict=True):
                    self._check_store(store, (one.kind, index, key))
        for key in ("read", "write", "delete"):
            for entry in getattr(self.access, key) or ():
                self._check_store(entry, ("access", key), parse=parse_place)
        return self

    def _check_store(
        self, store: str, place: tuple[str | int, ...], *, parse: Callable[[str], object] = parse_url
    ) -> None:
        """Raise `Fault` unless *store* is a URL for *parse*, or the name of a store."""
        if "/" not in store:
            if store not in self.stores:
                raise Fault(f"no store is named {store!r}{suggestion(store, self.stores)}", place)
            return
        try:
            parse(store)
        except InvalidStoreURL as error:
            raise Fault(str(error), place) from None

    @property
    def scheduled(self) -> tuple[Mirror | Scrub, ...]:
        """The mirrors and the scrubs."""
        return *self.mirror, *self.scrub

    def url(self, store: str) -> str:
        """Return the URL of the store named *store*, or *store* itself if no store has this name."""
        return self.stores.get(store, store)


def read_config(path: str) -> Config:
    """
    Return the configuration in the file at *path*.

    Raises `InvalidSettings`, which names the file, the line, the key, and what was probably meant, in one line.
    """
    try:
        text = read_text(path)
        found = parse_toml(text)
    except InvalidToml as error:
        raise InvalidSettings(f"{path}: {error}") from None
    try:
        return Config.model_validate(found)
    except ValidationError as error:
        line, fault = first_fault(error, Config, text)
        raise InvalidSettings(f"{path}{f', line {line}' if line else ''}: {fault}") from None
