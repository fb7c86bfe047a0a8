"""What the faults are done to: Redis, hosts with orchestrators and workers, stores, and jobs."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, JobSpec
from snapferry.workers.settings.environment import Settings, parse_broker_url
from tests.integration.processes import PATIENCE_S, Fleet, Started
from tests.sample import fill
from tests.servers import S3Server, rclone_s3_server

from .broker import SentinelBroker, SingleBroker, broker
from .clock import SKEWED_CLOCK
from .proxy import Trouble, troubled

VISIBILITY_S: Final = 30
BATCH_OBJECTS: Final = 20
SETTINGS: Final = {
    "SNAPFERRY_BATCH_OBJECTS": str(BATCH_OBJECTS),
    "SNAPFERRY_VISIBILITY_TIMEOUT": str(VISIBILITY_S),
    "SNAPFERRY_GRACE": "3",
}

DISK_BYTES: Final = 256 * 1024**2
DISK_INODES: Final = 100_000

# An object that is sent to a bucket in parts.
LARGE_BYTES: Final = 9 * 1024**2

# What every process runs first: it resolves names as a file says.
BEFORE: Final = """
import socket
from pathlib import Path
folder, resolve = Path({folder!r}), socket.getaddrinfo
def resolved(host, *arguments, **options):
    if host in ("localhost", b"localhost") and (folder / "no-names").exists():
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return resolve(host, *arguments, **options)
socket.getaddrinfo = resolved
"""


class Violation(NamedTuple):
    """A clause of the oracle that does not hold, and what was found."""

    clause: str
    found: str


@dataclass
class Role:
    """A process of the fleet, on a *host*, that is started again when it ends. *past* are its ended processes."""

    kind: str
    name: str
    host: str
    arguments: tuple[str, ...] = ()
    stack: ExitStack = field(default_factory=ExitStack)
    running: Started | None = None
    past: list[Started] = field(default_factory=list)

    @property
    def threads(self) -> bool:
        """Whether its pool is one of threads."""
        return "threads" in self.arguments

    def family(self) -> list[int]:
        """Return the ids of all processes of the role."""
        return self.running.family() if self.running else []


@dataclass
class World:
    """
    All of it.

    *epoch* counts how often Redis may have forgotten what it had acknowledged. *may_fail* and *may_forget*: a fault of
    the round may make jobs fail, or Redis forget some. *slack_s*: seconds by which the bounds of the oracle are longer,
    for a test that must not fail on a busy machine. *contents*: snapshot -> path -> bytes. *content*: root of a
    source -> path -> length. *damaged*: root of a destination -> addresses of objects that faults have damaged there.
    """

    folder: Path
    redis: SingleBroker | SentinelBroker
    fleet: Fleet
    settings: Settings
    jobs: Jobs
    server: S3Server
    trouble: Trouble
    bucket: str
    proxy: str
    roles: list[Role]
    generation: int = 0
    snapshots: list[str] = field(default_factory=list)
    pushed: str = ""
    submitted: list[str] = field(default_factory=list)
    pulls: list[JobSpec] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    damaged: dict[Path, set[str]] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    disk: Path | None = None
    epoch: int = 0
    may_fail: bool = False
    may_forget: bool = False
    may_misread: bool = False
    slack_s: float = 0.0
    contents: dict[str, dict[str, bytes]] = field(default_factory=dict)
    content: dict[Path, dict[str, int]] = field(default_factory=dict)
    false_progress: list[str] = field(default_factory=list)
    _redis_lock: threading.Lock = field(default_factory=threading.Lock)

    def violate(self, clause: str, found: str) -> None:
        """Record a violation, once."""
        violation = Violation(clause, found)
        if violation not in self.violations:
            self.violations.append(violation)
            print(f"VIOLATION {clause}: {found}", flush=True)

    # Places.

    @property
    def bucket_folder(self) -> Path:
        """Where the S3 server keeps the bucket."""
        return self.folder / "s3" / self.bucket

    @property
    def tree(self) -> Path:
        """The directory that is pushed."""
        return self.folder / "tree"

    @property
    def _round(self) -> str:
        return f"round{self.generation}"

    @property
    def pulled(self) -> Path:
        """Where snapshots are pulled to in this round."""
        return self.folder / "pulled" / self._round

    @property
    def sources(self) -> list[Path]:
        """Where the files of the sources are."""
        return [self.folder / "source", self.bucket_folder / "source"]

    @property
    def _local(self) -> Path:
        """Where the files of the disk are, whatever is mounted."""
        return (self.disk or self.folder / "mount") / self._round

    @property
    def destinations(self) -> list[Path]:
        """Where the files of the round's destinations are."""
        return [self._local / "copies", self.bucket_folder / self._round / "copies"]

    @property
    def mirrors(self) -> list[Path]:
        """Where the files of the round's mirrors are."""
        return [self._local / "mirror", self.bucket_folder / self._round / "mirror"]

    def _s3(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}?endpoint_url={self.proxy}"

    @property
    def source_urls(self) -> list[str]:
        """The sources: a directory and a bucket with the same snapshots."""
        return [str(self.folder / "source"), self._s3("source")]

    @property
    def destination_urls(self) -> list[str]:
        """The destinations of the round."""
        return [str(self.folder / "mount" / self._round / "copies"), self._s3(f"{self._round}/copies")]

    @property
    def mirror_urls(self) -> list[str]:
        """The mirrors of the round."""
        return [str(self.folder / "mount" / self._round / "mirror"), self._s3(f"{self._round}/mirror")]

    # Processes.

    def start(self, role: Role) -> None:
        """Start a role, and wait until it is ready or has ended."""
        clock = SKEWED_CLOCK.format(file=str(self.folder / f"clock-{role.name}"))
        before = BEFORE.format(folder=str(self.folder)) + clock
        if role.running is not None:
            role.past.append(role.running)
        if role.kind == "orchestrator":
            started = self.fleet.orchestrator("--hostname", f"{role.name}@%h", *role.arguments, before=before)
        else:
            started = self.fleet.worker(role.name, *role.arguments, before=before)
        role.running = role.stack.enter_context(started)

    # The disk.

    def mount_disk(self) -> None:
        """Give the destination in a directory a small disk of its own, where this process may mount one."""
        disk, place, empty = (self.folder / name for name in ("disk", "mount", "empty"))
        for folder in (disk, place, empty):
            folder.mkdir()
        options = f"size={DISK_BYTES},nr_inodes={DISK_INODES}"
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=False, capture_output=True
        )
        if made.returncode == 0:
            self.disk = disk
            # Below the mount nothing can be written, as administrators arrange it.
            subprocess.run(["mount", "--bind", empty, place], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
            self.mount()

    def mount(self) -> None:
        """Mount the disk at its place."""
        subprocess.run(["mount", "--bind", self.folder / "disk", self.folder / "mount"], check=True)

    def unmount(self) -> None:
        """Unmount it, whoever has files open there."""
        subprocess.run(["umount", "-l", self.folder / "mount"], check=True)

    def unmount_disk(self) -> None:
        """Unmount all."""
        if self.disk:
            for place in (self.folder / "mount", self.folder / "mount", self.disk):
                subprocess.run(["umount", "-l", place], check=False, capture_output=True)

    # Rounds.

    def begin_round(self, number: int) -> None:
        """Give the round destinations of its own: empty ones, and mirrors with a snapshot that is to be deleted."""
        self.generation = number
        self.submitted.clear()
        self.pulls.clear()
        self.cancelled.clear()
        self.may_fail = self.may_forget = self.may_misread = False
        self.damaged = {root: set() for root in [*self.destinations, *self.mirrors]}
        for root in self.destinations:
            root.mkdir(parents=True)
        self.pulled.mkdir(parents=True)
        for root in self.mirrors:
            fill(open_store(str(root)), {"./old": b"of a snapshot that the source no longer has"})

    def end_round(self) -> None:
        """Remove what the round has written."""
        for folder in (self._local, self.bucket_folder / self._round, self.pulled):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def redis_alone(self) -> Iterator[None]:
        """Keep other faults off Redis, from the time when it may lose its primary."""
        with self._redis_lock:
            self.redis.settle()
            yield

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """Let Redis forget what it has acknowledged."""
        self.may_forget = True
        self.epoch += 1
        try:
            yield
        finally:
            self.epoch += 1

    def interrupting(self) -> AbstractContextManager[None]:
        """Let Redis be away, which where sentinels watch it lets it forget what it has acknowledged."""
        return self.forgetting() if self.redis.forgets else nullcontext()

    @contextmanager
    def damaging(self, root: Path, path: Path) -> Iterator[None]:
        """Damage the object at *path*: until the end of the round it may be missing there."""
        address = "".join(path.relative_to(root / ".objects").parts)
        self.damaged[root].add(address)
        yield

    def role(self, name: str) -> Role:
        """Return the role with this *name*."""
        return next(role for role in self.roles if role.name == name)


def content_of(root: Path) -> dict[str, int]:
    """Return the files below *root*: path -> length."""
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(root)): path.lstat().st_size for path in found}


