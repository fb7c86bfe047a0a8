"""What SIGTERM does to a command that has not begun."""

from __future__ import annotations

import subprocess
import sys

from snapferry.orchestrator.cli.exit_codes import EXIT_TERMINATED

SIGNALLED_DURING_IMPORTS = """
import os, signal
from snapferry.orchestrator import cli
def signalled(name):
    os.kill(os.getpid(), signal.SIGTERM)
cli.group.import_module = signalled
cli.main()
"""


def test_sigterm_ends_a_command_while_it_is_imported() -> None:
    """By a handler: without one, the first process of a container ignores the signal."""
    ended = subprocess.run([sys.executable, "-c", SIGNALLED_DURING_IMPORTS, "worker"], check=False)
    assert ended.returncode == EXIT_TERMINATED
