"""Limits on a real fleet: worker processes that share one Redis, measured at the source's server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec, Limits
from snapferry.workers.settings.environment import Settings
from tests.counting import Traffic, counting_proxy
from tests.integration.own_redis import own_redis
from tests.opening import open_store
from tests.sample import fill, make_store, random_files, tree
from tests.servers import S3Server

from .forge import Forge
from .processes import PATIENCE_S, Fleet, program, snapferry, started, until

MB = 1_000_000
OBJECT = 50_000

# How many stretches of time a limit is measured over.
STRETCHES = 2


@dataclass
class Source:
    """A source in a bucket behind a proxy that says what moves, and a fleet to copy from it to a directory."""

    fleet: Fleet
    jobs: Jobs
    url: str
    traffic: Traffic
    destination: Path
    detour: tuple[str, str]
    settings: Settings
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(100)))

    def snapshot(self, objects: int, size: int = OBJECT) -> tuple[str, set[str]]:
        """Make a snapshot of new objects, an empty one apart; return its id and the keys of its objects."""
        seed = next(self.numbers)
        files = random_files(objects, size=size, seed=seed)
        past_the_proxy = open_store(self.url.replace(*self.detour))
        return fill(past_the_proxy, files), {object_key(digest(data)) for data in files.values()}

    def submit(self, snapshot: str, **limits: int) -> str:
        return self.jobs.submit(
            JobSpec.of(*store_pair(self.url, str(self.destination)), [snapshot], limits=Limits(**limits))
        )

    def ask(self, *arguments: str) -> str:
        ended = snapferry(*arguments, "--broker", self.fleet.url, env=self.fleet.env)
        assert ended.code == 0, ended
        return ended.out

    def flowing(self, operation: str = "GetObject", bytes_: int = 1) -> float:
        """Wait until something moves; return when."""
        since = time.monotonic()
        until(lambda: self.traffic.moved(since, time.monotonic(), operation) >= bytes_, "bytes move")
        return time.monotonic()

    def rate(self, begin: float, seconds: float) -> float:
        """Return the bytes a second that moved from *begin* on, when the time is over."""
        until(lambda: time.monotonic() >= begin + seconds, "the time is over")
        return self.traffic.moved(begin, begin + seconds) / seconds

    def requests(self, begin: float, seconds: float) -> float:
        """Return the requests a second that were sent from *begin* on, when the time is over."""
        until(lambda: time.monotonic() >= begin + seconds, "the time is over")
        return self.traffic.sent(begin, begin + seconds) / seconds

    def keeps_to(
        self, limit: float, rate: Callable[[float, float], float], begin: float, seconds: float
    ) -> None:
        """
        Measure *rate* over stretches of *seconds*: none may exceed *limit* by more than 15 %.

        That the limit is used up is no part of this: a busy machine may need all of its time for less.
        """
        for stretch in range(STRETCHES):
            assert rate(begin + stretch * seconds, seconds) <= limit * 1.15


@contextmanager
def source_behind_a_proxy(
    server: S3Server, redis_url: str, folder: Path, *, window_batches: int = 512, batch_objects: int = 40
) -> Iterator[Source]:
    traffic = Traffic()
    settings = Settings(broker_url=redis_url, batch_objects=batch_objects, window_batches=window_batches)
    with counting_proxy(server, traffic) as (proxy, _):
        yield Source(
            fleet=Fleet(redis_url, folder, server.environment),
            jobs=Jobs(settings),
            url=proxy.url(server.make_bucket(), "a"),
            traffic=traffic,
            destination=folder / "b",
            detour=(proxy.endpoint, server.endpoint),
            settings=settings,
        )


@pytest.fixture
def source(rclone_memory_s3: S3Server, redis_url: str, tmp_path: Path) -> Iterator[Source]:
    with source_behind_a_proxy(rclone_memory_s3, redis_url, tmp_path) as found:
        yield found


@pytest.mark.slow
def test_four_workers_keep_to_a_rate_together_and_to_a_changed_one_within_two_seconds(source: Source) -> None:
    fleet = source.fleet
    snapshot, _ = source.snapshot(3500)
    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        job = source.submit(snapshot, rate=2 * MB)
        begin = source.flowing()
        source.keeps_to(2 * MB, source.rate, begin + 0.5, 3)

        said = source.ask("limit", job[:8], "--limit-rate", "4M")
        source.keeps_to(4 * MB, source.rate, time.monotonic() + 2, 2)
        words = source.ask("status", job)
        document = json.loads(source.ask("status", job, "--json"))

        unlimited = source.ask("limit", job, "--none")
        status = source.jobs.wait(job, timeout_s=PATIENCE_S)

    assert said == f"job {job}: 4.0 MB/s\n"
    assert "\nlimits      4.0 MB/s\n" in words
    assert document["limits"] == {
        "bytes_per_second": 4 * MB, "requests_per_second": None, "objects_in_flight": None,
    }  # fmt: skip
    assert unlimited == f"job {job}: no limits\n"
    assert status.state is State.DONE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objects", "size", "rate"),
    [(1700, OBJECT, 2 * MB), (12, 70 * MB, 20 * MB), (60, 12 * MB, 20 * MB)],
    ids=["many small", "few huge, in ranges", "medium"],
)
def test_four_workers_keep_to_a_rate_for_half_a_minute(
    source: Source, objects: int, size: int, rate: int
) -> None:
    fleet = source.fleet
    snapshot, _ = source.snapshot(objects, size)
    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        job = source.submit(snapshot, rate=rate)
        begin = source.flowing(bytes_=size)
        found = source.rate(begin + 2, 30)
        source.jobs.cancel(job)

    assert found == pytest.approx(rate, rel=0.05)


@pytest.mark.slow
def test_requests_are_limited_at_each_store_and_a_limit_can_come_later(source: Source) -> None:
    fleet = source.fleet
    snapshot, _ = source.snapshot(700, 10)
    source.traffic.delay_s = 0.05
    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        job = source.submit(snapshot, jobs=2)
        source.flowing()
        source.ask("limit", "--store", source.url, "--max-requests", "25")
        source.keeps_to(25, source.requests, time.monotonic() + 2, 2)
        words = source.ask("status", job)
        source.ask("limit", "--store", source.url, "--none")
        source.ask("limit", job, "--none")
        status = source.jobs.wait(job, timeout_s=PATIENCE_S)

    assert "\nfrom limits 25 requests/s, for all jobs together\n" in words
    assert status.state is State.DONE


@pytest.mark.slow
def test_a_bucket_that_nobody_limited_keeps_to_the_default_and_to_none_when_told(source: Source) -> None:
    """Two jobs, two workers with two processes each: a default that the server's log would show to be exceeded."""
    source.jobs = Jobs(source.settings.model_copy(update={"s3_max_requests": 25}))
    fleet = Fleet(
        source.fleet.url, source.fleet.folder, {**source.fleet.env, "SNAPFERRY_S3_MAX_REQUESTS": "25"}
    )
    source.fleet = fleet
    snapshots = [source.snapshot(300, 10)[0] for _ in range(2)]
    with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
        jobs = [source.submit(snapshot) for snapshot in snapshots]
        source.keeps_to(25, source.requests, source.flowing() + 1, 3)
        words = source.ask("status", jobs[0])
        document = json.loads(source.ask("status", jobs[0], "--json"))
        shown = source.ask("limit", "--store", source.url)
        listed = source.ask("limit")

        freed = source.ask("limit", "--store", source.url, "--max-requests", "none")
        freed_at = time.monotonic()
        ended = [source.jobs.wait(job, timeout_s=PATIENCE_S) for job in jobs]
        of_none = source.ask("limit")
        back = source.ask("limit", "--store", source.url, "--max-requests", "default")

    assert "\nfrom limits 25 requests/s (default), for all jobs together\n" in words
    assert "at to" not in words
    assert document["store_limits"]["source"] == {
        "bytes_per_second": None, "requests_per_second": 25, "objects_in_flight": None, "requests_by_default": True,
    }  # fmt: skip
    assert shown.endswith(": 25 requests/s (default)\n")
    assert listed == "no store has limits of its own\nevery other S3 store: 25 requests/s (default)\n"
    assert freed.endswith(": no limits\n")
    assert {status.state for status in ended} == {State.DONE}
    assert source.traffic.most_sent(freed_at, 1) > 2 * 25, "some second had more than the default"
    assert of_none == f"{freed}every other S3 store: 25 requests/s (default)\n"
    assert back == shown


