"""The stores and the Redis of an action, at a place: how they begin, and what they hold in the end."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.stores.address import MANIFESTS, OBJECTS, QUARANTINE
from snapferry.stores.backend import Backend
from snapferry.stores.errors import StoreNotFound
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.urls import parse_url
from snapferry.workers.ledger import Ledger
from snapferry.workers.ledger.keys import WORKING
from snapferry.workers.settings.environment import Settings
from tests.opening import open_backend
from tests.sample import assert_published_means_complete
from tests.servers import S3Server

JOB: Final = "job-that-dies"

NAMES_SPACE: Final = ".names/"

# Keys that stay although nothing runs: the record of jobs, schedules and successes. The job's own parts are those that
# docs/upgrade.md calls kept.
_KEPT: Final = re.compile(
    r"snapferry:(jobs|untold|expected|success:\w+|mirror:\w+|scrub:\w+(:\w+)?|notify:(problems|told_at|deliveries)|reach:\w+:known"
    r"|job:JOB(:(failures|failed|classes|repairs|running|done:.*))?|traffic:.*|beat:.*|limits?:.*|crashes.*)"
    r"|_kombu\.binding(_permanent)?\..*"
).fullmatch

# Keys that may be left after a death, because they expire by themselves.
_EXPIRE: Final = re.compile(
    r"(celery|chord|snapferry:mark:|snapferry:pace:|snapferry:traffic|snapferry\.unacked_mutex|unacked).*|.*:tokens?.*"
    r"|snapferry:(watcher|notify:lock|mirror:\w+:taken|scrub:\w+:taken)"
).fullmatch


@dataclass
class World:
    """
    A *folder* with the directories of a test, an empty Redis, and maybe an S3 server.

    *source* and *destination* are the stores of the action, as URLs; *tree* is a directory tree.
    """

    folder: Path
    redis_url: str
    server: S3Server | None = None
    bucket: str = ""
    turn: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    """What an action remembers of how it began."""
    undisturbed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The name of an action -> what is there after it in the end, without a death."""

    @property
    def source(self) -> str:
        return f"file://{self.folder}/a"

    @property
    def destination(self) -> str:
        if self.server is None:
            return f"file://{self.folder}/b"
        return self.server.url(self.bucket, f"store-{self.turn}")

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def told(self) -> Path:
        """What was sent to a receiver of notifications, a line for each message."""
        return self.folder / "told"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def note(self) -> Path:
        """Where a dying process writes the label of the point. It is outside of what is watched."""
        return self.folder.with_name("last-point")

    @property
    def labels(self) -> Path:
        """The labels of the crash points of the last process that was not killed, a line each."""
        return self.folder.with_name("labels")

    @property
    def settings(self) -> Settings:
        config = str(self.folder / "snapferry.toml")
        return Settings(broker_url=self.redis_url, config=config, batch_objects=2, window_batches=2)

    @property
    def s3_ports(self) -> frozenset[int]:
        return (
            frozenset() if self.server is None else frozenset({int(self.server.endpoint.rpartition(":")[2])})
        )

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, decode_responses=True)

    def backend(self, url: str = "") -> Backend:
        return open_backend(parse_url(url or self.destination))

    def store(self, url: str = "") -> SnapshotStore:
        return SnapshotStore(self.backend(url))

    def renew(self) -> None:
        """Begin anew: empty directories, an empty Redis, and a place in the bucket that nothing was written to."""
        if self.folder.exists():
            for path in self.folder.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o755)
            shutil.rmtree(self.folder)
        self.temporary.mkdir(parents=True)
        self.turn += 1
        self.memory.clear()
        with self.client() as client:
            client.flushall()

    # What is there in the end.

    def seen(self) -> dict[str, Any]:
        """
        Return what a user can see: the stores, the tree, and the receipts of all jobs.

        Without what differs between two runs that ended well: times, the ids of jobs, and whether an object was copied
        or found present because a process had copied it before it died.
        """
        with self.client() as client:
            ledger = Ledger(client, expires_s=3600)
            receipts = [_timeless(receipt(ledger, job)) for job in sorted(ledger.job_ids())]
            record = {
                key: sorted(client.hgetall(key)) for key in sorted(client.scan_iter("snapferry:mirror:*"))
            }
        backend = self.backend()
        return {
            "objects": _contents(backend, OBJECTS),
            "manifests": _contents(backend, MANIFESTS),
            "names": {
                key: data for key, data in _contents(backend, NAMES_SPACE).items() if ".lock" not in key
            },
            "quarantine": sorted(_contents(backend, QUARANTINE).values()),
            "tree": dict(_tree(self.tree)),
            "receipts": sorted(receipts, key=lambda one: str(one["action"])),
            "record": record,
        }

    def violations(self) -> Iterator[str]:
        """Yield what must not be at any moment: a manifest without its objects, an object of wrong bytes."""
        try:
            assert_published_means_complete(self.store())
        except StoreNotFound:
            return
        except Exception as error:
            yield f"published, and not complete: {error}"

    def leftovers(self, *, lost: bool = False) -> Iterator[str]:
        """
        Yield what a process that died has left although the action was completed.

        *lost*: its messages are lost. Then what only a running job needs stays until the record of the job expires, if
        it died while it ended the job.
        """
        for root in (self.folder / "a", self.folder / "b", self.tree, self.temporary):
            for path in root.rglob("*"):
                if (
                    ".tmp-" in path.name
                    or path.name.startswith(".parts-")
                    or path.name.endswith((".tmp", ".plan"))
                    or path.name.startswith(".snapf")
                ):
                    yield f"file {path.relative_to(self.folder)}"
        if self.server is not None:
            yield from (f"upload {key}" for key in self.server.unfinished_uploads(self.bucket))
        with self.client() as client:
            for key in sorted(map(str, client.scan_iter("*"))):
                name = key.replace(JOB, "JOB")
                for job in Ledger(client, expires_s=3600).job_ids():
                    name = name.replace(job, "JOB")
                expires = int(client.ttl(key)) >= 0
                if lost and expires and name.removeprefix("snapferry:job:JOB:") in {*WORKING, "driver"}:
                    continue
                if not (_KEPT(name) or (expires and _EXPIRE(name))):
                    yield f"key {name}" + (" (expires)" if expires else "")


