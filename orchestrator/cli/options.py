"""What several commands take: options of a copy, of a job that exists, and of how things are shown."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import click

from .exit_codes import on_fleet, read_settings, usage

_Command = TypeVar("_Command", bound=Callable[..., Any])

# pydantic's ByteSize passes over what follows a number that it can read: of 1,5GB it takes the 1.
_is_size = re.compile(r"\d+(\.\d+)?\s*([kKMGTP]i?)?B?").fullmatch


# Larger numbers are not counted exactly everywhere (8 PiB), and no longer text is one.
LARGEST_NUMBER = 2**53 - 1
LONGEST_NUMBER = 40


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return a size in bytes that is given plain or with a unit."""
    if value is None:
        return None
    if len(value) > LONGEST_NUMBER or not _is_size(value.strip()):
        raise click.BadParameter(f"{value!r} is no size; use bytes, or kB, MB, GB, TB, KiB, MiB, GiB, TiB.")
    from pydantic import ByteSize, TypeAdapter

    # pydantic knows MiB, and not Mi.
    text = value.strip()
    found = int(TypeAdapter(ByteSize).validate_python(f"{text}B" if text.endswith("i") else text))
    if found > LARGEST_NUMBER:
        raise click.BadParameter(
            f"{value!r} is more than {LARGEST_NUMBER:,} bytes, the most that is counted."
        )
    return found


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return bytes a second, given plain or with a unit."""
    if value is not None and value.strip().endswith("/s"):
        value = value.strip()[:-2]
    found = _size(ctx, param, value)
    if found is not None and found < 1:
        raise click.BadParameter(f"{value!r} lets nothing through; leave the option out for no limit.")
    return found


def changed_rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Return bytes a second, or "none" where that was given."""
    return value if value == "none" else _rate(ctx, param, value)


def changed_count(
    most: int, *words: str
) -> Callable[[click.Context, click.Parameter, str | None], int | str | None]:
    """Return the reading of a number up to *most*, or "none", or another of *words*."""
    others = " or ".join(("none", *words))

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
        if value is None or value in {"none", *words}:
            return value
        if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= most:
            raise click.BadParameter(f"{value!r} is no number from 1 to {most:,}, and not {others}.")
        return int(value)

    return read


def _none_for_zero(ctx: click.Context, param: click.Parameter, value: int) -> int | None:
    """Return a limit, None for 0."""
    return value or None


