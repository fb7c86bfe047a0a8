"""A name is removed only if it is that of a snapshot: one step at a server that enforces that, and told elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.errors import NameChanged, StoreUnavailable
from snapferry.stores.names.name import NameRecord, name_key, parse_name, render_record
from snapferry.stores.names.names import Names
from snapferry.stores.urls import parse_url
from tests.faults.copying_server import CopyingServer, copying_server
from tests.faults.stub_s3 import Answer, Request
from tests.opening import open_backend

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

NIGHTLY = parse_name("nightly")
ONE, OTHER = SnapshotId(Address("1" * 64)), SnapshotId(Address("2" * 64))
PATH = f"/bucket/p/{name_key(NIGHTLY)}"


@pytest.fixture
def server() -> Iterator[CopyingServer]:
    with copying_server() as running:
        running.objects[PATH] = render_record(NameRecord(ONE))
        yield running


@pytest.fixture
def names(server: CopyingServer, monkeypatch: pytest.MonkeyPatch) -> Names:
    # boto3 does not wait between attempts.
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    backend = open_backend(parse_url(server.url("bucket/p")))
    assert isinstance(backend, S3Backend)
    return Names(backend, lambda ids: {SnapshotId(Address(each)) for each in ids})


def moves(server: CopyingServer, to: SnapshotId | None) -> None:
    """Let another writer move the name, or remove it, just before the request that deletes it."""

    def before(operation: str, request: Request) -> Answer | None:
        if operation == "DeleteObject" and request.path.endswith(NIGHTLY):
            server.objects.pop(PATH, None)
            if to is not None:
                server.objects[PATH] = render_record(NameRecord(to))
        return None

    server.before = before


def probes(server: CopyingServer) -> list[str]:
    return [path for path in server.objects if "probe" in path]


def test_a_server_that_enforces_the_condition_deletes_in_one_step(
    server: CopyingServer, names: Names
) -> None:
    assert names.delete(NIGHTLY, if_was=ONE) is True

    assert server.objects == {}
    with pytest.raises(NameChanged):
        names.delete(NIGHTLY, if_was=ONE)


@pytest.mark.parametrize("to", [OTHER, None], ids=["moved", "removed"])
def test_a_name_that_another_writer_changes_in_between_is_not_removed(
    server: CopyingServer, names: Names, to: SnapshotId | None
) -> None:
    moves(server, to)

    with pytest.raises(NameChanged):
        names.delete(NIGHTLY, if_was=ONE)

    assert server.objects == ({} if to is None else {PATH: render_record(NameRecord(to))})


def test_a_record_of_the_same_snapshot_is_read_again(server: CopyingServer, names: Names) -> None:
    """The other writer carried the name of the same snapshot from another store."""
    moved: list[bool] = []

    def before(operation: str, request: Request) -> Answer | None:
        if operation == "DeleteObject" and request.path.endswith(NIGHTLY) and not moved:
            moved.append(True)
            server.objects[PATH] = render_record(NameRecord(ONE, "f" * 64))
        return None

    server.before = before

    assert names.delete(NIGHTLY, if_was=ONE) is True
    assert server.objects == {}


def test_writers_that_never_rest_end_it(server: CopyingServer, names: Names) -> None:
    turns: list[bool] = []

    def before(operation: str, request: Request) -> Answer | None:
        if operation == "DeleteObject" and request.path.endswith(NIGHTLY):
            turns.append(True)
            server.objects[PATH] = render_record(NameRecord(ONE, f"{len(turns)}" * 64))
        return None

    server.before = before

    with pytest.raises(StoreUnavailable):
        names.delete(NIGHTLY, if_was=ONE)
    assert PATH in server.objects


def test_a_lost_answer_counts_as_removed(server: CopyingServer, names: Names) -> None:
    lost: list[bool] = []

    def before(operation: str, request: Request) -> Answer | None:
        if operation == "DeleteObject" and request.path.endswith(NIGHTLY) and not lost:
            lost.append(True)
            server.objects.pop(PATH)
            return Answer(500)
        return None

    server.before = before

    assert names.delete(NIGHTLY, if_was=ONE) is True
    assert server.objects == {}
    assert lost


@pytest.mark.parametrize("deletes", ["ignores", "rejects", "lies"])
def test_a_server_that_does_not_enforce_it_is_asked_without_the_condition(
    server: CopyingServer, names: Names, deletes: str
) -> None:
    """The name is removed as before, and the caller learns that nothing kept other writers away."""
    server.deletes = deletes  # type: ignore[assignment]
    with pytest.raises(NameChanged):
        names.delete(NIGHTLY, if_was=OTHER)
    assert set(server.objects) == {PATH}

    assert names.delete(NIGHTLY, if_was=ONE) is False

    assert server.objects == {}
    conditional = [
        one for one in server.stub.requests if one.method == "DELETE" and "If-Match" in one.headers
    ]
    assert all("probe" in one.path for one in conditional)


def test_without_permission_to_write_a_probe_the_name_is_removed_all_the_same(
    server: CopyingServer, names: Names
) -> None:
    server.before = lambda operation, _: Answer(403) if operation == "PutObject" else None

    assert names.delete(NIGHTLY, if_was=ONE) is False
    assert server.objects == {}


def test_without_an_expectation_nothing_is_tried(server: CopyingServer, names: Names) -> None:
    names.delete(NIGHTLY)

    assert [one.method for one in server.stub.requests] == ["DELETE"]
