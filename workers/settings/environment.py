"""
Settings: the only reader of the environment, and the meaning of each variable.

All other code takes arguments. An entry point calls `Settings.from_environment` once and passes the result on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from snapferry.stores.runtime.bounds import Bounds
from snapferry.stores.text.printable import shortened
from snapferry.stores.text.similar import similar
from snapferry.workers.faults import fault_text

from .broker_url import InvalidBrokerURL, parse
from .durations import LONGEST_PATIENCE_S

Side = Literal["from", "to"]
LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_PREFIX = "SNAPFERRY_"

# What is read beside `Settings`.
_OTHER_VARIABLES: Final = {
    *(f"{side}_{name}" for side in ("FROM", "TO") for name in ("ENDPOINT_URL", "PROFILE", "REGION")),
    *("COMPLETION_TIMEOUT", "DASHBOARD_BASIC_AUTH", "EXPORT_JOBS", "FLOWER_BASIC_AUTH", "FLOWER_PORT"),
    *("NOTIFY_URLS", "PURE", "STATE_DIR"),
}

# docker-compose.yml has variables of its own, which may be set for commands as well.
_OF_COMPOSE: Final = {"AWS_PROFILES", "STORES", "USER"}

PATIENCE_S: Final = 1800.0
"""The default time that a job waits for a store that is away."""

CONFIG_HERE: Final = "snapferry.toml"
"""The default file of stores and mirrors, in the working directory."""

# Parts of the names of variables that hold secrets.
_SECRET_NAMES: Final = ("SECRET", "PASSWORD", "TOKEN", "BASIC_AUTH", "NOTIFY_URLS")

# Variables that change how Python works. Child processes run without them.
_PYTHON_TUNING: Final = frozenset(
    f"PYTHON{name}"
    for name in (
        "WARNINGS", "STARTUP", "INSPECT", "DEVMODE", "VERBOSE", "DEBUG", "ASYNCIODEBUG", "DUMPREFS", "MALLOCSTATS",
        "PROFILEIMPORTTIME", "TRACEMALLOC", "BREAKPOINT", "OPTIMIZE",
    )
)  # fmt: skip


# Characters of a value in a message.
_MOST_SHOWN: Final = 100


class InvalidSettings(Exception):
    """The configuration cannot be used. The message names the variable and the reason, in one line."""


def _none_or_number(found: object) -> object:
    return None if isinstance(found, str) and found.lower() == "none" else found


def _directories(found: object) -> object:
    if not isinstance(found, str):
        return found
    paths = tuple(path for path in found.split(os.pathsep) if path)
    for path in paths:
        # The root directory would allow every link.
        if not path.startswith("/") or not path.strip("/"):
            raise ValueError(f"{path!r} is not the absolute path of a directory below /")
    return paths


def _entries(found: object) -> object:
    """Return the entries of a list in the environment. ``none`` is an empty list."""
    if not isinstance(found, str):
        return found
    return () if found.strip().lower() == "none" else tuple(found.split())


Listed = Annotated[tuple[str, ...] | None, BeforeValidator(_entries)]
"""A list in one variable, separated by spaces."""


class Settings(BaseModel):
    """
    The settings of this process.

    Each field is read from the variable ``SNAPFERRY_<FIELD>``. Durations are in seconds, sizes in bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    broker_url: str | None = None
    """URL of the Redis server for queues, ledger and chords, or of its sentinels (`broker_url`)."""

    batch_objects: int = Field(2500, ge=1, le=10_000)
    """Objects per task, at most. Small jobs use smaller batches, down to 1,000 objects."""

    batch_bytes: int = Field(64 * 1024**2, ge=1)
    """Bytes per task, at most. A larger object gets a task of its own."""

    window_batches: int = Field(256, ge=1, le=100_000)
    """Tasks of one job in the queue at once, at most. The rest of its plan follows as they end."""

    visibility_timeout: int = Field(1800, ge=5)
    """Time after which an unacknowledged task is delivered again. Must be the same on all machines of a fleet."""

    job_expires: int = Field(30 * 86400, ge=3600)
    """Time to keep the record of a job after its last change."""

    max_manifest_bytes: int = Field(16 * 1024**3, ge=1024**2)
    """Largest manifest that is read. It takes the same space in the temporary directory while it is used."""

    max_plan_objects: int = Field(100_000_000, ge=1000, le=2**32 - 1)
    """Distinct objects of a job, at most. Planning takes about 90 bytes of memory for each object."""

    max_snapshots: int = Field(500_000, ge=1, le=10_000_000)
    """Snapshots that ``--all`` and ``--delete`` list of a store, at most. Each takes 350 bytes of memory."""

    config: str | None = None
    """Path of the configuration file. Default: ``snapferry.toml`` in the working directory, if it exists."""

    s3_max_requests: Annotated[int | None, BeforeValidator(_none_or_number)] = Field(None, ge=1)
    """
    Requests per second to each S3 store, over all jobs that are submitted with this setting. ``none``, the default: no
    limit, but a process slows down where a store asks it to.

    A limit that ``snapferry limit --store`` sets for a store takes precedence.
    """

    prices: str | None = None
    """Path of the price table (TOML), for cost estimates of plans and for ``--max-cost``."""

    metrics_port: int | None = Field(None, ge=1, le=65535)
    """Port on which a worker or an orchestrator serves metrics. Default: no metrics."""

    metrics_address: str = "127.0.0.1"
    """Address to serve metrics on. ``0.0.0.0`` or ``::``: all addresses of this machine."""

    log_format: Annotated[LogFormat, BeforeValidator(lambda found: str(found).lower())] = "auto"
    """Format of log lines. ``auto``: text on a terminal, JSON otherwise."""

    log_level: Annotated[LogLevel, BeforeValidator(lambda found: str(found).lower())] | None = None
    """Lowest level of log lines that are written. Default: depends on the command."""

    patience: float = Field(PATIENCE_S, ge=0, le=LONGEST_PATIENCE_S)
    """Time that a job waits for a store that is away. Then the remaining objects of the job fail."""

    follow_links: Annotated[tuple[str, ...], BeforeValidator(_directories)] = ()
    """
    Directories that symbolic links below a directory store may lead into: absolute paths, separated by ``:``.

    For stores that are spread over several disks. By default no link below a store is followed.
    """

    group_write: bool = False
    """Make files and folders in directory stores writable for the group, as far as the umask allows it."""

    access_read: Listed = None
    """Stores that jobs may read from. Replaces ``read`` of ``[access]`` in `snapferry.toml`."""

    access_write: Listed = None
    """Stores that jobs may write to. Replaces ``write``."""

    access_delete: Listed = None
    """Stores that jobs may delete manifests from. Replaces ``delete``."""

    access_endpoints: Listed = None
    """S3 endpoints that jobs may use. Replaces ``endpoints``."""

    access_profiles: Listed = None
    """Profiles of credentials that jobs may use. Replaces ``profiles``."""

    access_link_local: bool | None = None
    """Allow connections to link-local addresses. Replaces ``link-local``."""

    grace: float = Field(30, ge=0, le=86400)
    """Seconds a worker may spend finishing running batches after SIGTERM. Then they are queued again."""

    @property
    def bounds(self) -> Bounds:
        """The limits on what this process reads from stores."""
        return Bounds(self.max_manifest_bytes, self.max_plan_objects, self.max_snapshots)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
        """
        Return the settings. *overrides* that are not None take precedence over the environment.

        Raises `InvalidSettings`.
        """
        found: dict[str, object] = {
            name: environ[_PREFIX + name.upper()]
            for name in cls.model_fields
            if environ.get(_PREFIX + name.upper())
        }
        if os.path.exists(CONFIG_HERE):
            found.setdefault("config", CONFIG_HERE)
        found.update({name: value for name, value in overrides.items() if value is not None})
        try:
            settings = cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name, text = str(first["loc"][0]), fault_text(first)
            value = repr(found[name])
            shown = shortened(value, _MOST_SHOWN)
            told = (
                f", not {shown}" if text.startswith("must ") else "" if value in text else f" (found {shown})"
            )
            fault = f"{shortened(text, 2 * _MOST_SHOWN)}{told}"
            raise InvalidSettings(f"{_PREFIX}{name.upper()}: {fault}") from None
        if settings.broker_url is None:
            return settings
        return settings.model_copy(update={"broker_url": parse_broker_url(settings.broker_url)})


