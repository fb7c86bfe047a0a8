"""The commands about the program itself: completion and version."""

from __future__ import annotations

from typing import Final

import click

from snapferry.orchestrator.cli.options.common import json_option
from snapferry.orchestrator.cli.options.declare import argument, command


@command(run="shell:version")
@json_option
def version() -> None:
    """Print the version."""


COMPLETION_EXAMPLES: Final = """
Examples:

\b
  bash, for each new shell:
    echo 'eval "$(snapferry completion bash)"' >> ~/.bashrc

\b
  bash with the package bash-completion, for all users:
    snapferry completion bash > /etc/bash_completion.d/snapferry

\b
  zsh; the line must come after compinit:
    echo 'eval "$(snapferry completion zsh)"' >> ~/.zshrc

\b
  fish:
    snapferry completion fish > ~/.config/fish/completions/snapferry.fish
"""


@command(run="shell:completion", epilog=COMPLETION_EXAMPLES)
@argument(
    "shell",
    type=click.Choice(["bash", "zsh", "fish"]),
    metavar="SHELL",
    text="bash, zsh or fish.",
)
def completion() -> None:
    """
    Print the completion script of a shell.

    With the script, TAB completes commands and options; the names of stores,
    mirrors and scrubs in snapferry.toml; the ids of jobs, with their states; and
    the snapshots of the store that the command line names.

    TAB never waits longer than 1.5 seconds for a store or for Redis. Set
    SNAPFERRY_COMPLETION_TIMEOUT to another number of seconds.
    """
