"""Export, import and recover jobs: the bodies of jobs export, jobs import and jobs recover."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Final

import click
from redis.exceptions import RedisError

from snapferry.orchestrator.cli.exit_codes import fail, note, usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.recovery.collect import as_text, export
from snapferry.orchestrator.recovery.document import Export, InvalidExport
from snapferry.orchestrator.recovery.files import read_export, write_file
from snapferry.orchestrator.recovery.restore import End, Restored, import_export, recover
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import Ledger

_TEXTS: Final = {
    End.RECORDED: "ended job recorded",
    End.KNOWN: "job known already",
    End.OPEN: "job not ended and not submitted",
    End.SUBMITTED: "job submitted again",
    End.SCHEDULED: "job left to the next run of its mirror or scrub",
    End.DELETES: "job not submitted, because it deletes or overwrites",
}
"""What was done with the jobs, of which there are so many; the first word has a plural."""


def export_jobs(path: str, open_only: bool, as_json: bool, broker: str | None) -> int:
    settings = read_settings(broker)
    with on_fleet(settings, advice="") as jobs, jobs.records() as client:
        document = export(Ledger(client, expires_s=settings.job_expires), open_only=open_only)
    text = as_text(document)
    if path == "-":
        click.echo(text, nl=False)
    else:
        try:
            write_file(Path(path).absolute(), text)
        except OSError as error:
            usage(f"cannot write {path}: {error.strerror or error}")
        found = {"jobs": len(document.jobs), "schedules": len(document.schedules), "file": path}
        words = f"{_jobs(document)} and {_schedules(document)} written to {path}"
        click.echo(json.dumps(found) if as_json else words)
    if document.unreadable:
        note(
            f"{counted(document.unreadable, 'job')} left out: the records are damaged, or of another version"
        )
    return 0


def import_jobs(path: str, as_json: bool, broker: str | None) -> int:
    document, settings = _read(path), read_settings(broker)
    with on_fleet(settings, advice="") as jobs:
        found = _imported(jobs, document, settings.job_expires)
        _print(document, found, as_json=as_json)
    if any(one.end is End.OPEN for one in found):
        note(f"to submit those that had not ended: snapferry jobs recover {path}")
    return 0


def recover_jobs(path: str, deleting: bool, as_json: bool, broker: str | None) -> int:
    document, settings = _read(path), read_settings(broker)

    def tell(one: Restored) -> None:
        if not as_json:
            click.echo(one.job_id)

    with on_fleet(settings, advice="Run the same command again.") as jobs:
        imported = _imported(jobs, document, settings.job_expires)
        found = recover(jobs, imported, deleting=deleting, begun=tell)
        _print(document, found, as_json=as_json)
    for one in found:
        if one.end is End.DELETES:
            note(f"job {one.job_id} was not submitted: it deletes or overwrites. To submit it: --deleting")
        elif one.end is End.SCHEDULED:
            name = one.job.schedule
            note(f"job {one.job_id} is left to the next run of {name}. To run it now: snapferry run {name}")
    return 0


def _read(path: str) -> Export:
    try:
        return read_export(path)
    except OSError as error:
        usage(f"cannot read {path}: {error.strerror or os.strerror(error.errno or 0)}")
    except InvalidExport as error:
        usage(f"{path} cannot be imported: {error}. Nothing was imported.")


def _imported(jobs: Jobs, document: Export, expires_s: int) -> list[Restored]:
    with jobs.records() as client:
        try:
            return import_export(Ledger(client, expires_s=expires_s), document)
        except RedisError as error:
            fail(f"the import ended early: {printable(str(error))}. Run the same command again.")


def _print(document: Export, found: list[Restored], *, as_json: bool) -> None:
    if as_json:
        jobs = [{"job": one.job_id, "done": one.end.value} for one in found]
        click.echo(json.dumps({"jobs": jobs, "schedules": len(document.schedules)}, indent=2))
        return
    counts = Counter(one.end for one in found)
    parts = [f"{count:,} {_plural(_TEXTS[end], count)}" for end, count in counts.items()]
    note("; ".join([*parts, f"{_schedules(document)} merged"]))


def _plural(words: str, count: int) -> str:
    return words if count == 1 else words.replace("job", "jobs", 1)


def _jobs(document: Export) -> str:
    return counted(len(document.jobs), "job")


def _schedules(document: Export) -> str:
    return counted(len(document.schedules), "schedule")