def parse_broker_url(url: str) -> str:
    """Return the broker *url* in its one spelling (`broker_url`). Raises `InvalidSettings` without a password in it."""
    try:
        return parse(url).text
    except InvalidBrokerURL as error:
        raise InvalidSettings(str(error)) from None


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a child process: *environ* without variables that change how Python works."""
    return {name: value for name, value in environ.items() if name not in _PYTHON_TUNING}


class TerminalVariables(NamedTuple):
    """Whether the terminal is *dumb*, and whether the user wants *colors* (None: if the terminal has them)."""

    dumb: bool
    colors: bool | None


def terminal_variables(environ: Mapping[str, str] = os.environ) -> TerminalVariables:
    """Return what ``TERM``, ``NO_COLOR``, ``CLICOLOR``, ``CLICOLOR_FORCE`` and ``FORCE_COLOR`` say."""
    colors: bool | None = None
    if any(environ.get(name, "0") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")):
        colors = True
    elif environ.get("CLICOLOR") == "0":
        colors = False
    if environ.get("NO_COLOR"):
        colors = False
    return TerminalVariables(dumb=environ.get("TERM", "") in ("", "dumb", "unknown"), colors=colors)


def traces_wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether OpenTelemetry's own variables name a collector for traces. Its library reads the variables."""
    named = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return bool(named) and environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def share_metrics_folder(path: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the folder in which prometheus_client adds up the metrics of this process and of its children."""
    environ["PROMETHEUS_MULTIPROC_DIR"] = path


def secrets(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the secrets that this process knows: the broker's passwords, and values of the environment."""
    found = [value for name, value in environ.items() if any(part in name for part in _SECRET_NAMES)]
    broker = parse(settings.broker_url).secrets if settings.broker_url else ()
    return [secret for secret in (*broker, *found, *notify_urls(environ)) if secret]


def misspelt_variables(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str]]:
    """Yield each variable that nothing reads, and the one that is read and was probably meant."""
    known = _OTHER_VARIABLES | {field.upper() for field in Settings.model_fields}
    given = {name.removeprefix(_PREFIX) for name in environ if name.startswith(_PREFIX)}
    for name in sorted(given - known):
        if (meant := similar(name, sorted(known))) and name not in _OF_COMPOSE:
            yield _PREFIX + name, _PREFIX + meant


