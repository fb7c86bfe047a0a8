"""Exports of failed objects end with their browser and with the dashboard, and few are made at once."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from .dashboards import Dashboard, dashboard
from .processes import PATIENCE_S, until
from .test_dashboard import many_failures


def begun(shown: Dashboard, job: str) -> socket.socket:
    """Ask for an export, and read nothing but its beginning: more than fits on the way is not sent."""
    port = int(shown.url.rpartition(":")[2])
    found = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    found.sendall(f"GET /jobs/{job}/failures.jsonl HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert found.recv(15) == b"HTTP/1.1 200 OK"
    return found


@pytest.mark.slow
def test_an_export_ends_with_its_browser_and_with_the_dashboard(redis_url: str, tmp_path: Path) -> None:
    job, _ = many_failures(redis_url, tmp_path / "a", snapshots=300, failed=20_000)
    with dashboard(tmp_path, redis_url) as shown:
        with closing(begun(shown, job)):
            alone = len(shown.process.family())
            with closing(begun(shown, job)):
                assert len(shown.process.family()) == alone + 1
                assert shown.ask(f"/jobs/{job}/failures.csv").status == 429
            until(lambda: len(shown.process.family()) == alone, "the process of the export is gone")

            shown.process.process.send_signal(signal.SIGTERM)
            assert shown.process.process.wait(PATIENCE_S) == 0
            # Python's own helper of child processes ends a moment later.
            until(lambda: not shown.process.family(), "nothing is left behind")
        assert shown.process.logged().splitlines()[1:] == []
