"""The records of mirrors and scrubs: those of the fleet or, on a machine without one, those of `snapferry run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from snapferry.orchestrator.embedded import EmbeddedFleet, FleetDied
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.schedules.schedule import expected_of
from snapferry.orchestrator.schedules.state_file import StateError, StateFile
from snapferry.stores.access import TRUSTED
from snapferry.workers.ledger import FreshnessLedger
from snapferry.workers.settings.config_file import Config
from snapferry.workers.settings.environment import Settings

from .exit_codes import fail, note
from .fleet_access import on_fleet


@contextmanager
def recorded_runs(settings: Settings, config: Config, state_dir: str) -> Iterator[tuple[Settings, Jobs]]:
    """
    Yield settings and jobs with which the records of the mirrors and scrubs of *config* can be read.

    Without a broker they are those of a server of this command, which has what is in *state_dir*.
    """
    if settings.broker_url is not None:
        with on_fleet(settings, advice="") as jobs:
            yield settings, jobs
        return
    try:
        with EmbeddedFleet(settings, processes=0) as server:
            records = server.client()
            for one in config.scheduled:
                try:
                    lost = StateFile(state_dir, one.kind, one.name).restore(records, move=False)
                except StateError as error:
                    lost = str(error)
                if lost:
                    note(lost)
            FreshnessLedger(records).expect(expected_of(config), replace=True)
            yield server.settings, Jobs(server.settings, check=False, access=TRUSTED)
    except FleetDied as error:
        fail(str(error))
