"""The parts of the chaos runs that need a server: the proxy before the bucket, the failover, faults of files."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from snapferry.stores.opening import open_store
from tests.chaos.failover import fail_over
from tests.chaos.faults import FAULTS
from tests.chaos.proxy import KINDS, REFUSED, Trouble, troubled
from tests.chaos.world import World
from tests.integration.own_redis import own_redis
from tests.sample import fill, random_files, tree

BODY = b"0123456789" * 20


@contextmanager
def echo() -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that returns what it is sent; yield its endpoint, and the bodies that it has read."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT  # noqa: N815 - the name is that of http.server

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", got
        server.shutdown()


def ask(endpoint: str) -> tuple[int, bytes] | None:
    """Send the body; return status and body of the answer, None if there was no whole answer."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=240)
    try:
        connection.request("GET", "/bucket/key", BODY)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, OSError):
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("kind", [*sorted({*KINDS} - {"stalled"}), REFUSED])
def test_the_proxy_does_to_a_request_what_its_kind_says(kind: str) -> None:
    flipped = BODY[:-1] + bytes([BODY[-1] ^ 1])
    expected = {
        "slow": ((200, BODY), [BODY]),
        "flipped": ((200, flipped), [BODY]),
        "flipped-up": ((200, flipped), [flipped]),
        "cut-after": (None, [BODY]),
        "truncated": (None, [BODY]),
    }.get(kind, (None, []))
    trouble = Trouble(chance=random.Random(1))
    with echo() as (endpoint, got), troubled(endpoint, trouble) as proxy:
        assert ask(proxy) == (200, BODY)
        with trouble.making(kind, 1.0):
            found = ask(proxy)
        whole = got[1:] if kind != "cut-in" else [body for body in got[1:] if body == BODY]
        assert ask(proxy) == (200, BODY)

    if kind.isdigit():
        assert found is not None
        assert (found[0], whole) == (int(kind), [])
    else:
        assert (found, whole) == expected


def test_a_replica_takes_over_the_address_of_a_redis(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            client.set("before", "1")
            first = client.info("server")["run_id"]
        for _ in range(2):
            fail_over(server, tmp_path)
            with redis.Redis.from_url(server.url, decode_responses=True) as client:
                assert client.get("before") == "1"
                assert client.info("server")["run_id"] != first
                assert client.info("replication")["role"] == "master"
                client.set("after", "2")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert (client.get("before"), client.get("after")) == ("1", "2")


def stub(folder: Path) -> Any:
    """Return what faults of objects need of a world: two sources and two destinations."""
    roots = [folder / name for name in ("source", "bucket/source", "copies", "bucket/copies")]
    for root in roots:
        fill(open_store(str(root)), random_files(5))
    damaged: dict[Path, list[str]] = {root: [] for root in roots}

    @contextmanager
    def damaging(root: Path, path: Path) -> Iterator[None]:
        damaged[root].append("".join(path.relative_to(root / ".objects").parts))
        yield

    return SimpleNamespace(
        folder=folder, sources=roots[:2], destinations=roots[2:], damaged=damaged, damaging=damaging
    )


@pytest.mark.parametrize(
    "kind", [kind for kind in FAULTS if kind.startswith(("source object", "destination obj"))]
)
def test_an_object_is_damaged_and_a_source_is_whole_afterwards(kind: str, tmp_path: Path) -> None:
    for seed in range(4):
        made = stub(tmp_path / f"{seed}")
        before = [tree(root) for root in made.sources]

        with FAULTS[kind].act(cast("World", made), random.Random(seed)) as what:
            path = made.folder / what
            is_file = path.is_file() and not path.is_symlink()
            damaged = not is_file or path.read_bytes() not in random_files(5).values()

        assert damaged
        assert [tree(root) for root in made.sources] == before
        if kind.startswith("destination"):
            assert _address(path) in made.damaged[_root(path)]


def _root(path: Path) -> Path:
    return path.parents[4]


def _address(path: Path) -> str:
    return "".join(path.parts[-4:])
