"""The commands about the program itself: completion and version."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from snapferry.orchestrator.cli.options.common import json_option
from snapferry.orchestrator.cli.options.declare import argument, command


@command(run="shell:version")
@json_option
def version() -> None:
    """Print the version."""


@command()
@argument(
    "shell",
    type=click.Choice(["bash", "zsh", "fish"]),
    metavar="SHELL",
    text="bash, zsh or fish.",
)
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """
    Print the completion script of a shell.

    \b
      bash:  eval "$(snapferry completion bash)"        in ~/.bashrc
      zsh:   eval "$(snapferry completion zsh)"         in ~/.zshrc
      fish:  snapferry completion fish | source         in config.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # click.Choice accepts no other shell
    click.echo(found(ctx.find_root().command, {}, "snapferry", "_SNAPFERRY_COMPLETE").source())
