"""Commands about the program itself."""

from __future__ import annotations

import json
from importlib.metadata import version as version_of

import click
from click.shell_completion import get_completion_class


def version(as_json: bool) -> int:
    found = version_of("snapferry")
    click.echo(json.dumps({"version": found}) if as_json else f"snapferry {found}")
    return 0


def completion(shell: str) -> None:
    """Print the completion script of *shell*."""
    found = get_completion_class(shell)
    assert found is not None  # click.Choice accepts no other shell
    program = click.get_current_context().find_root().command
    click.echo(found(program, {}, "snapferry", "_SNAPFERRY_COMPLETE").source())
