"""What SIGTERM does to a command that has not begun."""

from __future__ import annotations

import subprocess
import sys

import pytest

from snapferry.orchestrator.cli.exit_codes import EXIT_INTERRUPTED, EXIT_TERMINATED

# SIGTERM arrives while a command's declaration or its body is imported, as the first argument names it.
SIGNALLED_DURING_IMPORTS = """
import os, signal, sys
from importlib import import_module
from snapferry.orchestrator import cli
part = f".{sys.argv.pop(1)}."
def signalled(name):
    if part in name:
        os.kill(os.getpid(), signal.SIGTERM)
    return import_module(name)
cli.lazy.import_module = signalled
cli.main()
"""

SYNC = ["sync", "--from", "/nowhere", "--to", "/nowhere", "--all"]


@pytest.mark.parametrize("part", ["commands", "run"])
@pytest.mark.parametrize("command", [["worker"], ["jobs"]], ids=lambda command: command[0])
def test_sigterm_ends_a_command_while_it_is_imported(part: str, command: list[str]) -> None:
    """By a handler: without one, the first process of a container ignores the signal."""
    ended = subprocess.run([sys.executable, "-c", SIGNALLED_DURING_IMPORTS, part, *command], check=False)
    assert ended.returncode == EXIT_TERMINATED


def test_sigterm_interrupts_a_copy_while_its_body_is_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", SIGNALLED_DURING_IMPORTS, "run", *SYNC], check=False)
    assert ended.returncode == EXIT_INTERRUPTED
