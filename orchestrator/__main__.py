"""``python -m orchestrator`` is the command ``snapferry``."""

from .cli import main

main()
