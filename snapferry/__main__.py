"""``python -m snapferry`` is the command ``snapferry``."""

from .orchestrator.cli import console

console()