def test_an_embedded_sync_keeps_to_the_default_unless_it_is_none(
    forge: Forge, rclone_memory_s3: S3Server, tmp_path: Path
) -> None:
    url = rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "a")
    snapshot = fill(open_store(url), random_files(60, size=10))
    for default, at_least_s in (("20", 2.9), ("none", 0.0)):
        began = time.monotonic()
        ended = forge.run(
            ("sync", "--from", url, "--to", str(tmp_path / default), "--id", snapshot),
            env={**rclone_memory_s3.environment, "SNAPFERRY_S3_MAX_REQUESTS": default},
        )
        assert ended.code == 0, ended
        # 61 objects and the manifest, less a tenth of a second's worth.
        assert time.monotonic() - began >= at_least_s


@pytest.mark.slow
def test_two_jobs_share_a_stores_limit_evenly(
    rclone_memory_s3: S3Server, redis_url: str, tmp_path: Path
) -> None:
    # A small window, so that workers take batches of both jobs.
    with source_behind_a_proxy(rclone_memory_s3, redis_url, tmp_path, window_batches=2) as source:
        fleet = source.fleet
        (one, of_one), (two, of_two) = source.snapshot(500), source.snapshot(500)
        with fleet.orchestrator(), fleet.worker("one"), fleet.worker("two"):
            said = source.ask("limit", "--store", source.url, "--limit-rate", "6M", "--json")
            jobs = [source.submit(snapshot) for snapshot in (one, two)]
            begin = source.flowing(bytes_=40 * OBJECT)
            total = source.rate(begin, 6)
            for job in jobs:
                source.jobs.cancel(job)

        log = [piece for piece in source.traffic.pieces if begin <= piece[0] < begin + 6]
        moved = [
            sum(size for _, _, path, size in log if any(path.endswith(key) for key in keys))
            for keys in (of_one, of_two)
        ]
        assert list(json.loads(said)["stores"].values()) == [
            {
                "bytes_per_second": 6 * MB, "requests_per_second": None, "objects_in_flight": None,
                "requests_by_default": False,
            }
        ]  # fmt: skip
        assert total <= 6 * MB * 1.15
        assert moved[0] == pytest.approx(moved[1], rel=0.2)


