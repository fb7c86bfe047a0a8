"""Print a file of a snapshot."""

from __future__ import annotations

import sys

from snapferry.orchestrator.cli.inputs.opened_store import opened, reading
from snapferry.orchestrator.cli.inputs.snapshot_ids import snapshot_of
from snapferry.orchestrator.cli.settings import read_settings
from snapferry.stores.address import parse_address
from snapferry.stores.inspection.content import streamed, verified
from snapferry.stores.inspection.paths import file_at


def cat(store: str, snapshot: str, path: str, objects: str | None, stream: bool) -> int:
    with reading():
        place = opened(read_settings(None), store, objects)
        with place.read_manifest(snapshot_of(place, snapshot)) as manifest:
            entry = file_at(manifest, path)
        address = parse_address(entry.checksum)
        output = sys.stdout.buffer
        if stream:
            streamed(place, address, entry.size, output.write)
        else:
            with verified(place, address, entry.size) as pieces:
                output.writelines(pieces)
        output.flush()
    return 0
