"""The command that serves the dashboard."""

from __future__ import annotations

import logging

import click

from snapferry.orchestrator.cli.exit_codes import note, read_settings, usage
from snapferry.orchestrator.cli.options import broker_option


@click.command()
@click.option("--address", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=5556, show_default=True, metavar="N")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A further host name that it may be asked for under, as behind a proxy. May be repeated.",
)
@click.option("--flower", metavar="URL", help="Flower's address, to link to its pages.")
@click.option("--verbose", is_flag=True, help="Log each request.")
@broker_option
def dashboard(
    address: str, port: int, hosts: tuple[str, ...], flower: str | None, verbose: bool, broker: str | None
) -> None:
    """
    Serve pages about jobs, snapshots, failures and workers, which change nothing.

    Anything but a loopback --address needs SNAPFERRY_DASHBOARD_BASIC_AUTH=user:password. Failed objects are
    shown with their paths if the source can be read from here.
    """
    from snapferry.orchestrator.dashboard import server
    from snapferry.workers.settings.environment import InvalidSettings, dashboard_login
    from snapferry.workers.telemetry import logs

    settings = read_settings(broker)
    if settings.broker_url is None:
        usage("no broker: set SNAPFERRY_BROKER_URL, or give --broker")
    try:
        login = dashboard_login()
        server.check_options(address, login, flower)
        sockets = server.bind(address, port)
    except (InvalidSettings, server.InvalidOptions) as error:
        usage(str(error))
    logs.configure(settings, level=logging.WARNING)
    logging.getLogger("snapferry.orchestrator.dashboard").setLevel(
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
