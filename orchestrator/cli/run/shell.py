"""Commands about the program itself."""

from __future__ import annotations

import json
from importlib.metadata import version as version_of

import click


def version(as_json: bool) -> int:
    found = version_of("snapferry")
    click.echo(json.dumps({"version": found}) if as_json else f"snapferry {found}")
    return 0