def notify_urls(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the addresses of Apprise in ``SNAPFERRY_NOTIFY_URLS``, which are secret."""
    return tuple(environ.get(f"{_PREFIX}NOTIFY_URLS", "").split())


def store_options(side: Side, environ: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """
    Return the S3 options that the environment sets for one side of a copy.

    They are ``SNAPFERRY_FROM_ENDPOINT_URL``, ``_REGION`` and ``_PROFILE``, and the same with ``TO``. Without an
    endpoint of its own, a side uses snapdir's ``SNAPDIR_S3_STORE_ENDPOINT_URL``. Options in a URL take precedence.
    """
    own = {
        name: environ.get(f"{_PREFIX}{side.upper()}_{name.upper()}")
        for name in ("endpoint_url", "region", "profile")
    }
    own["endpoint_url"] = own["endpoint_url"] or environ.get("SNAPDIR_S3_STORE_ENDPOINT_URL")
    return own


def named_endpoints(environ: Mapping[str, str] = os.environ) -> set[tuple[str | None, str | None]]:
    """
    Return the pairs of endpoint and profile that the environment names, for both sides and for boto3 itself.

    The allow-list includes them: see `access`.
    """
    sides: tuple[Side, Side] = ("from", "to")
    own = [store_options(side, environ) for side in sides]
    found = {(side["endpoint_url"] or None, side["profile"] or None) for side in own}
    profile = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or None
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        found |= {(environ.get(name) or None, None), (environ.get(name) or None, profile)}
    # A URL without a profile uses the profile that the environment names.
    return found | {(endpoint, profile) for endpoint, one in found if one is None} | {(None, profile)}


def dashboard_login(environ: Mapping[str, str] = os.environ) -> tuple[str, str] | None:
    """
    Return the user and password that the dashboard requires, None if it requires none.

    ``SNAPFERRY_DASHBOARD_BASIC_AUTH`` is ``user:password``. Raises `InvalidSettings` without the password.
    """
    found = environ.get(f"{_PREFIX}DASHBOARD_BASIC_AUTH")
    if not found:
        return None
    user, _, password = found.partition(":")
    if not user or not password:
        raise InvalidSettings(f"{_PREFIX}DASHBOARD_BASIC_AUTH must be user:password")
    return user, password


class FlowerSettings(BaseModel):
    """
    The users of Flower, and the place of its data.

    *users* are ``user:password``. *oauth* is the pattern of the mail addresses that may log in by OAuth, *provider* the
    name of Flower's login handler. *database* is a path.
    """

    # Built at the first use, which most processes do not have.
    model_config = ConfigDict(frozen=True, defer_build=True)

    users: tuple[str, ...] = Field((), repr=False)
    oauth: str = ""
    provider: str = ""
    database: str

    @property
    def guarded(self) -> bool:
        """Return whether Flower requires a login."""
        return bool(self.users or self.oauth)


def flower_settings(environ: Mapping[str, str] = os.environ) -> FlowerSettings:
    """
    Return the settings of Flower.

    ``SNAPFERRY_FLOWER_BASIC_AUTH``, or Flower's own ``FLOWER_BASIC_AUTH``, is ``user:password``, or several of them
    separated by commas. OAuth needs all of Flower's own variables ``FLOWER_AUTH``, ``FLOWER_AUTH_PROVIDER``,
    ``FLOWER_OAUTH2_KEY``, ``_SECRET`` and ``_REDIRECT_URI``. Raises `InvalidSettings` without a password in it.
    """
    name = next((n for n in ("SNAPFERRY_FLOWER_BASIC_AUTH", "FLOWER_BASIC_AUTH") if environ.get(n)), "")
    users = tuple(environ[name].split(",")) if name else ()
    for user in users:
        if not all(user.strip().partition(":")):
            raise InvalidSettings(f"{name} must be user:password, or several of them separated by commas")
    variables = ("AUTH", "AUTH_PROVIDER", "OAUTH2_KEY", "OAUTH2_SECRET", "OAUTH2_REDIRECT_URI")
    missing = [f"FLOWER_{name}" for name in variables if not environ.get(f"FLOWER_{name}")]
    if missing and len(missing) < len(variables):
        raise InvalidSettings(f"OAuth for Flower also needs {', '.join(missing)}")
    return FlowerSettings(
        users=users,
        oauth="" if missing else environ["FLOWER_AUTH"],
        provider="" if missing else environ["FLOWER_AUTH_PROVIDER"],
        database=os.path.join(state_directory(environ), "flower.db"),
    )


def state_directory(environ: Mapping[str, str] = os.environ) -> str:
    """Return the directory in which this user's processes keep what outlives them; it may not exist."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "snapferry")
