"""
What is fuzzed: a function for each kind of foreign input. It takes bytes, and raises for a broken promise alone.

*only documented errors*: whatever the bytes are, nothing but the error that the function documents leaves it.
*one meaning*: what is accepted can be written and read again, and two readers of one text agree.
*bounded*: the input is small, and so is what is made of it (libFuzzer's limits of time and memory watch the rest).
"""

from __future__ import annotations

import io
import json
import posixpath
import socket
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from urllib.parse import quote

from pydantic import ValidationError

from snapferry.orchestrator.reporting.text.stores import tree_lines
from snapferry.stores.address import Address, SnapshotId, parse_address
from snapferry.stores.backends.s3.direct.http1 import ConnectionPool
from snapferry.stores.backends.s3.direct.listing import NotAPage, read_page
from snapferry.stores.backends.s3.direct.response import Body, Head
from snapferry.stores.backends.s3.http.errors import AnswerTooLong
from snapferry.stores.backends.s3.http.sockets import PlainSocket
from snapferry.stores.errors import (
    IntegrityError,
    InvalidAddress,
    InvalidName,
    InvalidStoreURL,
    ManifestSyntaxError,
)
from snapferry.stores.hashing import digest
from snapferry.stores.inspection.differences import changed_paths
from snapferry.stores.inspection.paths import IsDirectory, PathMissing, file_at
from snapferry.stores.inspection.sizes import count
from snapferry.stores.manifest.canonical import canonical
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.manifest.lines import read_plainly
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest, parse
from snapferry.stores.names.lookup import full_id
from snapferry.stores.names.name import LATEST, MARK, name_key, parse_name, parse_record, render_record
from snapferry.stores.text.printable import printable
from snapferry.stores.urls import parse_url, redact
from snapferry.workers.messages import BatchMessage, JobSpec, MirrorMessage
from snapferry.workers.settings.environment import InvalidSettings, parse_broker_url
from snapferry.workers.telemetry.redaction import Redaction

Target = Callable[[bytes], None]

SECRET = "s3cr3t/Pass+w0rd"


def manifest(data: bytes) -> None:
    """A manifest is read, or refused by its documented errors; what is read is the same when it is written again."""
    text = canonical(data)
    assert canonical(text) == text, "the canonical form is stable"
    try:
        entries = parse(data)
    except (ManifestSyntaxError, IntegrityError) as error:
        assert len(str(error)) < 4096
        return
    if entries:
        assert render(entries) == text
    with Manifest.from_bytes(SnapshotId(digest(text)), text) as read:
        objects = read.objects()
        assert set(objects) == {entry.checksum for entry in entries if entry.type == "F"}
        assert all(0 <= size <= LARGEST_PLANNED_BYTES for size in objects.values())
        assert len(read.addresses()) == len(objects)
        assert read.addresses().among(list(objects)) == list(objects)
        _look(read, entries)


def _look(read: Manifest, entries: list[Entry]) -> None:
    """What is printed of a manifest is printable; it differs from itself in nothing, and each of its paths is found."""
    files = [entry for entry in entries if entry.type == "F"]
    counts = count(read)
    assert (counts.files, counts.logical_bytes) == (len(files), sum(entry.size for entry in files))
    assert all(line.isprintable() for line in tree_lines(entries, exact=True))
    with suppress(ManifestSyntaxError), Manifest.from_bytes(read.id, read.open().read(read.length)) as same:
        assert list(changed_paths(read, same, directories=True)) == []
    for entry in entries[:3]:
        with suppress(PathMissing, IsDirectory):
            assert file_at(read, entry.path).type == "F"


def stored_manifest(data: bytes) -> None:
    """As a store returns it: not in canonical form, or filed under the id of something else."""
    ids = (digest(data), digest(canonical(data)), Address("0" * 64))
    for snapshot in ids:
        with (
            suppress(ManifestSyntaxError, IntegrityError),
            Manifest.from_bytes(SnapshotId(snapshot), data) as read,
        ):
            assert snapshot != ids[2], "it does not hash to that"
            for entry in read.entries():
                assert entry.path


def lines(data: bytes) -> None:
    """The fast reader of lines agrees with the careful one wherever it has an answer."""
    columns = read_plainly(data, "")
    if columns is None:
        return
    rows = list(zip(columns.kinds, columns.checksums, columns.digits, columns.paths, strict=True))
    # A line that begins with # is none of a manifest: only the canonical form is ever read.
    if data != canonical(data):
        return
    entries = parse(data)
    assert rows == [(entry.type, entry.checksum, str(entry.size), entry.path) for entry in entries]


def url(data: bytes) -> None:
    """A store's URL is read, or refused; what is read means the same when it is written and read again."""
    text = data.decode(errors="surrogateescape")
    try:
        parse_address(text)
    except InvalidAddress as error:
        assert len(str(error)) < 4096
    with suppress(InvalidStoreURL):
        found = parse_url(text)
        again = parse_url(str(found))
        assert again == found
        assert str(again) == str(found)
        assert found.same_place(again)
        if found.scheme == "file":
            assert found.location.startswith("/")