@pytest.mark.slow
def test_objects_in_flight_are_limited_in_all_and_a_killed_worker_does_not_keep_its_part(
    source: Source,
) -> None:
    fleet = source.fleet
    snapshot, _ = source.snapshot(2000, 10)
    source.traffic.delay_s = 0.1
    with redis.Redis.from_url(fleet.url, decode_responses=True) as client:

        def held(job: str) -> list[int]:
            found = client.hvals(f"snapferry:job:{job}:flights:held")
            return [int(each.split()[1]) for each in found]

        with fleet.orchestrator(), fleet.worker("one") as one, fleet.worker("two"):
            job = source.submit(snapshot, jobs=6)
            until(lambda: sorted(held(job)) == [1, 1, 2, 2], "four batches share six")
            one.kill_all()
            until(lambda: held(job) == [3, 3], "the others have all of it")
            source.traffic.most_running = 0
            source.flowing()
            until(lambda: source.traffic.most_running >= 6, "six are in flight again")
            source.ask("limit", job, "--jobs", "1")
            until(lambda: sum(held(job)) == 1, "one is in flight")
            source.traffic.most_running = 0
            source.rate(source.flowing(), 1)
            assert source.traffic.most_running == 1


def test_a_job_that_waits_for_its_limit_is_cancelled_within_seconds(source: Source) -> None:
    fleet = source.fleet
    snapshot, _ = source.snapshot(15)
    with fleet.orchestrator(), fleet.worker():
        job = source.submit(snapshot, rate=1000)
        until(lambda: source.jobs.status(job).workers, "a batch runs")
        source.rate(time.monotonic(), 1.5)
        source.jobs.cancel(job)
        # At its rate the batch takes minutes.
        status = source.jobs.wait(job, timeout_s=PATIENCE_S)

    assert status.state is State.CANCELLED
    assert status.objects_settled < status.objects_total
    assert not list(source.destination.rglob(".tmp-*"))


def test_a_job_whose_planning_waits_for_a_limit_is_cancelled_within_seconds(source: Source) -> None:
    fleet = source.fleet
    snapshots = [source.snapshot(1, 10)[0] for _ in range(20)]
    with fleet.orchestrator():
        source.ask("limit", "--store", source.url, "--max-requests", "1")
        job = source.jobs.submit(JobSpec.of(*store_pair(source.url, str(source.destination)), snapshots))
        until(lambda: source.jobs.status(job).state is State.PLANNING, "it is planned")
        source.jobs.cancel(job)
        status = source.jobs.wait(job, timeout_s=PATIENCE_S)

    assert status.state is State.CANCELLED
    assert not status.batches_handed, "it was cancelled while it was planned"


@pytest.mark.slow
def test_while_redis_is_away_nothing_moves_beyond_what_was_granted(
    rclone_memory_s3: S3Server, tmp_path: Path
) -> None:
    with (
        own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server,
        source_behind_a_proxy(rclone_memory_s3, server.url, tmp_path) as source,
    ):
        snapshot, _ = source.snapshot(300)
        with source.fleet.orchestrator(), source.fleet.worker("one"), source.fleet.worker("two"):
            job = source.submit(snapshot, rate=2 * MB)
            source.flowing(bytes_=MB)
            server.kill()
            away = time.monotonic()
            meanwhile = source.rate(away, 3) * 3
            server.start()
            status = source.jobs.wait(job, timeout_s=PATIENCE_S)

    # Half a second's worth may have been granted, and each of four waiting processes has an object paid for.
    assert meanwhile <= 2 * MB
    assert status.state is State.DONE
    assert status.copied == 301


