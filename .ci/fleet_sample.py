"""
The sample store of `.ci/fleet`.

    fleet_sample.py store STORE OBJECTS REPAIR   write a snapshot of OBJECTS objects to the directory STORE. Three are
                                                 bad: missing, altered, truncated. Good copies go to REPAIR
    fleet_sample.py answers URL                  exit with 0 if the page answers
"""

from __future__ import annotations

import random
import shutil
import sys
import urllib.request
from pathlib import Path

from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.opening import open_store

OBJECT_BYTES = 4096


def make_store(store: Path, objects: int, repair: Path) -> None:
    """Fill *store* with one snapshot, and break three of its objects."""
    numbers = random.Random(1)
    entries, keys = [], []
    for number in range(objects):
        data = numbers.randbytes(OBJECT_BYTES)
        address = digest(data)
        path = store / object_key(address)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        keys.append(object_key(address))
        entries.append(Entry("F", "644", address, len(data), f"./year {number % 10}/reading-{number:06}.dat"))
    manifest = render(entries)
    open_store(str(store)).put_manifest(snapshot_id(manifest), manifest)
    gone, altered, cut = (keys[objects * part // 4] for part in (1, 2, 3))
    for key in (gone, altered, cut):
        (repair / key).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(store / key, repair / key)
    (store / gone).unlink()
    (store / altered).write_bytes(b"something else" * 100)
    (store / cut).write_bytes(b"")


def answers(url: str) -> bool:
    """Say whether *url* can be had."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def main() -> None:
    """Run one of the two commands."""
    match sys.argv[1:]:
        case ["store", store, objects, repair] if objects.isdecimal() and int(objects) >= 4:
            make_store(Path(store), int(objects), Path(repair))
        case ["answers", url]:
            sys.exit(not answers(url))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