def _contents(backend: Backend, space: str) -> dict[str, bytes]:
    found = {}
    for key, *_ in _listed(backend, space):
        with backend.open(key) as reader:
            found[key] = b"".join(iter(lambda reader=reader: reader.read(1 << 20), b""))  # type: ignore[misc]
    return found


def _listed(backend: Backend, space: str) -> list[Any]:
    from snapferry.stores.backends.directory.backend import DirectoryBackend

    if isinstance(backend, DirectoryBackend):
        root = Path(backend.directory.path)
        return [
            (str(path.relative_to(root)),) for path in sorted((root / space).rglob("*")) if path.is_file()
        ]
    return list(backend.keys(space))


def _tree(root: Path) -> Iterator[tuple[str, object]]:
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        data = path.read_bytes() if stat.S_ISREG(mode) else os.readlink(path) if path.is_symlink() else None
        yield str(path.relative_to(root)), (oct(mode), data)


_TIMES: Final = ("submitted", "started", "ended", "bytes_copied")


def _timeless(document: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in document.items() if name not in ("job", "confirmed", *_TIMES)}
    objects = found["objects"]
    # An object that was repaired before a death is found right after it.
    found["objects"] = {
        "total": objects["total"],
        "failed": objects["failed"],
        "settled": objects["copied"] + objects["present"],
    }
    found["bytes"] = found["bytes"]["total"]
    found["repaired"] = sorted({one["address"] for one in found["repaired"]})
    for row in found["snapshots"]:
        row["settled"] = row.pop("copied") + row.pop("present")
        row.pop("ended")
    for side in ("source", "destination"):
        found[side] = None
    return found
