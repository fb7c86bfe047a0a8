"""Snapshots from a tree of files into a store, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from snapferry.stores.address import Address, parse_address
from snapferry.stores.errors import (
    KeyMissing,
    ManifestSyntaxError,
    ObjectMissing,
    StoreFault,
    StoreUnavailable,
)
from snapferry.stores.manifest.entry import Entry
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.manifest.tree_entries import TreeEntry, tree_entries
from snapferry.stores.manifest.tree_lines import tree_columns
from snapferry.stores.runtime.containment import contained
from snapferry.stores.runtime.oversize import LARGEST_BYTES, far_beyond
from snapferry.stores.stream_store import FileTarget, FileTree, StreamStore
from snapferry.stores.streams import OpenReader, Upload
from snapferry.stores.text.format import counted

from .streaming import Transfer, stage

CHANGED = "the file does not match the manifest"

# Files that are committed together, and the length from which a file is committed at once.
FILES_TOGETHER: Final = 256
FEW_BYTES: Final = 1024 * 1024


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


def fetch_files(manifest: Manifest, source: StreamStore, dest: FileTarget) -> None:
    """Make *dest* what *manifest* lists, from *source*. Raises as `StreamStore.fetch_files` does."""
    for _ in tree_columns(manifest):
        # Nothing is written before the last line was checked.
        pass
    dest.prepare(tree_entries(manifest))
    files = (entry for entry in tree_entries(manifest) if not entry.is_folder)
    while group := list(islice(files, FILES_TOGETHER)):
        needed = [file for file in group if not dest.is_right(file)]
        uploads: list[Upload] = []
        try:
            for file in needed:
                uploads.append(stage_file(source, dest, file)[0])
                if file.size > FEW_BYTES:
                    commit_files(dest, uploads)
                    uploads = []
        except BaseException:
            for upload in uploads:
                upload.abort()
            raise
        commit_files(dest, uploads)
    for file in dest.settle(partial(tree_columns, manifest), most=1).wrong:
        raise StoreUnavailable(
            dest.label, f"./{file.path}", "was written, and something removed or changed it"
        )


def stage_file(
    source: StreamStore, dest: FileTarget, file: TreeEntry, on_bytes: Callable[[int], None] | None = None
) -> tuple[Upload, int]:
    """
    Read the object of *file* from *source*, verify it, and write it to *dest*; return the upload, not yet committed.

    The second value is its length in bytes. Raises `ObjectMissing`, `IntegrityError`, and what either side raises;
    the upload was aborted then.
    """
    data = None if dest.linked else source.fetch_object(file.address, file.size)
    if data is None:
        return stage(
            Transfer(
                label=source.label,
                subject=file.address,
                address=file.address,
                open=lambda: source.open_object(file.address, size_hint=file.size),
                upload=lambda: dest.upload(file),
                size_hint=file.size,
                piece_bytes=source.piece_bytes_of(file.size),
                on_bytes=on_bytes,
                check_room=lambda announced: _check_room(source, dest, file, announced),
            )
        )
    if on_bytes is not None and data:
        on_bytes(len(data))
    with contained(dest.label, f"./{file.path}"):
        return dest.upload(file).filled(data), len(data)


def stage_files(
    source: StreamStore, dest: FileTarget, files: Sequence[TreeEntry]
) -> list[tuple[int, Upload, int]]:
    """
    Return the positions of those *files*, all short, that are best fetched together, each with its upload and length.

    A file that is left out must be staged by itself, which also gives its error.
    """
    fetched = source.fetch_objects([file.address for file in files], [file.size for file in files])
    found: Sequence[int] = range(len(files))
    if None in fetched:
        found = [at for at in found if fetched[at] is not None]
        files = [files[at] for at in found]
    data = [each for each in fetched if each is not None]
    uploads = dest.upload_many(files, data)
    # The rest failed.
    return list(zip(found, uploads, map(len, data), strict=False))


def commit_files(dest: FileTarget, uploads: Sequence[Upload]) -> None:
    """Make *uploads* visible. After an error some may be, each whole; the others are gone."""
    try:
        with contained(dest.label):
            dest.commit_all(uploads)
    except BaseException:
        for upload in uploads:
            upload.abort()
        raise


def _check_room(source: StreamStore, dest: FileTarget, file: TreeEntry, announced: int) -> None:
    """Refuse an object that is far longer than its advisory size and that does not fit into *dest*."""
    if announced <= far_beyond(file.size):
        return
    free = dest.free_bytes()
    room = LARGEST_BYTES if free is None else min(free, LARGEST_BYTES)
    if announced > room:
        raise StoreFault(
            source.label,
            file.address,
            f"has {counted(announced, 'byte')} where the manifest says {file.size:,}, and the tree has room for"
            f" {room:,}; nothing was written",
        )


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