def secret_url(data: bytes) -> None:
    """A password in a URL is shown neither by what refuses the URL nor by what shows it."""
    around, _, behind = data.decode(errors="replace").partition("\x00")
    # Behind a slash it is part of a path, as far as anybody can tell.
    around = around.replace("/", "")
    for text in (f"s3://{around}:{SECRET}@{behind}", f"redis://{around}:{SECRET}@{behind}"):
        assert SECRET not in redact(text)
    # With a colon before it, and an @ behind it, it is a password.
    text = f"s3://{around}:{SECRET}@{behind}"
    try:
        parse_url(text)
    except InvalidStoreURL as error:
        assert SECRET not in str(error)
    broker = f"redis://{quote(around, safe='')}:{SECRET}@{behind}"
    with suppress(InvalidSettings):
        try:
            parse_broker_url(broker)
        except InvalidSettings as error:
            assert SECRET not in str(error)
            raise


def page(data: bytes) -> None:
    """A page of a listing is read, or is none."""
    with suppress(NotAPage, AnswerTooLong):
        found = read_page(data)
        for listed in found.found:
            assert listed.key
            assert isinstance(listed.size, int)
            assert isinstance(listed.modified, float)


class _Fed(ConnectionPool):
    """A pool whose every connection has one answer on it, and then the end."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(("127.0.0.1", 1), tls=None, connect_timeout_s=1, read_timeout_s=5)
        self._answer = answer
        self._sockets: list[socket.socket] = []

    def _connect(self) -> PlainSocket:
        ours, server = socket.socketpair()
        client = PlainSocket(fileno=ours.detach())
        client.settimeout(5)
        server.sendall(self._answer)
        server.shutdown(socket.SHUT_WR)
        self._sockets += (client, server)
        return client

    def end(self) -> None:
        self.close()
        for end in self._sockets:
            end.close()


def answer(data: bytes) -> None:
    """An HTTP answer is read as Python's own client reads it, or refused; nothing waits, nothing else is raised."""
    for method, bodyless in (("GET", False), ("HEAD", True)):
        pool = _Fed(data[: 64 * 1024])
        try:
            with suppress(HTTPException, OSError, AnswerTooLong):
                found = pool.request(
                    b"%s /bucket/key HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode(), bodyless=bodyless
                )
                if isinstance(found, Head):
                    _compare(data, method, pool, found)
            with suppress(HTTPException, OSError, AnswerTooLong):
                pool.request_page(b"GET /bucket?list-type=2 HTTP/1.1\r\nHost: a\r\n\r\n")
        finally:
            pool.end()


class _Text:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _compare(data: bytes, method: str, pool: ConnectionPool, head: Head) -> None:
    """Check that an answer that was taken for ordinary is the same to http.client."""
    other = HTTPResponse(_Text(data), method=method)  # type: ignore[arg-type]
    other.begin()
    if other.headers.defects:
        # A line that is no header ends all headers for the one, and not for the other. What comes is verified anyway.
        return
    assert other.status == head.status
    if method == "GET":
        assert other.length == head.length
        body = Body(head, pool.release)
        try:
            ours = body.read(head.length) if head.length <= len(data) else None
        finally:
            body.close()
        if ours is not None:
            assert ours == other.read()


def message(data: bytes) -> None:
    """A message of the queue is understood, or refused as a whole; what is understood can be unpacked."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    for kind in (JobSpec, BatchMessage, MirrorMessage):
        try:
            read = kind.model_validate(found)
        except ValidationError:
            continue
        if isinstance(read, JobSpec):
            assert all(len(snapshot) == 64 for snapshot in read.snapshot_ids)
        if isinstance(read, BatchMessage):
            assert read.objects().keys() == read.positions_by_address().keys()
        assert kind.model_validate(json.loads(read.model_dump_json())) == read


def redaction(data: bytes) -> None:
    """Whatever stands around a secret that is known, it does not come through."""
    text = data.decode(errors="replace")
    hide = Redaction([SECRET])
    for told in (text + SECRET, SECRET + text, text[: len(text) // 2] + SECRET + text[len(text) // 2 :]):
        assert SECRET not in hide(told)
    assert quote(SECRET, safe="") not in hide(text + quote(SECRET, safe="") + text)
    assert f":{SECRET}@" not in Redaction()(f"redis://user:{SECRET}@host {text}")
    shown = printable(text)
    assert shown.isprintable()


def name(data: bytes) -> None:
    """What is filed under a name is a record or nothing; a text is an id, is looked up, or is refused."""
    record = parse_record(data)
    assert record is None or render_record(record) == data
    text = data.decode(errors="surrogateescape")
    try:
        found = full_id(text)
    except (InvalidAddress, InvalidName) as error:
        assert str(error).isprintable()
        return
    assert found in (None, text)
    if found is None and text.endswith(MARK) and text != LATEST + MARK:
        key = name_key(parse_name(text.removesuffix(MARK)))
        assert key.isascii()
        assert posixpath.normpath(f"/s/{key}") == f"/s/{key}"
        assert key.count("/") == 1


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (manifest, stored_manifest, lines, url, secret_url, page, answer, message, redaction, name)
}
