"""Commands about the program itself."""

from __future__ import annotations

import json
from importlib.metadata import version as version_of

import click

from snapferry.orchestrator.cli.completion.shells import script


def version(as_json: bool) -> int:
    found = version_of("snapferry")
    click.echo(json.dumps({"version": found}) if as_json else f"snapferry {found}")
    return 0


def completion(shell: str) -> None:
    click.echo(script(shell), nl=False)
