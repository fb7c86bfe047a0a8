"""The commands about the program itself: completion and version."""

from __future__ import annotations

import click

from snapferry.orchestrator.cli.options.common import json_option
from snapferry.orchestrator.cli.options.declare import argument, command


@command(run="shell:version")
@json_option
def version() -> None:
    """Print the version."""


@command(run="shell:completion")
@argument(
    "shell",
    type=click.Choice(["bash", "zsh", "fish"]),
    metavar="SHELL",
    text="bash, zsh or fish.",
)
def completion(shell: str) -> None:
    """
    Print the completion script of a shell.

    \b
      bash:  eval "$(snapferry completion bash)"        in ~/.bashrc
      zsh:   eval "$(snapferry completion zsh)"         in ~/.zshrc
      fish:  snapferry completion fish | source         in config.fish
    """
