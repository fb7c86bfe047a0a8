"""Show who is notified and what waits to be sent, and send a test message."""

from __future__ import annotations

import json
import secrets
import socket
from typing import Any

import click

from snapferry.orchestrator.cli.exit_codes import EXIT_FAILED, note, usage
from snapferry.orchestrator.cli.fleet_access import on_fleet
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.orchestrator.notify.notifier import NOT_INSTALLED
from snapferry.orchestrator.notify.plain import plain
from snapferry.orchestrator.notify.records import NotificationLedger, PendingMessage, Problem
from snapferry.orchestrator.notify.send import is_installed, send
from snapferry.orchestrator.notify.texts import Text
from snapferry.orchestrator.reporting.text.format import moment, span
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.broker.connection import client
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings
from snapferry.workers.settings.notify_table import Notify, label_of, receivers


def notify(test: bool, as_json: bool, broker: str | None) -> int:
    settings = read_settings(broker)
    try:
        table = (read_config(settings.config) if settings.config else Config()).notify
        urls = receivers(table)
    except InvalidSettings as error:
        usage(str(error))
    if test:
        return _test(table, urls, as_json=as_json)
    if settings.broker_url is None:
        waiting, problems = None, None
    else:
        waiting, problems = _records(settings)
    document = _document(table, urls, waiting, problems)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(table, document)
    if urls and not is_installed():
        note(NOT_INSTALLED)
    return 0


def _test(table: Notify, urls: tuple[str, ...], *, as_json: bool) -> int:
    if not urls:
        usage(_NOBODY)
    if not is_installed():
        usage(NOT_INSTALLED)
    text = Text(
        id=secrets.token_hex(6),
        title=f"{table.fleet}: test message",
        body=plain(
            f"This is a test of the notifications, sent by a user on {socket.gethostname()}. All is well."
        ),
        kind="info",
    )
    sent = {label_of(number, url): send(url, text) for number, url in enumerate(urls, 1)}
    if as_json:
        found = [{"receiver": label, "sent": one.ok, "reason": one.reason} for label, one in sent.items()]
        click.echo(json.dumps({"receivers": found}, indent=2))
    else:
        for label, one in sent.items():
            click.echo(f"receiver {label}: {'sent' if one.ok else f'not sent: {printable(one.reason)}'}")
    return 0 if all(one.ok for one in sent.values()) else EXIT_FAILED


_WITHOUT_BROKER = (
    "without a broker, snapferry run sends at the end of each run, and keeps what could not be sent in its state"
    " directory. For what waits on a fleet, set SNAPFERRY_BROKER_URL."
)
_NOBODY = (
    "nobody is notified: name a file with addresses of Apprise as urls-file under [notify] in snapferry.toml,"
    " or set SNAPFERRY_NOTIFY_URLS (docs/notify.md)"
)


def _records(settings: Settings) -> tuple[list[PendingMessage], dict[str, Problem]]:
    with on_fleet(settings, advice=""):
        records = NotificationLedger(client(settings.broker_url or ""))
        return records.waiting(), records.problems()


def _document(
    table: Notify,
    urls: tuple[str, ...],
    waiting: list[PendingMessage] | None,
    problems: dict[str, Problem] | None,
) -> dict[str, Any]:
    repeat = table.repeat_s
    return {
        "receivers": [label_of(number, url) for number, url in enumerate(urls, 1)],
        "events": [str(event) for event in table.events],
        "jobs": table.jobs,
        "repeat_seconds": None if repeat == float("inf") else repeat,
        "wait_seconds": table.wait_s,
        "interval_seconds": table.interval_s,
        "waiting": None
        if waiting is None
        else [
            {
                "id": one.id,
                "title": one.title,
                "made": moment(one.made_at),
                "left": [
                    {"receiver": label, "tries": left.tries, "next": moment(left.next_at)}
                    for label, left in one.left.items()
                ],
            }
            for one in waiting
        ],
        "problems": None
        if problems is None
        else [
            {
                "subject": subject,
                "failed": moment(one.failed),
                "late": moment(one.late),
                "told": moment(one.told),
                "job": one.job or None,
            }
            for subject, one in sorted(problems.items())
        ],
    }


def _print(table: Notify, document: dict[str, Any]) -> None:
    if not document["receivers"]:
        note(_NOBODY)
    for label in document["receivers"]:
        click.echo(f"receiver {label}")
    of = "all jobs" if table.jobs == "all" else "jobs of mirrors and scrubs"
    repeat = "never again" if document["repeat_seconds"] is None else f"again after {span(table.repeat_s)}"
    click.echo(f"told: {', '.join(document['events']) or 'nothing'}, of {of}; what persists is told {repeat}")
    if document["waiting"] is None:
        note(_WITHOUT_BROKER)
        return
    for one in document["problems"]:
        what = " and ".join(word for word in ("failed", "late") if one[word])
        click.echo(printable(f"problem: {one['subject']} {what}, told {one['told']}"))
    for one in document["waiting"]:
        tries = sum(left["tries"] for left in one["left"])
        receivers_left = ", ".join(left["receiver"] for left in one["left"])
        click.echo(
            printable(f"waits: {one['title']} (to {receivers_left}, after {counted(tries, 'try', 'tries')})")
        )
    if not document["waiting"]:
        click.echo("no message waits to be sent")
