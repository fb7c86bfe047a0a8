"""List the snapshots of a store."""

from __future__ import annotations

import click

from snapferry.orchestrator.cli.exit_codes import fail, note, usage
from snapferry.orchestrator.cli.inputs.store_names import store_url
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.stores.access import TRUSTED, Right, shown
from snapferry.stores.errors import InvalidStoreURL, StoreError
from snapferry.stores.opening import open_store
from snapferry.stores.urls import parse_url
from snapferry.workers.settings.environment import store_options


def list_snapshots(store: str) -> None:
    try:
        url = parse_url(store_url(read_settings(None), store)).with_defaults(**store_options("from"))
        found = False
        for snapshot in open_store(str(url), None, Right.READ, access=TRUSTED).manifest_ids():
            found = True
            click.echo(snapshot)
        if not found:
            note(f"no snapshots in {shown(url)}")
    except InvalidStoreURL as error:
        usage(str(error))
    except StoreError as error:
        fail(f"{type(error).__name__}: {error}")