def _files(number: int, seed: int) -> dict[str, bytes]:
    """Return the files of a snapshot: some that all have, and some of its own."""
    files = {}
    for owner, count in (("all", 50), (str(number), 50)):
        chance = random.Random(f"{seed} {owner}")
        for index in range(count):
            files[f"./{owner} {index % 5}/file-{index:03}"] = chance.randbytes(chance.randint(1, 9000))
    return files | {"./empty": b""}


@contextmanager
def world(
    folder: Path,
    seed: int,
    *,
    snapshots: int = 3,
    large_bytes: int = LARGE_BYTES,
    roles: list[Role] | None = None,
    sentinels: bool = False,
) -> Iterator[World]:
    """Make it, and end it. *seed* decides how many orchestrators and workers there are; *sentinels* watch Redis."""
    chance = random.Random(seed)
    with ExitStack() as stack:
        redis = stack.enter_context(broker(folder / "redis", sentinels=sentinels))
        (folder / "s3").mkdir()
        # The faults change files behind the back of the S3 server, which remembers directories for 5 minutes.
        with patch.dict(os.environ, {"RCLONE_DIR_CACHE_TIME": "1s"}):
            server = stack.enter_context(rclone_s3_server(folder / "s3"))
        trouble = Trouble(chance=random.Random(seed + 1))
        proxy = stack.enter_context(troubled(server.endpoint, trouble)).replace("127.0.0.1", "localhost")
        temporary = folder / "temporary"
        temporary.mkdir()
        settings = Settings(
            broker_url=parse_broker_url(redis.url),
            batch_objects=BATCH_OBJECTS,
            visibility_timeout=VISIBILITY_S,
        )
        places = f"file://{folder} tree://{folder} s3://"
        access = {f"SNAPFERRY_ACCESS_{right}": places for right in ("READ", "WRITE", "DELETE")}
        environment = {**server.environment, **SETTINGS, **access, "SNAPFERRY_ACCESS_ENDPOINTS": proxy}
        fleet = Fleet(redis.url, folder, {**environment, "TMPDIR": str(temporary)})
        made = World(
            folder,
            redis,
            fleet,
            settings,
            Jobs(settings, check=False, answer_s=5),
            server,
            trouble,
            server.make_bucket(),
            proxy,
            roles or _roles(chance),
        )
        made.mount_disk()
        stack.callback(made.unmount_disk)
        for number in range(snapshots):
            files = _files(number, seed)
            if not number:
                files["./large"] = random.Random(seed).randbytes(large_bytes)
            made.snapshots.append(fill(open_store(made.source_urls[0]), files))
            made.contents[made.snapshots[-1]] = files
        for path, data in _files(snapshots, seed).items():
            place = made.tree / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        for role in made.roles:
            stack.push(role.stack)
        with ThreadPoolExecutor() as pool:
            list(pool.map(made.start, made.roles))
        _push(made)
        made.contents[made.pushed] = _files(snapshots, seed)
        shutil.copytree(made.sources[0], made.sources[1])
        made.content = {root: content_of(root) for root in [*made.sources, made.tree]}
        yield made


def _roles(chance: random.Random) -> list[Role]:
    """Return 1 or 2 orchestrators and 2 or 3 workers, on two hosts."""
    roles = [Role("orchestrator", f"o{n}", f"host{n}") for n in range(1, chance.randint(1, 2) + 1)]
    pools: tuple[tuple[str, ...], ...] = ((), ("--pool", "threads"))
    for number in range(1, chance.randint(2, 3) + 1):
        # The first worker always has child processes, which faults are done to.
        arguments = chance.choice(pools) if number > 1 else ()
        roles.append(Role("worker", f"w{number}", f"host{(number + 1) % 2 + 1}", arguments))
    return roles


def _push(made: World) -> None:
    """Push the tree into the first source, so that all sources have its snapshot, too."""
    source, destination = store_pair(f"tree://{made.tree}", made.source_urls[0])
    job = made.jobs.submit(
        JobSpec(source=source, destination=destination, everything=True, action=Action.PUSH)
    )
    status = made.jobs.wait(job, timeout_s=PATIENCE_S)
    assert status.state is State.DONE, status
    made.pushed = made.jobs.snapshots(job)[0].id
    made.snapshots.append(made.pushed)
