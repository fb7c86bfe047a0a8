"""What the faults are done to: Redis, orchestrators, workers, a bucket behind a proxy, directories, and jobs."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import parse_snapshot_id
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.opening import open_store
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.integration.own_redis import OwnRedis, own_redis
from tests.integration.processes import Fleet, Started
from tests.sample import fill, random_files
from tests.servers import S3Server, rclone_s3_server

from .proxy import Trouble, troubled

SETTINGS = {"SNAPFERRY_BATCH_OBJECTS": "40", "SNAPFERRY_VISIBILITY_TIMEOUT": "60", "SNAPFERRY_GRACE": "3"}

# What every process runs first: it resolves names, and tells the time, as two files say.
BEFORE = """
import socket, time
from pathlib import Path
folder, resolve, now = Path({folder!r}), socket.getaddrinfo, time.time
def resolved(host, *arguments, **options):
    if host in ("localhost", b"localhost") and (folder / "no-names").exists():
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return resolve(host, *arguments, **options)
def shifted():
    try:
        with open(folder / "clock") as file:
            return now() + float(file.read() or 0)
    except OSError:
        return now()
socket.getaddrinfo, time.time = resolved, shifted
"""


@dataclass
class Role:
    """A process of the fleet that is started again when it ends, as systemd does."""

    kind: str
    name: str
    stack: ExitStack = field(default_factory=ExitStack)
    running: Started | None = None
    stopped: bool = False


@dataclass
class World:
    """All of it. *settled* are the jobs that have ended; *snapshots* the ids in the sources."""

    folder: Path
    chance: random.Random
    redis: OwnRedis
    fleet: Fleet
    jobs: Jobs
    server: S3Server
    trouble: Trouble
    bucket_folder: Path
    roles: list[Role]
    stores: dict[str, str]
    snapshots: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    disk: Path | None = None

    def start(self, role: Role) -> None:
        """Start a role, and wait until it is ready or has ended."""
        start = self.fleet.orchestrator if role.kind == "orchestrator" else self.fleet.worker
        arguments = ("--hostname", f"{role.name}@%h") if role.kind == "orchestrator" else (role.name,)
        before = BEFORE.format(folder=str(self.folder))
        role.running = role.stack.enter_context(start(*arguments, before=before))

    def mount_disk(self) -> None:
        """Give the destination in a directory a small disk of its own, where this process may mount one."""
        disk, destination = self.folder / "disk", self.folder / "destination"
        disk.mkdir()
        destination.mkdir()
        size = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]
        if subprocess.run(["mount", *size, disk], check=False, capture_output=True).returncode == 0:
            self.disk = disk
            self.mount()

    def mount(self) -> None:
        """Mount the destination's disk."""
        subprocess.run(["mount", "--bind", self.folder / "disk", self.folder / "destination"], check=True)

    def unmount(self) -> None:
        """Unmount it, whoever has files open there."""
        subprocess.run(["umount", "-l", self.folder / "destination"], check=True)

    def unmount_disk(self) -> None:
        """Unmount all."""
        if self.disk:
            for place in (self.folder / "destination", self.disk):
                subprocess.run(["umount", "-l", place], check=False, capture_output=True)

    @property
    def destinations(self) -> tuple[Path, Path]:
        """Where the destinations' files are, whatever is mounted."""
        return self.disk or self.folder / "destination", self.bucket_folder / "destination"

    def submit(self) -> str:
        """Queue a copy of some snapshots from the source to a destination."""
        source, destination = self.chance.choice(
            [("dir", "s3"), ("dir", "dir2"), ("s3src", "dir2"), ("s3src", "s3")]
        )
        ids = self.chance.sample(self.snapshots, self.chance.randint(1, len(self.snapshots)))
        job = self.jobs.submit(JobSpec.of(*store_pair(self.stores[source], self.stores[destination]), ids))
        self.submitted.append(job)
        return job


@contextmanager
def world(folder: Path, seed: int, *, snapshots: int = 4, objects: int = 250) -> Iterator[World]:
    """Make it, and end it."""
    chance = random.Random(seed)
    with ExitStack() as stack:
        redis = stack.enter_context(own_redis(folder / "redis", "--port", "{port}", "--appendonly", "yes"))
        (folder / "s3").mkdir()
        server = stack.enter_context(rclone_s3_server(folder / "s3"))
        trouble = Trouble(chance=random.Random(seed + 1))
        proxy = stack.enter_context(troubled(server.endpoint, trouble)).replace("127.0.0.1", "localhost")
        bucket = server.make_bucket()
        settings = Settings(broker_url=redis.url, batch_objects=40, visibility_timeout=60)
        fleet = Fleet(
            redis.url, folder, {**server.environment, **SETTINGS, "SNAPFERRY_ACCESS_ENDPOINTS": proxy}
        )
        roles = [Role("orchestrator", f"o{n}") for n in (1, 2)] + [Role("worker", f"w{n}") for n in (1, 2, 3)]
        stores = {
            "dir": str(folder / "source"),
            "dir2": str(folder / "destination"),
            "s3src": f"s3://{bucket}/source?endpoint_url={proxy}",
            "s3": f"s3://{bucket}/destination?endpoint_url={proxy}",
        }
        made = World(
            folder, chance, redis, fleet, Jobs(settings, check=False), server, trouble, folder / "s3" / bucket,
            roles, stores,
        )  # fmt: skip
        shared = random_files(objects // 2, seed=seed)
        for number in range(snapshots):
            files = shared | {
                f"./{number}{k[1:]}": v
                for k, v in random_files(objects // 2, seed=seed * 100 + number + 1).items()
            }
            files["./large"] = random.Random(seed + number).randbytes(3_000_000)
            made.snapshots.append(fill(open_store(stores["dir"]), files))
        shutil.copytree(folder / "source", made.bucket_folder / "source")
        made.mount_disk()
        stack.callback(made.unmount_disk)
        for role in roles:
            stack.push(role.stack)
            made.start(role)
        yield made


def check_destination(made: World, folder: Path, bad: set[str]) -> int:
    """Check manifest-last and verified at the destination *folder*; return how many snapshots are published."""
    published = list((folder / ".manifests").rglob("?" * 55)) if (folder / ".manifests").is_dir() else []
    for path in published:
        try:
            text = path.read_bytes()
        except OSError:
            continue
        snapshot = "".join(path.relative_to(folder / ".manifests").parts)
        if digest(text) != snapshot:
            made.violations.append(f"{folder}: manifest {snapshot[:12]} is torn")
            continue
        with Manifest.from_bytes(parse_snapshot_id(snapshot), text) as manifest:
            for address in manifest.objects():
                place = folder / f".objects/{address[:3]}/{address[3:6]}/{address[6:9]}/{address[9:]}"
                try:
                    whole = digest(place.read_bytes()) == address
                except OSError:
                    whole = False
                if not whole and address not in bad:
                    made.violations.append(f"{folder}: {snapshot[:12]} is published without {address[:12]}")
                    return len(published)
    return len(published)


class Watch:
    """Checks the destinations all the time, from a thread of its own."""

    def __init__(self, made: World) -> None:
        self._made = made
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            for folder in self._made.destinations:
                check_destination(self._made, folder, set())
            self.rounds += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
