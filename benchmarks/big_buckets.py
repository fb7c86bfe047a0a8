"""What a small S3 server holds (`benchmarks.big_server`): objects larger than memory and disk, in files with holes."""

from __future__ import annotations

import binascii
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BLOCK_BYTES: Final = 1024 * 1024
PAGE_BYTES: Final = 4096
PARTS_FOLDER: Final = ".parts"
_ZEROS: Final = bytes(BLOCK_BYTES)


class Refused(Exception):
    """An answer that is not success: its status and S3's code for it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Piece:
    """A file that holds a part of an object."""

    path: Path
    length: int
    etag: str


@dataclass(frozen=True)
class Object:
    """An object: the pieces that make it up, in order."""

    pieces: tuple[Piece, ...]
    etag: str
    headers: dict[str, str] = field(default_factory=dict)
    modified: float = field(default_factory=time.time)

    @property
    def length(self) -> int:
        return sum(piece.length for piece in self.pieces)

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from *start* to before *stop*."""
        at = 0
        for piece in self.pieces:
            first, last = max(start - at, 0), min(stop - at, piece.length)
            if first < last:
                yield from _read(piece.path, first, last)
            at += piece.length


@dataclass
class MultipartUpload:
    """Parts on their way to a key."""

    bucket: str
    key: str
    headers: dict[str, str]
    parts: dict[int, Piece] = field(default_factory=dict)
    begun: float = field(default_factory=time.time)


def no_md5(digest: str) -> str:
    """Return *digest* as the ETag of an object in one part: of one with a plain ETag clients take that for its MD5."""
    return f"{digest}-1"


class Buckets:
    """What the server holds. Safe to share between threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects: dict[tuple[str, str], Object] = {}
        self.uploads: dict[str, MultipartUpload] = {}
        self.lock = threading.Lock()
        self._numbers = itertools.count()
        (root / PARTS_FOLDER).mkdir(parents=True, exist_ok=True)
        for bucket in root.iterdir():
            if bucket.is_dir() and bucket.name != PARTS_FOLDER:
                for path in bucket.rglob("*"):
                    if path.is_file():
                        found = path.stat()
                        name = hashlib.md5(str(path).encode()).hexdigest()
                        piece = Piece(path, found.st_size, name)
                        key = str(path.relative_to(bucket))
                        self.objects[bucket.name, key] = Object((piece,), no_md5(name), {}, found.st_mtime)

    def new_path(self) -> Path:
        return self.root / PARTS_FOLDER / f"{next(self._numbers):08d}"

    def find(self, bucket: str, key: str) -> Object:
        try:
            return self.objects[bucket, key]
        except KeyError:
            raise Refused(404, "NoSuchKey") from None

    def upload(self, number: str) -> MultipartUpload:
        try:
            return self.uploads[number]
        except KeyError:
            raise Refused(404, "NoSuchUpload") from None

    def put(self, bucket: str, key: str, made: Object | None) -> None:
        """File *made* under the key, nothing if it is None; drop what was there."""
        with self.lock:
            before = self.objects.pop((bucket, key), None)
            if made is not None:
                self.objects[bucket, key] = made
        for piece in before.pieces if before else ():
            piece.path.unlink(missing_ok=True)

    def begin(self, upload: MultipartUpload) -> str:
        number = f"upload-{next(self._numbers)}"
        self.uploads[number] = upload
        return number

    def complete(self, number: str, wanted: list[tuple[int, str]]) -> Object:
        upload = self.upload(number)
        try:
            pieces = tuple(upload.parts[part] for part, _ in wanted)
        except KeyError:
            raise Refused(400, "InvalidPart") from None
        if [piece.etag for piece in pieces] != [etag for _, etag in wanted]:
            raise Refused(400, "InvalidPart")
        if [part for part, _ in wanted] != sorted({part for part, _ in wanted}):
            raise Refused(400, "InvalidPartOrder")
        etags = b"".join(binascii.unhexlify(piece.etag) for piece in pieces)
        made = Object(pieces, f"{hashlib.md5(etags).hexdigest()}-{len(pieces)}", upload.headers)
        del self.uploads[number]
        self.put(upload.bucket, upload.key, made)
        return made

    def abort(self, number: str) -> None:
        upload = self.upload(number)
        del self.uploads[number]
        for piece in upload.parts.values():
            piece.path.unlink(missing_ok=True)


def _read(path: Path, start: int, stop: int) -> Iterator[memoryview]:
    """Yield the bytes of a file; its holes come from one block of zeros, and not through the page cache."""
    zeros = memoryview(_ZEROS)
    with path.open("rb", buffering=0) as file:
        while start < stop:
            try:
                data = min(os.lseek(file.fileno(), start, os.SEEK_DATA), stop)
            except OSError:
                data = stop
            while start < data:
                yield zeros[: min(data - start, BLOCK_BYTES)]
                start += min(data - start, BLOCK_BYTES)
            if start < stop:
                end = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), stop, start + BLOCK_BYTES)
                yield memoryview(os.pread(file.fileno(), end - start, start))
                start = end


def write_sparse(descriptor: int, at: int, block: memoryview) -> None:
    """Write what is not zero of *block* to a file that is open, at a place of it."""
    if len(block) <= PAGE_BYTES:
        if bytes(block) != _ZEROS[: len(block)]:
            os.pwrite(descriptor, block, at)
    elif bytes(block) != (_ZEROS if len(block) == BLOCK_BYTES else _ZEROS[: len(block)]):
        half = (len(block) // 2 + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        write_sparse(descriptor, at, block[:half])
        write_sparse(descriptor, at + half, block[half:])
