"""The command line as it was typed: to run it again, and for the commands that a message names."""

from __future__ import annotations

import sys

import click
from click.core import ParameterSource

from snapferry.orchestrator.reporting.advice import Advice
from snapferry.workers.settings.broker_url import shown


def typed() -> tuple[str, ...]:
    """Return the arguments of this command line, the program's name first."""
    return ("snapferry", *sys.argv[1:])


def with_fleet(advice: Advice) -> Advice:
    """
    Return *advice* with a command that finds the fleet of this one.

    A --broker of this command line is repeated, unless its URL has a password or parameters.
    """
    ctx = click.get_current_context(silent=True)
    if (
        not advice.argv
        or ctx is None
        or ctx.get_parameter_source("broker") is not ParameterSource.COMMANDLINE
    ):
        return advice
    url = str(ctx.params["broker"])
    return advice.with_options("--broker", url) if shown(url) == url else advice


def job_command(name: str, job_id: str) -> str:
    """Return the command *name* for a job of this command's fleet, for a shell."""
    return with_fleet(Advice("", ("snapferry", name, job_id))).command
