"""
The floor of verify, pull and push: the least that anybody must do, and nothing else.

    python -m benchmarks.one_sided verify OBJECTS STORE
    python -m benchmarks.one_sided pull OBJECTS STORE TREE
    python -m benchmarks.one_sided push TREE STORE

Each object is read once, hashed once, and written once where it is written, on all cores: nothing is asked, checked or
flushed. STORE is a directory, or the URL of a bucket (http://HOST:PORT/BUCKET), whose objects are read and written over
plain sockets. OBJECTS is a file of lines "KEY PATH", as `objects_of` returns them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from snapferry.stores.address import object_key, parse_address

from .floor import Plain, on_all_cores, on_connections, read_file, write_file
from .measure import say_seconds


class _Objects(Protocol):
    def get(self, key: str) -> bytes: ...

    def put(self, key: str, data: bytes) -> None: ...


class _Directory:
    def __init__(self, root: str) -> None:
        self._root = root

    def get(self, key: str) -> bytes:
        return read_file(f"{self._root}/{key}")

    def put(self, key: str, data: bytes) -> None:
        write_file(f"{self._root}/{key}", data)


class _Bucket:
    def __init__(self, client: Plain, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        return self._client.get(self._bucket, key)

    def put(self, key: str, data: bytes) -> None:
        self._client.put(self._bucket, key, data)


def objects_of(store: Path) -> str:
    """Return a line "KEY PATH" for each file of the one manifest of the store in the directory *store*."""
    (manifest,) = (path for path in (store / ".manifests").rglob("*") if path.is_file())
    entries = (line.split(" ", 4) for line in manifest.read_text().splitlines())
    return "\n".join(
        f"{object_key(parse_address(entry[2]))} {entry[4]}" for entry in entries if entry[0] == "F"
    )


def _each(lines: Sequence[str], store: str, do: Callable[[_Objects, str], None]) -> None:
    if not store.startswith("http://"):
        directory = _Directory(store)

        def on_files(part: Sequence[str]) -> None:
            for line in part:
                do(directory, line)

        on_all_cores(lines, on_files)
        return
    endpoint, _, bucket = store.rpartition("/")

    def one(client: Plain, line: str) -> None:
        do(_Bucket(client, bucket), line)

    on_all_cores(lines, lambda part: on_connections(endpoint, part, one))


def _verify(objects: _Objects, line: str) -> None:
    blake3(objects.get(line.partition(" ")[0])).digest()


def _pull(tree: str) -> Callable[[_Objects, str], None]:
    def pull(objects: _Objects, line: str) -> None:
        key, _, path = line.partition(" ")
        data = objects.get(key)
        blake3(data).digest()
        write_file(f"{tree}/{path}", data)

    return pull


def _push(objects: _Objects, path: str) -> None:
    data = read_file(path)
    objects.put(object_key(parse_address(blake3(data).hexdigest())), data)


def main() -> None:
    match sys.argv[1:]:
        case ["verify", objects, store]:
            _each(Path(objects).read_text().splitlines(), store, _verify)
        case ["pull", objects, store, tree]:
            _each(Path(objects).read_text().splitlines(), store, _pull(tree))
        case ["push", tree, store]:
            files = [str(path) for path in Path(tree).rglob("*") if path.is_file()]
            _each(files, store, _push)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    say_seconds(main)
