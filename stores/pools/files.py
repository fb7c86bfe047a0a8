"""Snapshots from a tree of files into a store, and back."""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from snapferry.stores.address import Address, parse_address
from snapferry.stores.errors import KeyMissing, ManifestSyntaxError, ObjectMissing, StoreNotFound
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.manifest.entry import Entry
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import FileTree, StreamStore
from snapferry.stores.streams import OpenReader, Upload

from .streaming import Transfer, stage

CHANGED = "the file does not match the manifest"


def push_objects(
    manifest: Manifest, source: FileTree, target: StreamStore, upload: Callable[[Address, int], Upload]
) -> None:
    """
    Bring the objects of *manifest* that *target* lacks to it from *source*. *upload* begins to write one of them.

    Raises as `StreamStore.push` does.
    """
    missing = target.absent(manifest.addresses())
    for entry in manifest.entries():
        if entry.type != "F" or not len(missing):
            continue
        # An object that several files share is absent only until the first of them was read.
        address = parse_address(entry.checksum)
        if not missing.among([address]) or target.has_object(address):
            continue
        path = _path_of(manifest, entry)
        staged, _ = stage(
            Transfer(
                label=source.label,
                subject=path,
                address=address,
                open=lambda path=path, size=entry.size: _open_file(source, path, size),  # type: ignore[misc]
                upload=lambda address=address, size=entry.size: upload(address, size),  # type: ignore[misc]
                size_hint=entry.size,
                piece_bytes=target.piece_bytes_of(entry.size),
                wrong=CHANGED,
            )
        )
        with staged:
            staged.commit()


def fetch_files(manifest: Manifest, source: StreamStore, dest: FileTree) -> None:
    """Write the files of *manifest* from *source* to *dest*. Raises as `StreamStore.fetch_files` does."""
    for entry in manifest.entries():
        if entry.type != "F":
            continue
        address, path = parse_address(entry.checksum), _path_of(manifest, entry)
        if _is_intact(dest, path, address):
            continue
        staged, _ = stage(
            Transfer(
                label=source.label,
                subject=address,
                address=address,
                open=lambda address=address, size=entry.size: source.open_object(address, size_hint=size),  # type: ignore[misc]
                upload=lambda path=path, size=entry.size: dest.upload(path, size),  # type: ignore[misc]
                size_hint=entry.size,
                piece_bytes=source.piece_bytes_of(entry.size),
            )
        )
        with staged:
            staged.commit()


def _path_of(manifest: Manifest, entry: Entry) -> str:
    """Return the path of *entry*, beginning with ``./``. Raises `ManifestSyntaxError` if it leads out of the tree."""
    path = entry.path.removeprefix("./")
    if "\0" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        raise ManifestSyntaxError("", manifest.id, f"the path {entry.path!r} leads out of the tree")
    return f"./{path}"


def _open_file(source: FileTree, path: str, size: int) -> OpenReader:
    try:
        return source.open(path, size_hint=size)
    except KeyMissing as error:
        raise ObjectMissing(source.label, path, "the file of the manifest is not there") from error


def _is_intact(dest: FileTree, path: str, address: Address) -> bool:
    hasher = blake3()
    try:
        with dest.open(path) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                checkpoint()
                hasher.update(chunk)
    except (KeyMissing, StoreNotFound):
        return False
    return bool(hasher.hexdigest() == address)
