"""The group `snapferry`: its commands by section, each imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import click
from click.shell_completion import CompletionItem

from .completion import shells as _shells  # noqa: F401 - click finds the shells that it registers
from .lazy import load
from .options.declare import SETTINGS, Suggesting, examples


@dataclass(frozen=True)
class Lazy:
    """A command: *attribute* of the module `commands.`*module*; *summary* is its line in the list of commands."""

    module: str
    attribute: str
    summary: str


SECTIONS: Final[Mapping[str, Mapping[str, Lazy]]] = {
    "Copy": {
        "sync": Lazy("copy", "sync", "Copy snapshots between two stores"),
        "plan": Lazy("copy", "plan", "Show what a sync would copy and cost, without copying"),
        "submit": Lazy("copy", "submit", "Queue a sync job and print its id"),
        "run": Lazy("schedules", "run_once", "Run a mirror or scrub of snapferry.toml once"),
    },
    "Directories": {
        "push": Lazy("actions.push", "push", "Make a snapshot of a directory in a store, and print its id"),
        "pull": Lazy("actions.pull", "pull", "Restore a snapshot into a directory"),
    },
    "Stores": {
        "ls": Lazy("look", "list_snapshots", "List the snapshots in a store"),
        "size": Lazy("look", "size", "Show the size of a store or of a snapshot"),
        "diff": Lazy("look", "diff", "Show what differs between two snapshots or two stores"),
        "show": Lazy("look", "show", "Show the files and directories of a snapshot"),
        "cat": Lazy("look", "cat", "Print a file of a snapshot"),
        "orphans": Lazy("look", "orphans", "List objects that no manifest names"),
        "tag": Lazy("names", "tag", "Name a snapshot, or list the names of a store"),
        "untag": Lazy("names", "untag", "Remove a name from a store"),
    },
    "Data at rest": {
        "verify": Lazy("actions.verify", "verify", "Read the objects of a store again, and find damage"),
        "heal": Lazy("actions.heal", "heal", "Repair a store with objects of other stores"),
    },
    "Jobs": {
        "cancel": Lazy("control", "cancel", "Stop a job"),
        "pause": Lazy("control", "pause", "Pause a job"),
        "continue": Lazy("control", "continue_job", "Continue a paused job"),
        "resume": Lazy("control", "resume", "Resume a cancelled or failed job as a new job"),
        "retry": Lazy("control", "retry", "Try the failed objects of a job again"),
        "dismiss": Lazy("control", "dismiss", "Dismiss a failed job that nobody will repair"),
        "priority": Lazy("control", "priority", "Change the priority of a job"),
        "limit": Lazy("limit", "limit", "Limit the throughput of a job or a store"),
    },
    "Inspect": {
        "jobs": Lazy("inspect", "list_jobs", "List jobs; export, import and recover their records"),
        "status": Lazy("inspect", "status", "Show the state of a job"),
        "watch": Lazy("inspect", "watch", "Follow a job until it ends"),
        "failures": Lazy("inspect", "failures", "List the failed objects of a job"),
        "receipt": Lazy("inspect", "receipt", "Print the receipt of a job as JSON"),
        "mirrors": Lazy("schedules", "list_mirrors", "List the mirrors of snapferry.toml"),
        "scrubs": Lazy("schedules", "list_scrubs", "List the scrubs of snapferry.toml"),
        "doctor": Lazy("doctor", "doctor", "Check a fleet and stores for problems"),
    },
    "Fleet": {
        "worker": Lazy("fleet", "worker", "Run a worker, which copies objects"),
        "orchestrator": Lazy("fleet", "orchestrator", "Run an orchestrator, which plans and publishes jobs"),
        "scheduler": Lazy(
            "schedules", "scheduler", "Run the scheduler, which queues mirrors and scrubs when due"
        ),
        "notify": Lazy("schedules", "notify", "Show who is notified of failures, and send a test"),
        "dashboard": Lazy("dashboard", "dashboard", "Serve the dashboard, web pages about jobs"),
        "flower": Lazy("flower", "flower", "Serve Flower, web pages about every task"),
    },
    "Shell": {
        "completion": Lazy("shell", "completion", "Print the completion script of a shell"),
        "version": Lazy("shell", "version", "Print the version"),
    },
}

COMMANDS: Final = {name: lazy for section in SECTIONS.values() for name, lazy in section.items()}


class LazyGroup(Suggesting):
    """The group of `SECTIONS`. Its help page and the completion of command names import no command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; this imports its declaration."""
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        found: click.Command = load(f"commands.{lazy.module}:{lazy.attribute}")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into *formatter*, by section."""
        width = max(map(len, COMMANDS))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), lazy.summary) for name, lazy in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands whose names begin with *incomplete*, and matching options."""
        found = [
            CompletionItem(name, help=lazy.summary)
            for name, lazy in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


EXAMPLES: Final = examples(
    ("Make a snapshot of a directory in a store", "snapferry push ~/photos /srv/store --tag photos"),
    (
        "Copy all snapshots and their names to a bucket",
        "snapferry sync /srv/store s3://backup/store --all --names",
    ),
    ("Check that a copy is intact", "snapferry verify s3://backup/store --all"),
    ("Restore a snapshot", "snapferry pull s3://backup/store --id photos@ ~/restored"),
    codes={
        0: "done",
        1: "the job failed, or what was asked for could not be done",
        2: "bad usage or configuration; nothing was begun",
        130: "interrupted",
    },
)


@click.group(cls=LazyGroup, context_settings=SETTINGS, epilog=EXAMPLES)
@click.version_option(
    package_name="snapferry", message="snapferry %(version)s", help="Print the version and exit."
)
def cli() -> None:
    """
    Copy snapshots between content-addressed stores, and make, restore, verify
    and repair them.

    A snapshot is a manifest and the objects that it names by their BLAKE3 digests.
    A store is a directory or an S3 bucket in the format of snapdir. A manifest is
    written last, after the destination has confirmed each of its objects.

    A command works on this machine alone, or on a fleet of workers that share a
    Redis server. Every command has a help page: snapferry COMMAND --help
    """
