"""The command that lists the snapshots of a store: ls."""

from __future__ import annotations

from snapferry.orchestrator.cli.options.declare import argument, command


@command(run="ls:list_snapshots", name="ls")
@argument("store", metavar="STORE", text="URL of the store, or its name in snapferry.toml.")
def list_snapshots() -> None:
    """List the snapshot ids in a store, sorted, one per line."""
