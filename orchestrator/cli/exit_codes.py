"""
How a command ends: exit codes, messages on standard error, and signals.

0 done; 1 the job failed, or its receipt could not be written; 2 bad usage or configuration, nothing was begun;
130 interrupted; 143 ended by SIGTERM before the command began.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Final, NoReturn

import click

from snapferry.stores.text.printable import printable

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 128 + signal.SIGTERM

# Pause before a role restarts itself.
RESTART_S: Final = 5

RUN_AGAIN: Final = "Run the same command again to resume."


def note(message: str) -> None:
    """Print *message* on standard error, beside the result."""
    lines = message.split("\n")
    try:
        click.echo("\n".join(printable(line) for line in [f"snapferry: {lines[0]}", *lines[1:]]), err=True)
    except OSError:
        # Nobody can be told. The exit code still tells how the command ended.
        discard(2)


def discard(stream: int) -> None:
    """
    Send what the standard stream number *stream* still buffers to /dev/null, after a write to it failed.

    Otherwise the interpreter writes it once more at its end, and replaces the command's exit code.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream)
    os.close(null)


def usage(message: str) -> NoReturn:
    """End the command with `EXIT_USAGE`: it was called wrongly, and nothing was begun."""
    note(message)
    raise SystemExit(EXIT_USAGE)


def fail(message: str) -> NoReturn:
    """End the command with `EXIT_FAILED`."""
    note(message)
    raise SystemExit(EXIT_FAILED)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, where `interrupt_on_sigterm` makes it do what Ctrl-C does."""


def interrupt_on_sigterm() -> None:
    """Make SIGTERM do what Ctrl-C does. It raises `Terminated`."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, interrupt)


def end_on_sigterm(code: int = 0) -> None:
    """
    Make SIGTERM end this process with exit code *code* until Celery, or the command, installs its own handler.

    Without a handler, SIGTERM does not end the first process of a container at all.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))


def restart(reason: str) -> NoReturn:
    """Replace this process by the same command after `RESTART_S` seconds: a new process has no stale state."""
    note(f"{reason}; restarting in {RESTART_S} s")
    time.sleep(RESTART_S)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same command again
