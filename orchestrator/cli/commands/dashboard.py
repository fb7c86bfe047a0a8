"""The command that serves the dashboard: dashboard."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options.common import broker_option
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.options.values import WholeNumber

PAGES: Final = "Pages"

EXAMPLES: Final = """
Examples:

\b
  Read-only pages for this machine, at http://127.0.0.1:5556:
    snapferry dashboard

\b
  Pages that can change jobs, behind a proxy with TLS, with a password:
    export SNAPFERRY_DASHBOARD_BASIC_AUTH=me:...
    snapferry dashboard --host dash.example --control
"""


@command(run="dashboard:dashboard", extra="dashboard", epilog=EXAMPLES)
@option("--address", default="127.0.0.1", metavar="ADDRESS", section=PAGES, help="Address to listen on.")
@option(
    "--port",
    type=WholeNumber(0, 65535, shown=False),
    default=5556,
    metavar="PORT",
    section=PAGES,
    help="Port to listen on.",
)
@option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    section=PAGES,
    help="Host name that browsers may use, besides the names of this machine; needed behind a proxy. May be repeated.",
)
@option("--flower", metavar="URL", section=PAGES, help="Address of Flower, to link to its pages.")
@option(
    "--control",
    is_flag=True,
    section=PAGES,
    help="Allow changes in the pages: pause, continue, cancel, retry, priority and limits of jobs.",
)
@option("--verbose", is_flag=True, section=PAGES, help="Log every request.")
@broker_option
def dashboard() -> None:
    """
    Serve the dashboard, web pages about jobs.

    The pages show jobs, snapshots, failed objects and workers. The paths of
    failed objects are shown if this machine can read the source. The pages are
    read-only without --control; with it, each change is a line in the log.

    On an --address other than loopback the dashboard requires a login: set
    SNAPFERRY_DASHBOARD_BASIC_AUTH to user:password.
    """