def _amount(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return an amount of money."""
    if value is None:
        return None
    try:
        amount = float(value)
    except ValueError:
        amount = math.nan
    if not 0 <= amount <= LARGEST_NUMBER:
        raise click.BadParameter(f"{value!r} is no amount of money.")
    return amount


def _queue_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Return the name of a queue, "" for the default one."""
    from snapferry.workers.queues import NAME

    if not re.fullmatch(NAME, value):
        raise click.BadParameter(
            f"{value!r} is no name of a queue; use up to 40 lowercase letters, digits, - and _ (not at its ends)."
        )
    return "" if value == "default" else value


def queue_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of queues, "" for the default one."""
    return tuple(_queue_name(ctx, param, value) for value in values)


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return a duration in seconds."""
    from snapferry.workers.settings.config_file import seconds_of

    try:
        return None if value is None else seconds_of(value.strip())
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


patience_option = click.option(
    "--patience",
    callback=_duration,
    metavar="DURATION",
    help="Wait so long for a store that is away, also at the start: as in 90s, 30m, 2h.  [default: 30m, and not for a"
    " store that has never answered]",
)

# Above these a limit is none.
MOST_REQUESTS = 1_000_000
MOST_JOBS = 65_536

broker_option = click.option(
    "--broker",
    metavar="URL",
    envvar="SNAPFERRY_BROKER_URL",
    show_envvar=True,
    help="Redis server of the fleet, as in redis://host:6379/0.",
)

config_option = click.option(
    "--config",
    metavar="FILE",
    envvar="SNAPFERRY_CONFIG",
    show_envvar=True,
    help="File that names stores and mirrors.  [default: snapferry.toml here]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")

receipt_option = click.option(
    "--receipt",
    "receipt_path",
    metavar="PATH",
    help="Write the job's receipt to this file when it has ended.",
)


_COPY_OPTIONS = [
    click.option(
        "--from",
        "source",
        required=True,
        metavar="URL",
        envvar="SNAPDIR_STORE",
        show_envvar=True,
        help="Source store: a URL, or a name from snapferry.toml.",
    ),
    click.option("--to", "destination", required=True, metavar="URL", help="Destination store."),
    click.option(
        "--id",
        "snapshot_ids",
        multiple=True,
        metavar="ID",
        help="Snapshot to copy: 64 hex digits. May be repeated.",
    ),
    click.option(
        "--ids-from",
        metavar="FILE",
        help="File of snapshot ids, one a line; - is standard input. Empty lines and those that begin with #"
        " are passed over.",
    ),
    click.option("--all", "everything", is_flag=True, help="Copy every snapshot of the source."),
    click.option(
        "--allow-empty-source",
        is_flag=True,
        help="With --all: a source without any manifest is no failure. It is taken for a wrong URL or a missing"
        " mount otherwise.",
    ),
    click.option(
        "--order",
        type=click.Choice(["newest", "smallest", "given"]),
        help="Which snapshot is published first.  [default: given; newest with --all]",
    ),
    click.option(
        "--from-objects", metavar="URL", help="Pool that holds the source's objects, if not --from itself."
    ),
    click.option("--to-objects", metavar="URL", help="Pool that takes the objects, if not --to itself."),
    click.option(
        "--trust-manifest",
        is_flag=True,
        help="Pass over snapshots whose manifest the destination has, without asking for their objects.",
    ),
    click.option(
        "--delete",
        is_flag=True,
        help="In the end, delete the destination's manifests that the source does not have; never an object.",
    ),
    click.option(
        "--max-delete",
        type=click.IntRange(min=0, max=LARGEST_NUMBER),
        metavar="N",
        help="With --delete: delete nothing if it were more than N.",
    ),
    click.option(
        "--force-delete",
        "force",
        is_flag=True,
        help="With --delete: also where the source has no snapshot at all.",
    ),
    click.option(
        "--max-bytes",
        callback=_size,
        metavar="SIZE",
        help="Begin nothing if it would copy more, and stop when it has: bytes, or as in 20GB, 1.5TiB.",
    ),
    click.option(
        "--max-objects",
        type=click.IntRange(min=0, max=LARGEST_NUMBER),
        metavar="N",
        help="Begin nothing if it would copy more objects, and stop when it has.",
    ),
    click.option(
        "--max-cost",
        callback=_amount,
        metavar="AMOUNT",
        help="Begin nothing if it would cost more, and stop when it has; needs prices.",
    ),
    click.option(
        "--prices",
        metavar="FILE",
        envvar="SNAPFERRY_PRICES",
        show_envvar=True,
        help="Price table, in TOML.",
    ),
    click.option(
        "-j",
        "--jobs",
        "jobs",
        type=click.IntRange(0, 1024),
        default=0,
        callback=_none_for_zero,
        envvar="SNAPDIR_JOBS",
        show_envvar=True,
        metavar="N",
        help="Objects in flight at once, in all. 0 leaves it to the stores.",
    ),
    click.option(
        "--limit-rate",
        "rate",
        callback=_rate,
        envvar="SNAPDIR_LIMIT_RATE",
        show_envvar=True,
        metavar="RATE",
        help="Read no more bytes a second from the source, in all: as in 500k, 100M, 1.5Gi.",
    ),
    click.option(
        "--max-requests",
        "requests",
        type=click.IntRange(min=0, max=MOST_REQUESTS),
        default=0,
        callback=_none_for_zero,
        envvar="SNAPDIR_MAX_REQUESTS",
        show_envvar=True,
        metavar="N",
        help="Send no more requests a second to either store, in all. 0: no limit.",
    ),
    patience_option,
    click.option(
        "--priority",
        type=click.Choice(["high", "normal", "low"]),
        default="normal",
        show_default=True,
        help="Whose batches a fleet takes first. Among alike ones small jobs go before what is left of large ones.",
    ),
    click.option(
        "--queue",
        default="",
        callback=_queue_name,
        metavar="NAME",
        help="Queue of a fleet for the job's batches: for stores so slow that others should not wait for them."
        " Some worker must serve it.",
    ),
    broker_option,
]


@dataclass(frozen=True)
class Show:
    """How a job is shown that is followed to its end."""

    quiet: bool
    no_progress: bool
    color: str
    as_json: bool

    @property
    def silent(self) -> bool:
        """Say whether no progress is shown."""
        return self.quiet or self.no_progress or self.as_json


_SHOW_OPTIONS = [
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    click.option(
        "--no-progress",
        is_flag=True,
        envvar="SNAPDIR_NO_PROGRESS",
        show_envvar=True,
        help="Show no progress.",
    ),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Colours and live bar: on a terminal, always, or never.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document on standard output at the end."
    ),
]


