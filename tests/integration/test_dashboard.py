"""The dashboard beside a real fleet: what it shows, to whom, and that it changes nothing."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
import yaml

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import Address, SnapshotId, object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import FAILURES_KEPT, Ledger, State
from snapferry.workers.messages import JobSpec, StoreRef, encode_addresses
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.traffic.history import TrafficHistory
from tests.sample import random_files
from tests.servers import free_port

from .dashboards import Dashboard, basic, dashboard
from .forge import Forge
from .own_redis import own_redis
from .processes import PATIENCE_S, REPOSITORY, Fleet, finished, until
from .raw_store import write_snapshots

ODD_PATHS = ["./<script>alert(1)</script>", "./left\u202eright", "./" + "long" * 5_000, "./bell\x07"]

# The page of a job with 10,000 snapshots reads all their ids, 1.4 MB. The paths of 100,000 failures are far more.
REDIS_BYTES_A_PAGE = 3_000_000

SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


def sent_by(redis_url: str) -> int:
    """Return how many bytes Redis has sent to anybody so far."""
    with redis.Redis.from_url(redis_url) as client:
        found: int = client.info("stats")["total_net_output_bytes"]
    return found


@pytest.fixture
def shown(redis_url: str, tmp_path: Path) -> Iterator[Dashboard]:
    with dashboard(tmp_path, redis_url) as running:
        yield running


def test_a_job_with_bad_objects_is_told_with_its_paths_snapshots_and_workers(
    forge: Forge, redis_url: str, tmp_path: Path
) -> None:
    files = random_files(300) | {path: path.encode() for path in ODD_PATHS}
    ids = write_snapshots(tmp_path / "a", [files, random_files(20, seed=9)])
    bad = {digest(path.encode()) for path in ODD_PATHS}
    for address in bad:
        (tmp_path / "a" / object_key(address)).unlink()
    fleet = Fleet(redis_url, tmp_path)
    jobs = Jobs(Settings(broker_url=redis_url))
    with (
        dashboard(tmp_path, redis_url, "--flower", "http://127.0.0.1:5555/") as shown,
        fleet.orchestrator(),
        fleet.worker(),
    ):
        assert "No jobs yet" in shown.page("/").text
        job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), ids))
        ended = jobs.wait(job, timeout_s=PATIENCE_S)
        assert ended.state is State.FAILED

        listed = shown.page("/")
        assert job[:8] in listed.text
        assert "failed" in listed.text
        assert f'href="/jobs/{job}"' in listed.body

        found = shown.page(f"/jobs/{job}")
        assert ended.error in found.text
        assert f"{ended.copied:,} copied" in found.text
        assert "Failed objects 4" in found.text
        assert "ObjectMissing" in found.text
        assert f"snapferry retry {job}" in found.text
        assert f'href="http://127.0.0.1:5555/tasks?state=FAILURE%20args%3A{job[:8]}"' in found.body
        assert all(snapshot in found.text for snapshot in ids)
        assert "published 1" in found.text

        # Reading manifests takes its time, and does so beside the pages.
        found = until(
            lambda: page if "bell" in (page := shown.page(f"/jobs/{job}")).text else None, "paths are found"
        )
        assert "being looked up" not in found.text
        assert "./<script>alert(1)</script> in snapshot" in found.text
        assert "<script>alert" not in found.body
        assert "./left\\u202eright" in found.text
        assert "./bell\\x07" in found.text
        assert "(20,002 characters)" in found.text
        assert all(address in found.text for address in bad)

        with jobs.records() as client:
            history = TrafficHistory(client)
            moved = {one: month.total for one, (_, month) in history.past(history.series()).items()}
        assert {
            (one.kind.value, one.name.partition("@")[0]): total for one, total in moved.items()
        } == dict.fromkeys(
            [
                ("fleet", ""),
                ("worker", "worker"),
                ("read", f"file://{tmp_path}/a"),
                ("written", f"file://{tmp_path}/b"),
            ],
            ended.bytes_copied,
        )
        assert f"file://{tmp_path}/b" in shown.page("/throughput").text

        exported = shown.page(f"/jobs/{job}/failures.jsonl")
        printed = forge.run(["failures", job, "--json", "--broker", redis_url])
        assert exported.body == printed.out
        assert {json.loads(line)["address"] for line in exported.body.splitlines()} == bad
        rows = list(csv.DictReader(io.StringIO(shown.page(f"/jobs/{job}/failures.csv").body, newline="")))
        assert {row["address"] for row in rows} == bad
        assert "./left\\u202eright" in {row["path"] for row in rows}

        workers = until(
            lambda: page if (page := shown.page("/workers")).text.count("online") == 2 else None,
            "both are heard of",
        )
        assert "worker@" in workers.text
        assert "orchestrator@" in workers.text
        assert 'href="http://127.0.0.1:5555/worker/worker@' in workers.body

        assert shown.ask("/jobs/nobody").status == 404
        beginning = shown.ask(f"/jobs/{job[:6]}")
        assert (beginning.status, beginning.headers["location"]) == (302, f"/jobs/{job}")
        assert "Traceback" not in shown.process.logged()


def test_progress_throughput_and_workers_move_while_a_job_runs(redis_url: str, tmp_path: Path) -> None:
    ledger = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    ledger.create(request("moving"))
    ledger.advance("moving", State.PLANNING)
    ledger.advance("moving", State.COPYING, objects_total=10_000, bytes_total=10_000_000, batches_total=10)
    with dashboard(tmp_path, redis_url) as shown:

        def moved() -> str:
            steps[0] += 100
            ledger.set_fields("moving", objects_settled=steps[0], bytes_settled=1000 * steps[0])
            ledger.set_fields("moving", copied=steps[0], bytes_copied=1000 * steps[0])
            page = shown.page("/jobs/moving")
            speed = re.search(r"Throughput [0-9.]+ [kM]?B/s", page.text)
            return page.body if speed and '<path class="line"' in page.body else ""

        steps = [0]
        page = until(moved, "a speed and a chart")

    assert 'aria-valuenow="0"' not in page
    assert 'data-refresh="2"' in page


def test_everything_but_get_and_head_is_refused(shown: Dashboard, redis_url: str) -> None:
    ledger = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    ledger.create(request("job"))
    for path in ("/", "/jobs/job", "/workers", "/healthz", "/nowhere", "/static/live.js"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answer = shown.ask(path, method=method, body=b"state=cancelled")
            assert answer.status == 405, (path, method)
            # What Tornado does not know at all never comes to a handler.
            assert answer.headers.get("allow", "GET, HEAD") == "GET, HEAD"
        assert shown.ask(path, method="HEAD").body == ""
        assert shown.ask(path, method="HEAD").status == shown.ask(path).status
    assert ledger.status("job").state is State.QUEUED


def test_a_redis_user_that_can_only_read_is_enough_for_the_pages(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ledger = Ledger(client, expires_s=3600)
        ledger.create(request("job"))
        # A job whose record expired is still in the list: nothing is tidied up by looking.
        client.zadd("snapferry:jobs", {"expired": 1})
        # A script runs with the rights of its user: it can read, and nothing else.
        rights = ["+@read", "+@connection", "+time", "+evalsha", "+script|load"]
        client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">only-reads", "~*", *rights)
        try:
            with dashboard(tmp_path, redis_url.replace("://", "://reader:only-reads@")) as shown:
                assert "queued" in shown.page("/").text
                assert "queued" in shown.page("/jobs/job").text
                assert shown.page("/workers").status == 200
                assert shown.ask("/jobs/expired").status == 404
                assert "only-reads" not in shown.process.logged()
            assert client.zscore("snapferry:jobs", "expired") == 1
        finally:
            client.execute_command("ACL", "DELUSER", "reader")


def test_every_answer_has_the_headers_that_keep_a_browser_safe(shown: Dashboard) -> None:
    for path in (
        "/",
        "/workers",
        "/healthz",
        "/nowhere",
        "/jobs/nobody",
        "/static/dashboard.css",
        "/static/none",
    ):
        answer = shown.ask(path)
        assert answer.headers.items() >= SAFE.items(), path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers
    assert shown.ask("/", method="POST").headers.items() >= SAFE.items()
    assert shown.ask("/static/../handlers.py").status in (403, 404)
    assert shown.ask("/static/%2e%2e/handlers.py").status in (403, 404)


def test_on_loopback_a_name_of_a_stranger_is_refused(redis_url: str, tmp_path: Path) -> None:
    with dashboard(tmp_path, redis_url, "--host", "dash.example") as shown:
        for host in ("127.0.0.1", "localhost:5556", "[::1]:5556", "DASH.example:80"):
            assert shown.ask("/", headers={"Host": host}).status == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:5556"):
            for path in ("/", "/healthz", "/static/live.js"):
                assert shown.ask(path, headers={"Host": host}).status in (400, 421), host


def test_its_log_has_the_form_of_every_other(redis_url: str, tmp_path: Path) -> None:
    with dashboard(tmp_path, redis_url, "--verbose") as shown:
        shown.ask("/nowhere")
        lines = until(lambda: shown.process.logged().splitlines()[1:], "the request is logged")

    (line,) = map(json.loads, lines)
    assert line["level"] == "info"
    assert line["logger"] == "snapferry.orchestrator.dashboard.handlers"
    assert re.fullmatch(r"127\.0\.0\.1 GET /nowhere\S* 404 \d+ ms", line["message"])


def test_others_need_the_password_for_everything_but_the_health_check(redis_url: str, tmp_path: Path) -> None:
    secret = "a-pass:wörd"
    env = {"SNAPFERRY_DASHBOARD_BASIC_AUTH": f"operator:{secret}"}
    with dashboard(tmp_path, redis_url, "--address", "0.0.0.0", env=env, reach="127.0.0.1") as shown:
        assert shown.ask("/healthz").status == 200
        for path in ("/", "/workers", "/jobs/x", "/static/live.js", "/nowhere"):
            refused = shown.ask(path)
            assert refused.status == 401, path
            assert refused.headers["www-authenticate"].startswith('Basic realm="snapferry"')
        assert shown.ask("/static/live.js", headers=basic("operator:wrong")).status == 401
        assert shown.ask("/", headers=basic("operator:")).status == 401
        answer = shown.ask("/", headers=basic(f"operator:{secret}"))
        assert answer.status == 200
        assert secret not in answer.body
        assert secret not in shown.process.logged()


def test_whoever_guesses_passwords_is_slowed_down_and_then_let_in_again(
    redis_url: str, tmp_path: Path
) -> None:
    env = {"SNAPFERRY_DASHBOARD_BASIC_AUTH": "operator:right"}
    with dashboard(tmp_path, redis_url, env=env) as shown, ThreadPoolExecutor(200) as pool:
        guesses = list(
            pool.map(lambda n: shown.ask("/workers", headers=basic(f"operator:{n}")).status, range(200))
        )
        assert set(guesses) == {401, 429}, "of a burst some are answered late, and the others not looked at"
        assert shown.ask("/workers").status == 401
        assert shown.ask("/healthz").status == 200
        until(
            lambda: shown.ask("/workers", headers=basic("operator:right")).status == 200, "the door is open"
        )
        assert "wrong password from 127.0.0.1" in shown.process.logged()


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--address", "0.0.0.0"], {}, "SNAPFERRY_DASHBOARD_BASIC_AUTH"),
        (["--address", "::"], {}, "SNAPFERRY_DASHBOARD_BASIC_AUTH"),
        (["--address", "0.0.0.0"], {"SNAPFERRY_DASHBOARD_BASIC_AUTH": "hunter2"}, "must be user:password"),
        (
            ["--address", "192.0.2.7"],
            {"SNAPFERRY_DASHBOARD_BASIC_AUTH": "a:hunter2"},
            "cannot listen on 192.0.2.7",
        ),
        (["--flower", "http://me:hunter2@host"], {}, "--flower must be"),
        (["--port", "70000"], {}, "--port"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_nothing_is_served(
    forge: Forge, redis_url: str, arguments: list[str], env: dict[str, str], said: str
) -> None:
    ended = forge.run(["dashboard", "--port", "0", "--broker", redis_url, *arguments], env=env)

    assert ended.code == 2
    assert ended.out == ""
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "hunter2" not in ended.err


def test_without_a_broker_there_is_nothing_to_show(forge: Forge) -> None:
    ended = forge.run(["dashboard"])

    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "SNAPFERRY_BROKER_URL" in ended.err


def test_a_port_that_is_taken_is_said(forge: Forge, shown: Dashboard, redis_url: str) -> None:
    port = shown.url.rpartition(":")[2]

    ended = forge.run(["dashboard", "--port", port, "--broker", redis_url])

    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert f"port {port}" in ended.err


def test_while_redis_is_away_the_pages_say_so_and_come_back_with_it(tmp_path: Path) -> None:
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        ledger = Ledger(redis.Redis.from_url(server.url, decode_responses=True), expires_s=3600)
        ledger.create(request("job"))
        broker = server.url.replace("://", "://:hunter2@")
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", "hunter2")
        with dashboard(tmp_path, broker) as shown:
            assert "queued" in shown.page("/").text
            server.kill()
            for path in ("/", "/jobs/job", "/workers", "/throughput", "/schedules"):
                answer = shown.ask(path)
                assert answer.status == 503, path
                assert "Redis does not answer" in answer.text
                assert "hunter2" not in answer.body
                assert answer.headers["retry-after"]
                assert 'data-refresh="5"' in answer.body
            assert shown.ask("/healthz").status == 200
            assert shown.ask("/static/live.js").status == 200
            server.command += ["--requirepass", "hunter2"]
            server.url = broker
            server.start()
            until(lambda: shown.ask("/").status == 200, "the list is back")
            assert "queued" in shown.page("/jobs/job").text
            assert "Traceback" not in shown.process.logged()


def test_a_dashboard_may_start_before_redis(tmp_path: Path) -> None:
    broker = f"redis://127.0.0.1:{free_port()}/0"
    with dashboard(tmp_path, broker) as shown:
        assert shown.ask("/").status == 503


PREPARATION = """
import sys, threading, time
from snapferry.orchestrator.dashboard import preparation
real = preparation.prepare
def prepare(sources):
    real(sources)
    time.sleep(0.2)
    print("prepared", file=sys.stderr, flush=True)
    time.sleep({more})
