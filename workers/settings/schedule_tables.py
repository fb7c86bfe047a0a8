"""
The tables of `snapferry.toml` that are run on a schedule.

    [[mirror]]
    name = "nightly"
    from = "live"                # the name of a store, or a URL
    to = "backup"
    every = "6h"                 # or a cron expression, as in "30 3 * * *", in UTC
    delete = true                # delete manifests that the source does not have; never an object
    max-delete = 100

    [[scrub]]
    name = "backup"
    store = "backup"
    every = "1d"
    share = "1/30"               # each run reads a thirtieth of the store, so all of it is read in 30 runs
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from snapferry.workers.messages import MIRROR_NAME, MOST_SHARES, CopyOptions, ScheduleKind
from snapferry.workers.queues import NAME, Priority

from .durations import interval_of, seconds_of
from .quantities import LARGEST_NUMBER, shares_of, size_of

if TYPE_CHECKING:
    # Commands without a schedule read the file, too, and Celery is slow to import.
    from celery import Celery
    from celery.schedules import BaseSchedule, crontab

# The shortest interval of a mirror or a scrub, in seconds. Each run is a whole job.
SHORTEST_S: Final = 10

# Runs of a cron expression from which the mean interval is computed.
_SAMPLED_RUNS: Final = 60


def _checked_patience(patience: str | None) -> str | None:
    if patience is not None:
        seconds_of(patience)
    return patience


def _cron(every: str, kind: str, app: Celery | None = None) -> crontab:
    # As above.
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
            f' {kind}s: every = "{minute} {hour} {day} {month} *" and every ='
            f' "{minute} {hour} * {month} {weekday}"'
        )
    try:
        return crontab(minute, hour, weekday, day, month, app=app)
    except (ParseException, ValueError, KeyError) as error:
        raise ValueError(f"{every!r} is not a cron expression: {error}") from None


def next_run(every: str, after: datetime) -> datetime:
    """Return when a cron expression is next due *after* a time. Raises ValueError if it is none, or never due."""
    times = _cron(every, "mirror")
    try:
        last, until_next, _ = times.remaining_delta(after)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise ValueError(f"{every!r} is never due: {error}") from None
    due: datetime = last + until_next
    return due


def _checked_late_after(duration: str | None) -> str | None:
    if duration is not None and interval_of(duration) is None:
        raise ValueError(f'{duration!r} is not a duration, such as "90m", "26h", "8d"')
    return duration


def _size(value: object) -> object:
    """Return the bytes of a size that is given as text. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = size_of(value)
    if found is None:
        raise ValueError(f'{value!r} is not a size, such as "20GB" or "1.5TiB"')
    return found


def _rate(value: object) -> object:
    return _size(value.strip().removesuffix("/s")) if isinstance(value, str) else value


def _checked_share(share: str) -> str:
    of = shares_of(share)
    if of is None or of > MOST_SHARES:
        raise ValueError(f'{share!r} is not a share from "1/1" to "1/{MOST_SHARES}", such as "1/30"')
    return share


_Bytes = Annotated[int, BeforeValidator(_size), Field(ge=1, le=LARGEST_NUMBER)]
_Rate = Annotated[int, BeforeValidator(_rate), Field(ge=1, le=LARGEST_NUMBER)]
_Duration = Annotated[str, AfterValidator(_checked_patience)]


class Table(BaseModel):
    """A table of the file: it cannot change, and refuses keys that it does not know."""

    # Built at the first use: most commands read no such file.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.strip("_").replace("_", "-"),
        defer_build=True,
    )


class Scheduled(Table):
    """What mirrors and scrubs have in common: a name, when they run, and how they share the fleet."""

    kind: ClassVar[ScheduleKind]
    store_keys: ClassVar[tuple[str, ...]]
    """The keys of *stores*."""

    name: str = Field(pattern=MIRROR_NAME)
    every: str
    jobs: int | None = Field(None, ge=1, le=1024)
    patience: _Duration | None = None
    late_after: Annotated[str | None, AfterValidator(_checked_late_after)] = None
    """Time since the last success after which it is late. None: when the second run since then is due."""

    @field_validator("every")
    @classmethod
    def _checked_every(cls, every: str) -> str:
        seconds = interval_of(every)
        if seconds is None:
            _cron(every, cls.kind)
        elif seconds < SHORTEST_S:
            raise ValueError(f"the shortest interval is {SHORTEST_S}s")
        return every

    @property
    def interval_s(self) -> int | None:
        """The interval in seconds, None if *every* is a cron expression."""
        return interval_of(self.every)

    @property
    def patience_s(self) -> float | None:
        """Seconds that the jobs wait for a store that is away. None: the default of jobs."""
        return None if self.patience is None else seconds_of(self.patience)

    @property
    def late_after_s(self) -> float | None:
        """*late_after* in seconds."""
        found = None if self.late_after is None else interval_of(self.late_after)
        return None if found is None else float(found)

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores of its jobs, each a URL or the name of a store."""
        raise NotImplementedError

    def times(self, app: Celery) -> BaseSchedule:
        """Return *every* as a schedule of Celery beat, for *app*."""
        # As above.
        from celery.schedules import schedule

        seconds = self.interval_s
        return _cron(self.every, self.kind, app) if seconds is None else schedule(seconds, app=app)


class Mirror(Scheduled, CopyOptions):
    """A scheduled copy of everything in a store. *from_* and *to* are URLs or names of stores."""

    kind: ClassVar[ScheduleKind] = "mirror"
    store_keys: ClassVar[tuple[str, ...]] = ("from", "to")

    from_: str
    to: str
    delete: bool = False
    max_delete: int | None = Field(None, ge=0, le=LARGEST_NUMBER)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_delete is not None and not self.delete:
            raise ValueError("max-delete needs delete = true")
        return self

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores of its jobs, each a URL or the name of a store."""
        return self.from_, self.to


class Scrub(Scheduled):
    """
    A store that is read again and again, a *share* of it in each run. *store* is a URL or the name of a store.

    *limit_rate* in bytes per second. A run begins no further batch after *max_bytes* bytes or *max_time*.
    """

    kind: ClassVar[ScheduleKind] = "scrub"
    store_keys: ClassVar[tuple[str, ...]] = ("store",)

    store: str
    share: Annotated[str, AfterValidator(_checked_share)]
    limit_rate: _Rate | None = None
    max_bytes: _Bytes | None = None
    max_time: _Duration | None = None
    priority: Priority = Priority.NORMAL
    queue: str = Field("", pattern=NAME)

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores of its jobs, each a URL or the name of a store."""
        return (self.store,)

    @property
    def shares(self) -> int:
        """The number of runs that read the whole store."""
        return shares_of(self.share) or 1

    @property
    def max_seconds(self) -> int | None:
        """*max_time* in seconds."""
        return None if self.max_time is None else round(seconds_of(self.max_time))

    def mean_interval_s(self, app: Celery) -> float:
        """Return the seconds between two runs; for a cron expression, the mean of `_SAMPLED_RUNS` runs."""
        if self.interval_s is not None:
            return float(self.interval_s)
        times = _cron(self.every, self.kind, app)
        runs = [datetime(2001, 1, 1, tzinfo=UTC)]
        for _ in range(_SAMPLED_RUNS + 1):
            # From a fixed day on, so that all schedulers with the same file have the same schedule.
            last, until_next, _ = times.remaining_delta(runs[-1])
            runs.append(last + until_next)
        return float((runs[-1] - runs[1]).total_seconds()) / _SAMPLED_RUNS