dry_run_option = click.option(
    "--dryrun", "dry_run", is_flag=True, help="Say what would be done; write nothing."
)


def copy_options(command: _Command) -> _Command:
    """
    Give *command* the options of a copy, as its arguments *spec* (a `JobSpec`) and *settings*.

    An option of a job is named after its field in `JobSpec`, or in the `Limits`, `Budget` or `Prune` of that.
    """

    @functools.wraps(command)
    def building(broker: str | None, prices: str | None, **given: Any) -> Any:
        from .job_spec import job_spec

        settings = read_settings(broker, prices)
        spec = job_spec(settings, given)
        return command(spec=spec, settings=settings, **given)

    return _with_options(building, _COPY_OPTIONS)  # type: ignore[no-any-return]


def show_options(command: _Command) -> _Command:
    """Give *command* the options of how a job is shown, as its argument *show*."""
    return _gathered(command, "show", Show, _SHOW_OPTIONS)


def _gathered(
    command: _Command, name: str, kind: type[Any], options: Sequence[Callable[[Any], Any]]
) -> _Command:
    names = [field.name for field in fields(kind)]

    @functools.wraps(command)
    def gathering(**given: Any) -> Any:
        return command(**{name: kind(**{part: given.pop(part) for part in names})}, **given)

    return _with_options(gathering, options)  # type: ignore[no-any-return]


def _with_options(command: Callable[..., Any], options: Sequence[Callable[[Any], Any]]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


def about_a_job(command: _Command) -> _Command:
    """Give *command* the argument JOB and the option --broker, as its arguments *jobs* and *job_id*."""

    @functools.wraps(command)
    def opening(job: str, broker: str | None, **given: Any) -> Any:
        from pydantic import ValidationError

        from snapferry.orchestrator.jobs import JobRefused
        from snapferry.workers.broker.connection import shown
        from snapferry.workers.ledger import UnknownJob, UnreadableJob

        settings = read_settings(broker)
        with on_fleet(settings, lost="If its work is still wanted, submit it again.") as jobs:
            try:
                job_id = jobs.find(job)
                jobs.status(job_id)
            except UnreadableJob:
                raise
            except UnknownJob:
                usage(
                    f"there is no job {job[:80]} at {shown(settings.broker_url or '')}: it was never submitted"
                    " there, or its record expired"
                )
            except JobRefused as error:
                usage(str(error))
            try:
                return command(jobs=jobs, job_id=job_id, **given)
            except JobRefused as error:
                usage(str(error))
            except ValidationError:
                usage(f"job {job_id} was submitted by another version of snapferry; this one cannot read it")

    found: Any = broker_option(opening)
    return click.argument("job", metavar="JOB")(found)  # type: ignore[no-any-return]
