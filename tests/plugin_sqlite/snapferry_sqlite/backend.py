"""
A backend that keeps bytes under keys as rows of a SQLite file.

*whole or not at all*: a row is written by one transaction. *durable*: a commit waits for the disk.

A row is read and written in one piece, so every object must fit in memory.
"""

from __future__ import annotations

import io
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.errors import KeyMissing, StoreFault, StoreFull, StoreNotFound, StoreUnavailable
from snapferry.stores.streams import OpenReader, Upload

TABLE = """
create table if not exists snapferry (
    key text primary key collate binary, data blob not null, modified real not null
) without rowid
"""

# How long to wait for a transaction of another process.
BUSY_S = 30.0

PAGE_KEYS = 1000

_UNAVAILABLE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR}


class SqliteBackend(Backend):
    """Bytes under keys in the SQLite file at *path*. Without *create*, a write to a missing file is an error."""

    capabilities = Capabilities(concurrency=1, pages_listings=False)

    def __init__(self, path: str, *, create: bool = True) -> None:
        self.label = f"sqlite://{path}"
        self._path = path
        self._create = create
        self._opened: tuple[int, sqlite3.Connection] | None = None
        self._lock = threading.Lock()

    def check(self, *, for_writing: bool) -> None:
        if os.path.isfile(self._path):
            with self._connected("", writing=False):
                return
        if not (for_writing and self._create and os.path.isdir(os.path.dirname(self._path))):
            raise StoreNotFound(self.label, "", "there is no such file")

    def prepare(self) -> None:
        with self._connected("", writing=True, create=True):
            return

    def size(self, key: str) -> int | None:
        with self._connected(key, writing=False) as connection:
            row = connection.execute("select length(data) from snapferry where key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        with self._connected(key, writing=False) as connection:
            row = connection.execute("select data from snapferry where key = ?", (key,)).fetchone()
        if row is None:
            raise KeyMissing(self.label, key, "nothing is filed here")
        return io.BytesIO(row[0])

    def write(self, key: str, data: bytes) -> None:
        with self._connected(key, writing=True) as connection, connection:
            connection.execute("insert or replace into snapferry values (?, ?, ?)", (key, data, time.time()))

    def upload(self, key: str, size_hint: int) -> Upload:
        return _Upload(self, key)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        after = max(prefix, start_after)
        # The prefix ends with a slash; the character after it begins the first key behind the prefix.
        end = prefix[:-1] + chr(ord("/") + 1)
        while True:
            with self._connected(prefix, writing=False) as connection:
                rows = connection.execute(
                    "select key, length(data), modified from snapferry where key > ? and key < ? order by key limit ?",
                    (after, end, PAGE_KEYS),
                ).fetchall()
            yield from map(Listed._make, rows)
            if len(rows) < PAGE_KEYS:
                return
            after = rows[-1][0]

    def delete(self, key: str) -> None:
        with self._connected(key, writing=True) as connection, connection:
            connection.execute("delete from snapferry where key = ?", (key,))

    @contextmanager
    def _connected(self, key: str, *, writing: bool, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Give the connection of this process to one thread at a time, and translate its errors."""
        with self._lock:
            try:
                if self._opened is None or self._opened[0] != os.getpid():
                    # A process that was forked must not use the connection of its parent.
                    self._opened = os.getpid(), self._connect(create=create or (writing and self._create))
                yield self._opened[1]
            except sqlite3.Error as error:
                raise self._translated(error, key) from error

    def _connect(self, *, create: bool) -> sqlite3.Connection:
        if not create and not os.path.exists(self._path):
            raise StoreNotFound(self.label, "", "there is no such file")
        uri = f"file:{quote(self._path)}?mode={'rwc' if create else 'rw'}"
        connection = sqlite3.connect(uri, BUSY_S, uri=True, check_same_thread=False)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute(TABLE)
        return connection

    def _translated(self, error: sqlite3.Error, key: str) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(self.label, key, str(error))
        if code in _UNAVAILABLE:
            return StoreUnavailable(self.label, key, str(error))
        if code == sqlite3.SQLITE_CANTOPEN and not Path(self._path).exists():
            return StoreNotFound(self.label, "", "there is no such file")
        return StoreFault(self.label, key, str(error))


class _Upload(Upload):
    def __init__(self, backend: SqliteBackend, key: str) -> None:
        self._backend = backend
        self._key = key
        self._data = io.BytesIO()

    def write(self, chunk: bytes) -> None:
        self._data.write(chunk)

    def commit(self) -> None:
        self._backend.write(self._key, self._data.getvalue())

    def abort(self) -> None:
        self._data.close()
