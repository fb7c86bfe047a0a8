"""
The configuration file, `snapferry.toml`: names of stores, mirrors, and the allow-list.

    [stores]
    live = "s3://live/store?region=eu-central-1"
    backup = "file:///srv/backup"

    [stores.archive]             # or a table, for an S3 store with settings; see `store_table`
    url = "s3://archive/store"
    storage-class = "STANDARD_IA"

    [[mirror]]
    name = "nightly"
    from = "live"                # the name of a store, or a URL
    to = "backup"
    every = "6h"                 # or a cron expression, as in "30 3 * * *", in UTC
    delete = true                # delete manifests that the source does not have; never an object
    max-delete = 100

    [access]                     # see `snapferry.workers.settings.access`
    read = ["live"]
    write = ["backup"]

The file must not hold secrets: everyone who can read the queue can read its URLs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import parse_url
from snapferry.workers.messages import MIRROR_NAME, CopyOptions

from .durations import interval_of, seconds_of
from .environment import InvalidSettings
from .store_table import url_of_store
from .toml_file import InvalidToml, read_toml

if TYPE_CHECKING:
    from celery import Celery
    from celery.schedules import BaseSchedule, crontab

# The shortest interval of a mirror, in seconds. Each run of a mirror is a whole job.
SHORTEST_S: Final = 10


def _checked_url(url: str) -> str:
    try:
        parse_url(url)
    except InvalidStoreURL as error:
        raise ValueError(str(error)) from None
    return url


def _checked_patience(patience: str | None) -> str | None:
    if patience is not None:
        seconds_of(patience)
    return patience


def _cron(every: str, app: Celery | None = None) -> crontab:
    from celery.schedules import ParseException, crontab

    if len(every.split()) != 5:
        raise ValueError(
            f'{every!r} is neither an interval, such as "6h", nor a cron expression, such as "30 3 * * *"'
        )
    minute, hour, day, month, weekday = every.split()
    if not day.startswith("*") and not weekday.startswith("*"):
        # Cron runs on days that match either field, Celery on days that match both.
        raise ValueError(
            f"{every!r} sets both the day of the month and the day of the week, which is not supported. Use two"
            f' mirrors: every = "{minute} {hour} {day} {month} *" and every ='
            f' "{minute} {hour} * {month} {weekday}"'
        )
    try:
        return crontab(minute, hour, weekday, day, month, app=app)
    except (ParseException, ValueError, KeyError) as error:
        raise ValueError(f"{every!r} is not a cron expression: {error}") from None


def _checked_every(every: str) -> str:
    seconds = interval_of(every)
    if seconds is None:
        _cron(every)
    elif seconds < SHORTEST_S:
        raise ValueError(f"the shortest interval is {SHORTEST_S}s")
    return every


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.strip("_").replace("_", "-")
    )


class Mirror(_Table, CopyOptions):
    """A scheduled copy of everything in a store. *from_* and *to* are URLs or names of stores."""

    name: str = Field(pattern=MIRROR_NAME)
    from_: str
    to: str
    every: Annotated[str, AfterValidator(_checked_every)]
    delete: bool = False
    max_delete: int | None = Field(None, ge=0)
    jobs: int | None = Field(None, ge=1, le=1024)
    patience: Annotated[str | None, AfterValidator(_checked_patience)] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_delete is not None and not self.delete:
            raise ValueError("max-delete needs delete = true")
        return self

    @property
    def interval_s(self) -> int | None:
        """The interval in seconds, None if *every* is a cron expression."""
        return interval_of(self.every)

    @property
    def patience_s(self) -> float | None:
        """Seconds that the mirror's jobs wait for a store that is away. None: the default of jobs."""
        return None if self.patience is None else seconds_of(self.patience)

    def times(self, app: Celery) -> BaseSchedule:
        """Return *every* as a schedule of Celery beat, for *app*."""
        from celery.schedules import schedule

        seconds = self.interval_s
        return _cron(self.every, app) if seconds is None else schedule(seconds, app=app)


class Access(_Table):
    """The allow-list: the stores that jobs may use, as URL prefixes or names of stores. None: the list is not set."""

    read: tuple[str, ...] | None = None
    write: tuple[str, ...] | None = None
    delete: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    profiles: tuple[str, ...] | None = None
    link_local: bool = False


class Config(_Table):
    """The whole file."""

    stores: dict[
        Annotated[str, Field(pattern=MIRROR_NAME)],
        Annotated[str, BeforeValidator(url_of_store), AfterValidator(_checked_url)],
    ] = Field(default_factory=dict)
    mirror: tuple[Mirror, ...] = ()
    access: Access = Access()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [mirror.name for mirror in self.mirror]
        for mirror in self.mirror:
            if names.count(mirror.name) > 1:
                raise ValueError(f"more than one mirror is named {mirror.name!r}")
            for store in (mirror.from_, mirror.to):
                if "/" not in store and store not in self.stores:
                    raise ValueError(f"mirror {mirror.name!r}: no store is named {store!r}")
                _checked_url(self.url(store))
        for entry in (*(self.access.read or ()), *(self.access.write or ()), *(self.access.delete or ())):
            if "/" not in entry and entry not in self.stores:
                raise ValueError(f"access: no store is named {entry!r}")
        return self

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
    # Messages count mirrors from 1.
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