preparation.prepare = prepare
"""


def test_it_answers_once_its_pages_are_prepared(redis_url: str, tmp_path: Path) -> None:
    with dashboard(tmp_path, redis_url, before=PREPARATION.format(more=0)) as shown:
        first, *_, last = shown.process.logged().splitlines()
        assert first == "prepared"
        assert "dashboard at" in last


@pytest.mark.slow
def test_it_answers_although_preparation_takes_long_and_ends_without_it(
    redis_url: str, tmp_path: Path
) -> None:
    with dashboard(tmp_path, redis_url, before=PREPARATION.format(more=600)) as shown:
        assert shown.page("/").status == 200
        shown.process.process.send_signal(signal.SIGTERM)
        assert shown.process.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in shown.process.logged()


def test_it_ends_when_told_to_and_leaves_nothing_behind(redis_url: str, tmp_path: Path) -> None:
    job, _ = many_failures(redis_url, tmp_path / "a", snapshots=300, failed=2_000)
    with dashboard(tmp_path, redis_url) as shown:
        shown.page(f"/jobs/{job}")
        assert len(shown.process.family()) > 1, "a look-up runs"
        assert list(tmp_path.glob("tmp-*/snapferry-dashboard-*"))
        shown.process.process.send_signal(signal.SIGTERM)
        assert shown.process.process.wait(PATIENCE_S) == 0
        until(lambda: not shown.process.family(), "its look-up ended with it")
        assert not list(tmp_path.glob("tmp-*/snapferry-dashboard-*"))
        assert "Traceback" not in shown.process.logged()


def test_it_ends_although_a_request_never_does(redis_url: str, tmp_path: Path) -> None:
    never = "import threading\nfrom snapferry.orchestrator.jobs import Jobs\n"
    never += "Jobs.listing = lambda self: threading.Event().wait()"
    with dashboard(tmp_path, redis_url, before=never) as shown:
        # The list is read before it answers.
        shown.process.process.send_signal(signal.SIGTERM)
        assert shown.process.process.wait(PATIENCE_S) == 0
        assert not list(tmp_path.glob("tmp-*/snapferry-dashboard-*"))
        assert "Traceback" not in shown.process.logged()


def test_a_source_that_cannot_be_read_here_costs_the_paths_alone(redis_url: str, tmp_path: Path) -> None:
    job, _ = many_failures(redis_url, tmp_path / "a", snapshots=2, failed=30)
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    with dashboard(tmp_path, redis_url) as shown:
        found = until(
            lambda: page if "cannot be looked up here" in (page := shown.page(f"/jobs/{job}")).text else None,
            "the error is shown",
        )
        assert "ObjectMissing" in found.text
        assert "Failed objects 30" in found.text
    assert not (tmp_path / "a").exists()


def test_each_page_stays_small_with_many_jobs_snapshots_and_failures(redis_url: str, tmp_path: Path) -> None:
    """
    A thousand jobs, and one of 10,000 snapshots and 100,000 failed objects.

    A page is small, and so is what it makes Redis send: neither grows with the number of failures.
    """
    ledger = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    for number in range(1_000):
        ledger.create(request(f"job-{number}"))
    job, _ = many_failures(redis_url, tmp_path / "a", snapshots=10_000, failed=100_000, manifests=False)
    with dashboard(tmp_path, redis_url) as shown:
        shown.page("/healthz")
        for path in (
            "/",
            "/?page=20",
            "/?state=queued&page=7",
            f"/jobs/{job}",
            f"/jobs/{job}?snapshots=150&failures=37",
            f"/jobs/{job}?state=failed",
            "/workers",
        ):
            before = sent_by(redis_url)
            found = shown.page(path)
            assert sent_by(redis_url) - before < REDIS_BYTES_A_PAGE, path
            assert len(found.body) < 300_000
        assert "Failed objects 100,000" in shown.page(f"/jobs/{job}").text
        assert f"the first {FAILURES_KEPT:,} of" in shown.page(f"/jobs/{job}").text


def test_the_paths_of_thousands_of_failed_objects_are_turned_in_pages(redis_url: str, tmp_path: Path) -> None:
    job, addresses = many_failures(redis_url, tmp_path / "a", snapshots=3, failed=3_000)
    with dashboard(tmp_path, redis_url) as shown:
        last = f"/jobs/{job}?failures=120"
        found = until(
            lambda: page if "2,976 to 3,000 of 3,000" in (page := shown.page(last)).text else None,
            "all of them are found",
        )
        seen = {address for address in addresses if address in found.body}
        assert len(seen) == 25
        assert found.text.count("./file ") == 25
        before = sent_by(redis_url)
        assert "26 to 50 of 3,000" in shown.page(f"/jobs/{job}?failures=2").text
        assert sent_by(redis_url) - before < REDIS_BYTES_A_PAGE


def test_the_service_of_the_compose_file_asks_for_a_password_and_reads_stores_only(
    redis_url: str, tmp_path: Path
) -> None:
    service = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["dashboard"]
    assert service["ports"] == ["127.0.0.1:5556:5556"]
    assert [volume for volume in service["volumes"] if not volume.endswith(":ro")] == []
    password = service["environment"]["SNAPFERRY_DASHBOARD_BASIC_AUTH"]
    assert password.startswith("${SNAPFERRY_DASHBOARD_BASIC_AUTH:?"), "there is no default password"
    assert service["command"][0] == "dashboard"
    arguments = [part for part in service["command"][1:] if not part.startswith("--port=")]
    env = {"SNAPFERRY_DASHBOARD_BASIC_AUTH": "operator:choose-one"}
    with dashboard(tmp_path, redis_url, *arguments, env=env, reach="127.0.0.1") as shown:
        assert shown.ask("/").status == 401
        assert shown.ask("/", headers=basic("operator:choose-one")).status == 200
        check = service["healthcheck"]["test"][-1].replace(
            "127.0.0.1:5556", shown.url.removeprefix("http://")
        )
        assert finished([sys.executable, "-c", check]).code == 0


def request(job_id: str, ids: Sequence[str] | None = None, source: str = "/a") -> JobSpec:
    return JobSpec(
        job_id=job_id,
        snapshots=encode_addresses(ids or [digest(b"a snapshot")]),
        source=StoreRef(url=source),
        destination=StoreRef(url="/b"),
        batch_objects=1000,
        batch_bytes=2**26,
    )


def many_failures(
    redis_url: str, root: Path, *, snapshots: int, failed: int, manifests: bool = True
) -> tuple[str, list[Address]]:
    """
    Put a job that failed into the ledger, all of whose objects failed; return its id and their addresses.

    Its ledger is that of a job that ran; its manifests are at *root* unless there are to be none.
    """
    addresses = [digest(b"%d" % number) for number in range(failed)]
    if manifests:
        each = -(-failed // snapshots)
        contents = [
            {f"./file {n}": b"%d" % n for n in range(first, min(first + each, failed))}
            for first in range(0, failed, each)
        ]
        ids = write_snapshots(root, contents)
    else:
        ids = [SnapshotId(digest(b"snapshot %d" % number)) for number in range(snapshots)]
    job = "0a1b2c3d-failures"
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request(job, ids, source=str(root)))
    ledger.advance(job, State.PLANNING)
    ledger.advance(
        job,
        State.COPYING,
        kinds="." * len(ids),
        objects_total=failed,
        bytes_total=failed,
        batches_total=1,
        batches_handed=1,
        batches_done=1,
        objects_settled=failed,
        bytes_settled=failed,
        failed=failed,
    )
    client.set(f"snapferry:job:{job}:failed", b"\xff" * (failed // 8) + bytes([0xFF00 >> failed % 8 & 0xFF]))
    client.hset(f"snapferry:job:{job}:classes", "ObjectMissing", failed)
    known = random.Random(5).sample(addresses, min(failed, FAILURES_KEPT))
    records = [
        {
            "address": address,
            "error": "ObjectMissing",
            "store": f"file://{root}",
            "detail": "not there",
            "transient": False,
            "attempts": 1,
            "worker": "worker@host",
        }
        for address in known
    ]
    client.rpush(f"snapferry:job:{job}:failures", *map(json.dumps, records))
    rows = {
        index: ["failed", 10, 10, 0, 0, 0, 10, time.time(), "objects failed"] for index in range(len(ids))
    }
    ledger.record_group(job, 0, rows)
    ledger.advance(job, State.FAILED, unpublished=len(ids), error=f"{failed} objects failed")
    return job, addresses