@pytest.mark.parametrize("kind", ["rate", "requests"])
def test_an_embedded_sync_keeps_to_its_limits(tmp_path: Path, kind: str) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100, size=30_000))
    options = {"rate": ["--limit-rate", "1M"], "requests": ["--max-requests", "40"]}[kind]

    began = time.monotonic()
    ended = snapferry(
        "sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, *options
    )
    took = time.monotonic() - began

    assert ended.code == 0, ended
    # 3 MB and a tenth of a second; 101 objects and some questions, two or three requests each at the destination.
    assert took >= 2.8 if kind == "rate" else took >= 2.4
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_an_embedded_sync_that_waits_for_its_limit_is_interrupted_within_seconds(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(10, size=50_000))
    command = ["sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot]
    with started(*program(), *command, "--limit-rate", "1000", log=tmp_path / "log") as running:
        until((tmp_path / "b").exists, "it is planned")
        running.process.terminate()
        # At its rate the job takes minutes.
        assert running.process.wait(PATIENCE_S) == 130


def test_limits_that_make_no_sense_are_refused_in_one_line(
    redis_url: str, tmp_path: Path, forge: Forge
) -> None:
    jobs = Jobs(Settings(broker_url=redis_url))
    snapshot = make_store(tmp_path / "a", random_files(1))
    job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
    cases = {
        ("limit", job, "--limit-rate", "fast"): "not 'fast'",
        ("limit", job, "--limit-rate", "0"): "not '0'",
        (
            "limit",
            job,
            "--max-requests",
            "-1",
        ): "from 1 to 1,000,000, not '-1'; none or default",
        ("limit", job, "--jobs", "0"): "from 1 to 65,536, not '0'; none",
        ("limit", job, "--none", "--jobs", "1"): "--none cannot be combined",
        ("limit", job, "--store", "s3://b"): "JOB cannot be combined with --store",
        ("limit", "--jobs", "3"): "Name a job, or use --store.",
        ("limit", job, "--max-requests", "default"): "--max-requests default requires --store",
        ("limit", "--store", "s3://k:secret@b", "--none"): "carries credentials",
        ("limit", "nobody", "--none"): "job nobody not found",
        ("sync", "--from", "/a", "--to", "/b", "--all", "--limit-rate", "1.5.1M"): "not '1.5.1M'",
    }
    for arguments, said in cases.items():
        ended = forge.run(arguments, {"SNAPFERRY_BROKER_URL": redis_url})
        assert (ended.code, ended.out) == (2, ""), (arguments, ended)
        assert ended.err.count("\n") == 1, ended
        assert said in ended.err
        assert "secret" not in ended.err


@pytest.mark.slow
def test_limits_are_shown_and_changed_one_by_one(redis_url: str, tmp_path: Path, forge: Forge) -> None:
    jobs = Jobs(Settings(broker_url=redis_url))
    snapshot = make_store(tmp_path / "a", random_files(1))

    def ask(*arguments: str) -> str:
        ended = forge.run(arguments, {"SNAPFERRY_BROKER_URL": redis_url})
        assert (ended.code, ended.err) == (0, ""), ended
        return ended.out

    copy = ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, "-q"]
    job = ask("submit", *copy, "--limit-rate", "1.5Mi", "--jobs", "7").strip()
    assert jobs.status(job).limits == Limits(rate=1536 * 1024, jobs=7)
    assert (
        ask("limit", job, "--max-requests", "12", "--jobs", "none") == f"job {job}: 1.6 MB/s, 12 requests/s\n"
    )
    assert ask("limit", job) == f"job {job}: 1.6 MB/s, 12 requests/s\n"
    assert ask("limit", job, "--none") == f"job {job}: no limits\n"
    assert ask("limit", job, "--max-requests", "12") == f"job {job}: 12 requests/s\n"
    assert ask("limit") == "no store has limits of its own\n"
    assert json.loads(ask("limit", "--json")) == {
        "stores": {}, "defaults": {"s3": {"requests_per_second": None}},
    }  # fmt: skip
    place = f"file://{tmp_path}/a"
    assert ask("limit", "--store", str(tmp_path / "a"), "--jobs", "1") == f"{place}: 1 object in flight\n"
    assert ask("limit") == f"{place}: 1 object in flight\n"
    assert "from limits 1 object in flight, for all jobs together\n" in ask("status", job)
    jobs.cancel(job)
    again = jobs.resume(job)
    assert again is not None
    # Those that held last.
    assert jobs.status(again).limits == Limits(requests=12)
    ended = forge.run(["limit", job, "--jobs", "1"], {"SNAPFERRY_BROKER_URL": redis_url})
    assert (ended.code, ended.out) == (0, f"job {job} has already ended: it is cancelled\n")
