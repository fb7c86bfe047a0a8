"""The commands about what runs on a schedule, and who is told how it goes: mirrors, scrubs, scheduler and notify."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options.common import (
    broker_option,
    json_option,
    log_level_option,
    receipt_option,
    show_options,
)
from snapferry.orchestrator.cli.options.declare import argument, command, examples, option
from snapferry.orchestrator.cli.options.job import detach_option, verbose_option

_state_option = option(
    "--state-dir",
    metavar="DIR",
    envvar="SNAPFERRY_STATE_DIR",
    default_text="snapferry in the user's state directory",
    help="Without a broker, directory that keeps the records of runs, such as the position of a scrub.",
)

_forget_option = option(
    "--forget",
    metavar="NAME",
    help="Stop expecting runs of NAME, which was removed from snapferry.toml.",
)

RUN_EXAMPLES: Final = """
Examples:

\b
  Run the mirror nightly once, on this machine alone:
    snapferry run nightly

\b
  The same, every night at 3:30, as a line of a crontab:
    30 3 * * *  snapferry run --config /etc/snapferry/snapferry.toml -q nightly

\b
  Run a scrub that has the same name as a mirror:
    snapferry run scrub:nightly

\b
Exit codes:
  0    done, or skipped because the last run has not ended
  1    the job failed, or its receipt or state could not be written
  2    bad usage or configuration
  130  interrupted
"""


@command(run="scheduling.once:run_once", name="run", interruptible=True, epilog=RUN_EXAMPLES)
@argument(
    "name",
    metavar="NAME",
    completes="scheduled",
    text="Name of a mirror or scrub in snapferry.toml, or mirror:NAME, or scrub:NAME.",
)
@broker_option
@_state_option
@detach_option
@receipt_option
@verbose_option
@show_options
def run_once() -> None:
    """
    Run a mirror or scrub of snapferry.toml once, now.

    This is for cron and systemd timers. It needs no scheduler, and pays no
    attention to the times in the file. A run is skipped while the last run of the
    same mirror or scrub has not ended.

    Without a broker, worker processes on this machine do the work, and end with
    the command. With a broker, the fleet does the work.
    """


MIRRORS_EXAMPLES: Final = examples(
    ("Show which mirrors are late", "snapferry mirrors"),
    ("Stop the alert about a mirror that was removed", "snapferry mirrors --forget nightly"),
)


@command(run="scheduling.lists:list_mirrors", name="mirrors", epilog=MIRRORS_EXAMPLES)
@_forget_option
@_state_option
@json_option
@broker_option
def list_mirrors() -> None:
    """
    List the mirrors of snapferry.toml, with their last success and their last and next runs.

    A mirror is late when the second run since its last success is due, or after
    its late-after. A mirror that was removed from snapferry.toml is late as
    well, until you forget it.
    """


SCRUBS_EXAMPLES: Final = examples(("Show how much of each store was verified", "snapferry scrubs"))


@command(run="scheduling.lists:list_scrubs", name="scrubs", epilog=SCRUBS_EXAMPLES)
@_forget_option
@_state_option
@json_option
@broker_option
def list_scrubs() -> None:
    """
    List the scrubs of snapferry.toml, with their last success and their last and next runs.

    FINDINGS counts the wrong objects and unreadable manifests that were found
    when each part of the store was read for the last time. OLDEST UNVERIFIED is
    the age of the oldest reading: the whole store has been read since.
    """


SCHEDULER_EXAMPLES: Final = examples(
    (
        "Run the mirrors and scrubs of a file",
        "snapferry scheduler --broker redis://queue:6379/0 \\\n  --config /etc/snapferry/snapferry.toml",
    ),
)


@command(run="scheduling.lists:scheduler", extra="scheduler", epilog=SCHEDULER_EXAMPLES)
@broker_option
@log_level_option
def scheduler() -> None:
    """
    Run the scheduler, which queues each mirror and scrub of snapferry.toml when it is due.

    The scheduler is Celery beat with its schedule in Redis. Several may run with
    the same file: one is active, and another takes over if it dies. A scheduler
    with a different file warns, and waits until the active one ends.
    """


NOTIFY_EXAMPLES: Final = examples(
    ("Show the receivers", "snapferry notify"),
    ("Send each of them a test message", "snapferry notify --test"),
)


@command(run="scheduling.notify:notify", epilog=NOTIFY_EXAMPLES)
@option("--test", is_flag=True, help="Send a test message to each receiver now.")
@json_option
@broker_option
def notify() -> None:
    """
    Show who is notified of failures, lateness and recovery, and what waits to be sent.

    Receivers are the addresses of Apprise in the file that urls-file in [notify]
    of snapferry.toml names, and in SNAPFERRY_NOTIFY_URLS. An address is shown by
    its number and its kind, because it is secret. Orchestrators and the scheduler
    send the notifications.
    """
