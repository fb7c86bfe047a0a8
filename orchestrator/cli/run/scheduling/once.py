"""Run a mirror or scrub of snapferry.toml once: the body of run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Final

import click
import redis
from celery import Celery

from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, RUN_AGAIN, note, usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.follow import print_new_job, run
from snapferry.orchestrator.cli.inputs.show import Show, with_show
from snapferry.orchestrator.cli.launch import batched, embedded_fleet
from snapferry.orchestrator.cli.receipt_file import check_receipt_path
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.notify.kept import export_notifications, restore_notifications
from snapferry.orchestrator.notify.notifier import notifier_of
from snapferry.orchestrator.schedules.cycle import next_job
from snapferry.orchestrator.schedules.due import queue_due
from snapferry.orchestrator.schedules.schedule import expected_one, message_of, scrub_message
from snapferry.orchestrator.schedules.settle import settle_ended
from snapferry.orchestrator.schedules.state_file import StateError, StateFile
from snapferry.workers.ledger import FreshnessLedger, Ledger, ScheduleLedger, ScrubLedger
from snapferry.workers.messages import JobSpec, MirrorMessage, ScrubMessage
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings, state_directory
from snapferry.workers.settings.notify_table import Notify
from snapferry.workers.settings.schedule_tables import Mirror, Scrub

Message = MirrorMessage | ScrubMessage

# Seconds after which a server that ends with this command would forget a job.
_EXPIRES_S: Final = 86400


@with_show
def run_once(
    name: str,
    broker: str | None,
    state_dir: str | None,
    receipt_path: str | None,
    verbose: bool,
    detach: bool,
    show: Show,
) -> int:
    settings = read_settings(broker)
    scheduled, message, notify = _chosen(settings, name)
    check_receipt_path(receipt_path, detach=detach)
    if settings.broker_url is None and not detach:
        return _embedded(
            scheduled,
            message,
            settings,
            show,
            notify=notify,
            state_dir=state_dir or state_directory(),
            receipt_path=receipt_path,
            verbose=verbose,
        )
    with on_fleet(settings, advice=RUN_AGAIN) as jobs:
        with jobs.records() as server:
            records, spec = _records(server, message, settings)
            # Lateness is noticed although no scheduler has this mirror or scrub.
            FreshnessLedger(server).expect([expected_one(scheduled)], replace=False)
        done = queue_due(jobs, records, scheduled.name, spec)
        if done.skipped:
            return _skipped(scheduled, done.skipped, show)
        if detach:
            print_new_job(done.job_id, quiet=show.quiet, as_json=show.as_json)
            return 0
        return run(jobs, done.job_id, show, receipt_path=receipt_path, on_fleet=True)


def _chosen(settings: Settings, name: str) -> tuple[Mirror | Scrub, Message, Notify]:
    """
    Return the mirror or scrub of this *name*, or ``KIND:NAME``, with its message, and who is notified.

    An error ends the command.
    """
    if settings.config is None:
        usage("no snapferry.toml in this directory. Use --config FILE, or set SNAPFERRY_CONFIG.")
    try:
        config = read_config(settings.config)
        found = [one for one in config.scheduled if name in (one.name, f"{one.kind}:{one.name}")]
        if not found:
            known = ", ".join(f"{one.kind} {one.name}" for one in config.scheduled)
            has = f"The file has: {known}" if known else "The file has no mirror and no scrub."
            usage(f"{settings.config}: no mirror or scrub is named {name!r}. {has}")
        if len(found) > 1:
            usage(f"{name} is a mirror and a scrub. Use mirror:{name} or scrub:{name}.")
        return found[0], _message(found[0], config), config.notify
    except InvalidSettings as error:
        usage(str(error))


def _message(scheduled: Mirror | Scrub, config: Config) -> Message:
    if isinstance(scheduled, Mirror):
        return message_of(scheduled, config)
    # For a cron expression, whose times are in UTC.
    app = Celery(set_as_current=False)
    app.conf.update(timezone="UTC", enable_utc=True)
    return scrub_message(scheduled, config, app)


def _records(
    server: redis.Redis, message: Message, settings: Settings
) -> tuple[ScheduleLedger, Callable[[], JobSpec]]:
    """Return the records of the mirror or scrub on *server*, and the function that makes its next request."""
    if isinstance(message, MirrorMessage):
        return ScheduleLedger(server, "mirror"), lambda: message.job_spec(patience=settings.patience)
    scrubs = ScrubLedger(server)
    return scrubs, lambda: next_job(scrubs, message, settings.patience)


def _embedded(
    scheduled: Mirror | Scrub,
    message: Message,
    settings: Settings,
    show: Show,
    *,
    notify: Notify,
    state_dir: str,
    receipt_path: str | None,
    verbose: bool,
) -> int:
    """Run the job by workers of this command; return the exit code. Its records are kept in *state_dir*."""
    stores = (message.store,) if isinstance(message, ScrubMessage) else (message.source, message.destination)
    state = StateFile(state_dir, scheduled.kind, scheduled.name)
    try:
        with state.locked() as mine:
            if not mine:
                return _skipped(scheduled, "another process on this machine runs it", show)
            with embedded_fleet(settings, stores, scheduled.jobs, verbose=verbose) as (fleet, jobs):
                server = fleet.client()
                if lost := state.restore(server):
                    note(lost)
                restore_notifications(server, expected_one(scheduled).key, state.further)
                FreshnessLedger(server).expect([expected_one(scheduled)], replace=True)
                records, spec = _records(server, message, settings)
                again = _again(settings, scheduled, state_dir)
                done = queue_due(
                    jobs, records, scheduled.name, lambda: batched(fleet.divided(spec()), settings)
                )
                try:
                    code = run(
                        jobs,
                        done.job_id,
                        show,
                        check=fleet.check,
                        pause=fleet.wait_for_step,
                        receipt_path=receipt_path,
                        on_fleet=False,
                    )
                except SystemExit:
                    # Interrupted: what was read until then may count.
                    _save(state, server, notify, again)
                    raise
                return code if _save(state, server, notify, again) else EXIT_FAILED
    except StateError as error:
        usage(f"{error}. Use --state-dir DIR.")


def _again(settings: Settings, scheduled: Mirror | Scrub, state_dir: str) -> tuple[str, ...]:
    """Return the command that runs a mirror or scrub of this machine again, from any directory."""
    config = os.path.abspath(settings.config or "")
    name = f"{scheduled.kind}:{scheduled.name}"
    return ("snapferry", "run", "--config", config, "--state-dir", os.path.abspath(state_dir), name)


def _save(state: StateFile, server: redis.Redis, notify: Notify, again: Sequence[str]) -> bool:
    """
    Save the state of a run that has ended, and notify; return whether the state was saved.

    A message about a failure advises the command *again*.

    What cannot be sent now is kept with the state, and sent at the end of the next run.
    """
    ledger = Ledger(server, expires_s=_EXPIRES_S)
    settle_ended(ledger, FreshnessLedger(server))
    # Sending takes time, in which this process may be killed.
    if not _write(state, server):
        return False
    # Nothing comes after this run, so nothing is waited for.
    notifier = notifier_of(notify.model_copy(update={"wait": "0s", "interval": "0s"}), again=again)
    if notifier is None:
        return True
    notifier.round(ledger)
    return _write(state, server)


def _write(state: StateFile, server: redis.Redis) -> bool:
    try:
        state.further = export_notifications(server, f"{state.kind}:{state.name}")
        state.save(server)
    except StateError as error:
        note(f"{error}. The next run does not know of this one.")
        return False
    return True


def _skipped(scheduled: Mirror | Scrub, why: str, show: Show) -> int:
    """Tell that no job was begun, which is no failure: the run that goes on has an exit code of its own."""
    if show.as_json:
        click.echo(json.dumps({scheduled.kind: scheduled.name, "skipped": why}))
    note(f"{scheduled.kind} {scheduled.name} skipped: {why}")
    return 0
