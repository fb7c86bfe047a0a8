"""
The action of a schedule: the scheduler starts and finds a mirror and a scrub due; their jobs run; the end is told.

The scrub finds a wrong object, so that there is something to tell.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final

from redbeat.schedulers import ensure_conf

from snapferry.orchestrator.notify.notifier import Notifier
from snapferry.orchestrator.notify.send import Sent
from snapferry.orchestrator.notify.texts import Text
from snapferry.orchestrator.schedules.schedule import schedule_jobs
from snapferry.orchestrator.schedules.scheduler import LockedScheduler, wait_for_the_lock
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import FreshnessLedger, ScheduleLedger, ScrubLedger
from snapferry.workers.ledger.keys import MIRROR, SCRUB
from snapferry.workers.queues import PLAN_QUEUE, lists
from snapferry.workers.settings.config_file import read_config
from tests.sample import fill

from .process import Process
from .roles import pass_time
from .world import World

FILES: Final = {"./one": b"1" * 100, "./two": b"2" * 100, "./three": b"3" * 100}

CONFIG: Final = """
[[mirror]]
name = "nightly"
from = "{source}"
to = "{destination}"
every = "1h"

[[scrub]]
name = "weekly"
store = "{scrubbed}"
every = "1h"
share = "1/2"

[notify]
wait = "0s"
interval = "0s"
"""


def begin_schedule(world: World) -> None:
    """Write the configuration, the source of the mirror, and the store of the scrub, of which all objects are wrong."""
    scrubbed = f"file://{world.folder}/c"
    config = CONFIG.format(source=world.source, destination=world.destination, scrubbed=scrubbed)
    (world.folder / "snapferry.toml").write_text(config)
    fill(world.store(world.source), FILES)
    fill(world.store(scrubbed), FILES)
    for data in FILES.values():
        world.backend(scrubbed).write(object_key(digest(data)), b"wrong")
    # Both were due an hour ago.
    world.memory["last run"] = datetime.now(UTC) - timedelta(hours=2)


def run_schedule(process: Process) -> None:
    """Run a scheduler until it has sent what is due, and the roles until the jobs have ended and it is told."""
    world, app = process.world, process.app
    config = read_config(str(world.settings.config))
    notifier = Notifier(config.notify, ["json://receiver"], send=lambda _, text: _tell(world, text))
    process.after = lambda: notifier.round(process.ledger)
    with process.fuse.off():
        schedule_jobs(app, world.settings, config)
        ensure_conf(app)
        if process.again:
            pass_time(process.client)
            process.client.delete(app.redbeat_conf.lock_key)
    scheduler = LockedScheduler(app)
    wait_for_the_lock(SimpleNamespace(scheduler=scheduler))
    with process.fuse.off():
        _make_due(process, scheduler)
    scheduler.tick()
    process.complete()
    # The scheduler ends.
    scheduler.lock.release()


def _make_due(process: Process, scheduler: Any) -> None:
    """
    Let what has not been sent be due.

    A message that was taken, and whose process died before it recorded that, is lost: then the next run is due.
    """
    lost = process.again and "snapferry.unacked" in process.world.note.read_text()
    waiting = _waiting(process)
    known = {name: ScheduleLedger(process.client, kind).record(name).job_id for kind, name in _SCHEDULED}
    for entry in _entries(scheduler):
        if "total_run_count" not in entry.load_meta(entry.key, process.app):
            entry.reschedule(process.world.memory["last run"])
        elif lost and not known[entry.name.rpartition(":")[2]] and entry.task not in waiting:
            entry.reschedule(process.world.memory["last run"] + timedelta(minutes=1))


def _waiting(process: Process) -> set[str]:
    """Return the names of the tasks whose messages wait."""
    messages: list[Any] = [
        message for key in lists(PLAN_QUEUE) for message in process.client.lrange(key, 0, -1)
    ]
    return {json.loads(message)["headers"]["task"] for message in messages}


_SCHEDULED: Final = ((MIRROR, "nightly"), (SCRUB, "weekly"))


def _entries(scheduler: Any) -> list[Any]:
    prefix = scheduler.app.redbeat_conf.key_prefix
    names = scheduler.app.conf.beat_schedule
    return [scheduler.Entry.from_key(f"{prefix}{name}", app=scheduler.app) for name in names]


def _tell(world: World, text: Text) -> Sent:
    with world.told.open("a") as told:
        told.write(f"{text.id}\n")
    return Sent(True)


def schedule_ran(world: World) -> None:
    """Check that each ran once, that the scrub has moved on by one share, and that its findings were told."""
    with world.client() as client:
        scrub = ScrubLedger(client).state("weekly")
        assert scrub is not None
        assert (scrub.share, scrub.cycle, scrub.findings > 0) == (1, 1, True), scrub
        for kind, name in _SCHEDULED:
            record = ScheduleLedger(client, kind).record(name)
            assert (bool(record.job_id), record.skipped) == (True, 0), record
        freshness = {one.expected.name: one.success_at > 0 for one in FreshnessLedger(client).freshness()}
        assert freshness == {"nightly": True, "weekly": True}, freshness
    receipts = world.seen()["receipts"]
    assert sorted((one["action"], one["state"]) for one in receipts) == [
        ("copy", "done"),
        ("verify", "failed"),
    ]
    messages = world.told.read_text().split()
    # A sender that died after it sent sends again, with the same id.
    assert len(set(messages)) == 1 <= len(messages) <= 2
