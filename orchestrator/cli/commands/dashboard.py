"""The command that serves the dashboard: dashboard."""

from __future__ import annotations

import logging

from snapferry.orchestrator.cli.exit_codes import note, usage
from snapferry.orchestrator.cli.fleet_access import NO_BROKER
from snapferry.orchestrator.cli.options.common import broker_option
from snapferry.orchestrator.cli.options.declare import command, option
from snapferry.orchestrator.cli.options.values import WholeNumber
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.dashboard import server
from snapferry.workers.settings.environment import InvalidSettings, dashboard_login
from snapferry.workers.telemetry import logs


@command()
@option("--address", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on.")
@option(
    "--port", type=WholeNumber(0, 65535, shown=False), default=5556, metavar="PORT", help="Port to listen on."
)
@option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name that browsers may use, besides the names of this machine; needed behind a proxy. May be repeated.",
)
@option("--flower", metavar="URL", help="Address of Flower, to link to its pages.")
@option("--verbose", is_flag=True, help="Log every request.")
@broker_option
def dashboard(
    address: str, port: int, hosts: tuple[str, ...], flower: str | None, verbose: bool, broker: str | None
) -> None:
    """
    Serve the dashboard, read-only web pages about jobs.

    The pages show jobs, snapshots, failed objects and workers. The paths of
    failed objects are shown if this machine can read the source.

    On an --address other than loopback the dashboard requires a login: set
    SNAPFERRY_DASHBOARD_BASIC_AUTH to user:password.
    """
    settings = read_settings(broker)
    if settings.broker_url is None:
        usage(NO_BROKER)
    try:
        login = dashboard_login()
        server.check_options(address, login, flower)
        sockets = server.bind(address, port)
    except (InvalidSettings, server.InvalidOptions) as error:
        usage(str(error))
    logs.configure(settings, level=logging.WARNING)
    logging.getLogger(server.__name__.rpartition(".")[0]).setLevel(
        logging.INFO if verbose else logging.WARNING
    )
    shown = f"[{address}]" if ":" in address else address
    server.serve(
        settings,
        sockets,
        address=address,
        login=login,
        hosts=hosts,
        flower=flower,
        ready=lambda: note(f"dashboard at http://{shown}:{sockets[0].getsockname()[1]}/"),
    )
