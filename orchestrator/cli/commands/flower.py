"""The command that runs Flower, with settings that suit a fleet: flower."""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.cli.options.common import broker_option
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.options.values import WholeNumber

PAGES: Final = "Pages"

EXAMPLES: Final = """
Examples:

\b
  Read-only pages for this machine, at http://127.0.0.1:5555:
    snapferry flower

\b
  Pages with actions, on all addresses, with a password:
    export SNAPFERRY_FLOWER_BASIC_AUTH=me:...
    snapferry flower --address 0.0.0.0 --control
"""


@command(run="flower:flower", extra="flower", epilog=EXAMPLES)
@option("--address", default="127.0.0.1", metavar="ADDRESS", section=PAGES, help="Address to listen on.")
@option(
    "--port",
    type=WholeNumber(1, 65535, shown=False),
    default=5555,
    metavar="PORT",
    section=PAGES,
    help="Port to listen on.",
)
@option(
    "--url-prefix",
    default="",
    metavar="PATH",
    section=PAGES,
    help="Serve the pages under /PATH, for a proxy.",
)
@option(
    "--db",
    metavar="FILE",
    default_text="snapferry/flower.db in the user's state directory",
    section=PAGES,
    help="File that keeps the remembered tasks across restarts.",
)
@option(
    "--max-tasks",
    type=WholeNumber(100, 1_000_000),
    default=20_000,
    metavar="N",
    section=PAGES,
    help="Remember the last N tasks, at about 8 KB of memory each.",
)
@option(
    "--control",
    is_flag=True,
    section=PAGES,
    help="Allow actions in the pages: revoke tasks, change limits, shut down workers.",
)
@broker_option
def flower() -> None:
    """
    Serve Flower, web pages about every task.

    The pages are read-only without --control. With --control, or on an --address
    other than loopback, Flower requires a login. The login is set in the
    environment, as one of these:

    \b
      SNAPFERRY_FLOWER_BASIC_AUTH    user:password; separate several with commas
      FLOWER_AUTH, FLOWER_AUTH_PROVIDER, FLOWER_OAUTH2_KEY,
      FLOWER_OAUTH2_SECRET, FLOWER_OAUTH2_REDIRECT_URI                  for OAuth

    The pages /metrics and /healthcheck require no login.
    """
