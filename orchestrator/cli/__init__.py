"""
The command line: arguments, exit codes, printing. It decides nothing.

    exit_codes    how a command ends
    options       what several commands take
    snapshot_ids  which snapshots are meant
    store_names   which store is meant
    follow        a job until its end
    table         rows, aligned
    commands/     the commands

Libraries that only some commands need are imported inside them: ``--help``
should not wait for Celery.
"""

from __future__ import annotations

import io
import os
import sys

import click

from snapferry.workers.lifecycle.process_setup import settle

from .commands import control, copy, dashboard, doctor, fleet, flower, inspect, limit, mirrors
from .exit_codes import EXIT_INTERRUPTED, EXIT_USAGE, fail, note, read_settings, usage
from .store_names import store_url


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(
    package_name="snapferry", message="snapferry %(version)s", help="Print the version and exit."
)
def cli() -> None:
    """
    Copy snapshots between content-addressed stores.

    A snapshot is a manifest and the objects that it names by BLAKE3 checksum.
    Stores are directories or S3 buckets in the format of snapdir. The manifest
    is written last, after every object was seen at the destination.
    """


for _command in (
    copy.sync,
    copy.submit,
    copy.plan,
    inspect.list_jobs,
    inspect.status,
    inspect.watch,
    inspect.failures,
    inspect.receipt,
    control.cancel,
    control.pause,
    control.continue_job,
    control.priority,
    control.retry,
    control.resume,
    limit.limit,
    fleet.worker,
    fleet.orchestrator,
    flower.flower,
    mirrors.list_mirrors,
    mirrors.scheduler,
    dashboard.dashboard,
    doctor.doctor,
):
    cli.add_command(_command)


@cli.command(name="ls")
@click.argument("store", metavar="URL")
def list_snapshots(store: str) -> None:
    """List the snapshot ids of a store, one a line, sorted."""
    from snapferry.stores.access import TRUSTED, Right, shown
    from snapferry.stores.errors import InvalidStoreURL, StoreError
    from snapferry.stores.opening import open_store
    from snapferry.stores.urls import parse_url
    from snapferry.workers.settings.environment import store_options

    try:
        url = parse_url(store_url(read_settings(None), store)).with_defaults(**store_options("from"))
        found = False
        for snapshot in open_store(str(url), None, Right.READ, access=TRUSTED).manifest_ids():
            found = True
            click.echo(snapshot)
        if not found:
            note(f"there are no manifests at {shown(url)}")
    except InvalidStoreURL as error:
        usage(str(error))
    except StoreError as error:
        fail(f"{type(error).__name__}: {error}")


@cli.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    click.echo(f"snapferry {version_of('snapferry')}")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the completion script of a shell.

    \b
      bash:  eval "$(snapferry completion bash)"        in ~/.bashrc
      zsh:   eval "$(snapferry completion zsh)"         in ~/.zshrc
      fish:  snapferry completion fish | source         in config.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # click.Choice lets nothing else through
    click.echo(found(cli, {}, "snapferry", "_SNAPFERRY_COMPLETE").source())


def main() -> None:
    """Run the command line; the console script. Bad usage is one line and exit code 2."""
    _open_standard_streams()
    settle()
    try:
        # What a command returns is its exit code.
        sys.exit(cli.main(prog_name="snapferry", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(EXIT_USAGE) from None
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "snapferry"
        # What can be chosen comes on lines of its own.
        said = " ".join(line.strip() for line in error.format_message().splitlines())
        usage(f"{said} See: {command} --help")
    except click.ClickException as error:
        usage(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        # What stores and brokers raise is translated long before; this is the output that cannot be written.
        fail(f"the output cannot be written: {error.strerror or error}")


def _open_standard_streams() -> None:
    """
    Put /dev/null where a standard stream is closed: the next file opened would be taken for it.

    A character that the output's encoding does not have is escaped, and ends no command.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)
            # Celery asks for the original streams as well.
            vars(sys).update({name: stream, f"__{name}__": stream})
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
