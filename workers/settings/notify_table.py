"""
The table `[notify]` of `snapferry.toml`: who is told of failures, lateness and recovery, and how often.

    [notify]
    urls-file = "/etc/snapferry/notify.urls"    # addresses of Apprise, one a line; secret
    events = ["failed", "late", "recovered"]
    repeat = "1d"                               # tell a problem of a mirror or scrub that persists again
    fleet = "production"                        # begins each title

The variable ``SNAPFERRY_NOTIFY_URLS``, separated by spaces, adds addresses. Addresses come from nowhere else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from .durations import interval_of
from .environment import InvalidSettings, notify_urls
from .schedule_tables import Table
from .toml_file import InvalidToml, read_secret

MOST_RECEIVERS: Final = 20
"""Addresses that are notified."""


class EventKind(StrEnum):
    """What is told: a job failed, a mirror or scrub is late, or what was told before is over."""

    FAILED = "failed"
    LATE = "late"
    RECOVERED = "recovered"


def _checked(duration: str) -> str:
    if interval_of(duration) is None:
        raise ValueError(f'{duration!r} is not a duration, such as "30s", "5m", "1d"')
    return duration


def _checked_repeat(repeat: str) -> str:
    return repeat if repeat == "never" else _checked(repeat)


def _checked_path(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise ValueError(f"{path!r} is not an absolute path")
    return path


_Duration = Annotated[str, AfterValidator(_checked)]


class Notify(Table):
    """
    What is told, and when.

    Events are gathered for *wait* before a message, and *interval* passes between two messages, so that many events are
    one message. *jobs*: all jobs, or only those of mirrors and scrubs. *fleet* begins each title.
    """

    urls_file: Annotated[str | None, AfterValidator(_checked_path)] = None
    events: tuple[EventKind, ...] = tuple(EventKind)
    jobs: Literal["all", "scheduled"] = "all"
    repeat: Annotated[str, AfterValidator(_checked_repeat)] = "1d"
    wait: _Duration = "30s"
    interval: _Duration = "5m"
    fleet: str = Field("snapferry", pattern=r"^[A-Za-z0-9 ._-]{1,64}$")

    @property
    def repeat_s(self) -> float:
        """*repeat* in seconds, infinity for never."""
        return float("inf") if self.repeat == "never" else float(interval_of(self.repeat) or 0)

    @property
    def wait_s(self) -> float:
        """*wait* in seconds."""
        return float(interval_of(self.wait) or 0)

    @property
    def interval_s(self) -> float:
        """*interval* in seconds."""
        return float(interval_of(self.interval) or 0)


def receivers(table: Notify) -> tuple[str, ...]:
    """
    Return the addresses to notify: those of the file, and those of the environment.

    Raises `InvalidSettings`, whose message contains no address.
    """
    found = list(notify_urls())
    if table.urls_file is not None:
        try:
            lines = read_secret(table.urls_file).decode("utf-8").splitlines()
        except UnicodeDecodeError:
            raise InvalidSettings(f"notify.urls-file {table.urls_file}: is not in UTF-8") from None
        except OSError as error:
            raise InvalidSettings(f"notify.urls-file {table.urls_file}: {error.strerror or error}") from None
        except InvalidToml as error:
            raise InvalidSettings(f"notify.urls-file {table.urls_file}: {error}") from None
        found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")] + found
    for number, url in enumerate(found, 1):
        if "://" not in url or not url.isprintable() or " " in url:
            raise InvalidSettings(f"address {number} of the notifications is not a URL, such as mailto://…")
    if len(found) > MOST_RECEIVERS:
        raise InvalidSettings(
            f"there are {len(found)} addresses of notifications, and at most {MOST_RECEIVERS} are allowed"
        )
    return tuple(dict.fromkeys(found))


def label_of(number: int, url: str) -> str:
    """Return the name of an address that is shown and logged: its *number* and its scheme, nothing that is secret."""
    scheme = url.partition("://")[0]
    return f"{number} {scheme}" if scheme.isalnum() and len(scheme) < 32 else str(number)
