"""Serve the dashboard."""

from __future__ import annotations

import logging

from snapferry.orchestrator.cli.exit_codes import note, usage
from snapferry.orchestrator.cli.fleet_access import NO_BROKER
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.dashboard import server
from snapferry.workers.settings.environment import InvalidSettings, dashboard_login
from snapferry.workers.telemetry import logs


def dashboard(
    address: str,
    port: int,
    hosts: tuple[str, ...],
    flower: str | None,
    control: bool,
    verbose: bool,
    broker: str | None,
) -> None:
    settings = read_settings(broker)
    if settings.broker_url is None:
        usage(NO_BROKER)
    try:
        login = dashboard_login()
        server.check_options(address, login, flower, control=control, hosts=hosts)
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
        control=control,
        ready=lambda: note(f"dashboard at http://{shown}:{sockets[0].getsockname()[1]}/"),
    )
