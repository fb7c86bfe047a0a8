"""Kill a copy by the server after every single request, and look at what the destination then holds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from snapferry.stores.backends.s3 import sizes
from snapferry.stores.backends.s3.objects.server_side import parts, upload
from snapferry.stores.hashing import digest
from snapferry.workers.copying.transfer.server_side import copy_batch_on_server
from tests.conformance.contract import MIB, noise
from tests.faults.copying_server import CopyingServer, copying_server
from tests.faults.stub_s3 import Answer, Request, error
from tests.faults.test_s3_server_copy import Silent, at, stores

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

PART = 4 * MIB
OBJECTS = [b"", b"small", noise(3 * PART + 7)]


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "COPIED_WHOLE_BYTES", PART)
    monkeypatch.setattr(upload, "COPIED_WHOLE_BYTES", PART)
    monkeypatch.setattr(parts, "copied_part_bytes", lambda _: PART)


def copy_all(server: CopyingServer, *, again: bool) -> None:
    source, destination = stores(server)
    objects = {digest(data): len(data) for data in OBJECTS}
    outcome = copy_batch_on_server(
        source, destination, objects, Silent(), concurrency=1, abort_unfinished=again
    )
    assert not outcome.failures, outcome.failures


def run_and_die(server: CopyingServer, work: Callable[[], None], point: int, *, served: bool) -> bool:
    """
    Run *work* in a process that is killed when the server receives its *point*-th request; return whether it was.

    The request takes effect if *served*.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.read(reader, 1)
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    left = [None] * point

    def kill(_: str, __: Request) -> Answer | None:
        if left:
            left.pop()
            return None
        os.kill(child, signal.SIGKILL)
        return None if served else error(503, "SlowDown")

    server.before = kill
    os.write(writer, b".")
    _, status = os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
    server.before = lambda _, __: None
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the copy failed instead of being killed"
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("served", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_death_at_any_request_shows_nothing_wrong_and_the_next_run_leaves_no_upload(served: bool) -> None:
    right = {at("to/b", data): data for data in OBJECTS}
    with copying_server() as server:
        for point in range(200):
            server.objects = {at("from/a", data): data for data in OBJECTS}
            server.uploads.clear()
            killed = run_and_die(server, lambda: copy_all(server, again=False), point, served=served)

            assert server.held("to").items() <= right.items()
            if not killed:
                assert server.held("to") == right
                break
            copy_all(server, again=True)
            assert server.held("to") == right
            assert server.uploads == {}

    assert point > 15
