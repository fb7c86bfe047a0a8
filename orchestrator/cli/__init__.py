"""
The command line: arguments, exit codes, printing. It decides nothing.

    group         the commands by section
    commands/     their declarations: names, options, help
    options/      their options, and how values are read
    run/          their bodies
    completion/   what TAB offers in bash, zsh and fish
    inputs/       what a body makes of its options
    settings      the settings of a command
    fleet_access  the fleet of a command's broker
    launch        run a job for a command, by a fleet or by an embedded one
    follow        a job until its end
    receipt_file  the file of --receipt
    table         rows, aligned
    output/       lines and JSON lists of any length; what a long read has done so far
    exit_codes    how a command ends
    command_line  the command line as it was typed
    chosen        the options that every command has
    lazy          imports a declaration or a body when it is used

Declarations import no library but click. So help pages, the completion of commands and options, and errors that click
finds in the command line cost no import of Celery. A body's module imports all that the body needs at its beginning.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

import click

from snapferry.workers.lifecycle.process_setup import set_up_process

from .exit_codes import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USAGE, discard, end_on_sigterm, fail, usage
from .group import cli


def console() -> NoReturn:
    """
    Run the command line and end the process; the console script.

    The process skips the end of the interpreter, which visits all modules: many commands take less time than that.
    """
    try:
        main()
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise
        # The interpreter, too, would first wait for threads, such as those that send messages.
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(end.code or 0)


def main() -> NoReturn:
    """Run the command line, and raise `SystemExit`. Bad usage is one line and exit code 2."""
    end_on_sigterm(EXIT_TERMINATED)
    _open_standard_streams()
    set_up_process()
    try:
        code = cli.main(prog_name="snapferry", standalone_mode=False)
        # The interpreter flushes it too, but ends with an exit code of its own where that fails.
        sys.stdout.flush()
        # A command returns its exit code.
        sys.exit(code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(EXIT_USAGE) from None
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "snapferry"
        # click puts suggestions on lines of their own.
        message = " ".join(line.strip() for line in error.format_message().splitlines())
        if "(Did you mean " in message:
            # Several suggestions are in brackets, one is not.
            message = message.replace("(Did you mean ", "Did you mean ").removesuffix(")")
        if (
            isinstance(error, click.NoSuchOption)
            and error.ctx
            and _has_a_command(error.ctx, error.option_name)
        ):
            message += f" Write options of a command after it: {command} COMMAND {error.option_name}"
        end = "" if message.endswith((".", "?")) else "."
        usage(f"{message}{end} See: {command} --help")
    except click.ClickException as error:
        usage(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(EXIT_INTERRUPTED) from None
    except OSError as error:
        # Errors of stores and brokers are translated long before: this is about the output.
        discard(1)
        fail(f"cannot write the output: {error.strerror or error}")
    finally:
        # The interpreter collects garbage as it ends, and would visit all that was imported.
        gc.freeze()


def _has_a_command(ctx: click.Context, option: str) -> bool:
    """Return whether *ctx* is that of all commands, and one of them has *option*."""
    if ctx.parent is not None:
        return False
    commands = (cli.get_command(ctx, name) for name in cli.list_commands(ctx))
    return any(option in parameter.opts for command in commands if command for parameter in command.params)


def _open_standard_streams() -> None:
    """
    Open /dev/null for each standard stream that is closed: the next file opened would take its number.

    A character that the output's encoding lacks is escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)
            # Celery uses the original streams as well.
            vars(sys).update({name: stream, f"__{name}__": stream})
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
