"""Stores that refuse, lie, are full, or whose prober is killed: each is told, and nothing is left behind."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from snapferry.stores.access import TRUSTED
from snapferry.stores.backends.directory import diagnosis
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.diagnosis.probe import probe_destination, probe_pair, probe_source
from snapferry.workers.diagnosis.store_check import Check, CheckProcess, Side
from tests.integration.processes import PATIENCE_S, until
from tests.opening import open_store
from tests.sample import fill, make_store, random_files
from tests.servers import S3Server, missing

from .scripted_server import scripted
from .stub_s3 import Answer, Request, Stub, error, serving

OK, NOTE, WARNING, ERROR = Level
Denied = Callable[[Request], bool]


@contextmanager
def in_front_of(server: S3Server, answer: Callable[[Request], Answer | None]) -> Iterator[Stub]:
    """Hand requests on to *server*, but for those that *answer* has an answer of its own for."""
    address = server.endpoint.removeprefix("http://")

    def hand_on(request: Request) -> Answer:
        own = answer(request)
        if own is not None:
            return own
        query = f"?{urlencode(request.query, quote_via=quote)}" if request.query else ""
        connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        try:
            connection.request(request.method, request.path + query, request.body, request.headers)
            said = connection.getresponse()
            body = said.read()
        finally:
            connection.close()
        kept = {name: value for name, value in said.getheaders() if name.lower() not in HOP_BY_HOP}
        length = int(said.headers.get("Content-Length") or 0) if request.method == "HEAD" else None
        return Answer(said.status, body, kept, length)

    with serving() as stub:
        stub.answer = hand_on
        yield stub


HOP_BY_HOP = ("content-length", "connection", "transfer-encoding", "keep-alive")


def denying(denied: Denied) -> Callable[[Request], Answer | None]:
    return lambda request: error(403, "AccessDenied", "Not you.") if denied(request) else None


def gets(request: Request) -> bool:
    return request.method == "GET" and "snapferry-probe/" in request.path


def puts(request: Request) -> bool:
    return request.method == "PUT" or request.operation == "POST uploads"


def deletes(request: Request) -> bool:
    return request.method == "DELETE" and "uploadId" not in request.query


def aborts(request: Request) -> bool:
    return request.method == "DELETE" and "uploadId" in request.query


def lists_probes(request: Request) -> bool:
    return "snapferry-probe/" in request.query.get("prefix", "") and "uploads" not in request.query


def told(found: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.check, str(finding.level)) for finding in found if finding.level is not OK}


def url(endpoint: str, bucket: str) -> str:
    return f"s3://{bucket}/pre?endpoint_url={endpoint}"


def left_in(server: S3Server, bucket: str) -> list[object]:
    found = server.client.list_object_versions(Bucket=bucket)
    return [*found.get("Versions", ()), *found.get("DeleteMarkers", ()), *server.unfinished_uploads(bucket)]


REFUSALS = [
    (gets, {("store.read", "error")}),
    (puts, {("store.write", "error"), ("s3.multipart", "error")}),
    (deletes, {("store.delete", "note"), ("store.delete", "warning")}),
    (aborts, {("s3.abort", "warning")}),
    (lists_probes, {("store.list", "error")}),
    (lambda request: "lifecycle" in request.query, {("s3.lifecycle", "note")}),
    (lambda request: "versioning" in request.query, {("s3.versions", "note")}),
    (lambda request: "partNumber" in request.query, {("s3.multipart", "error")}),
]


@pytest.mark.parametrize(("denied", "expected"), REFUSALS)
@pytest.mark.parametrize("versions", [False, True])
def test_a_right_that_is_denied_is_told_and_nothing_is_left_in_moto(
    moto_s3: S3Server, denied: Denied, expected: set[tuple[str, str]], versions: bool
) -> None:
    bucket = moto_s3.make_bucket()
    if versions:
        moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with in_front_of(moto_s3, denying(denied)) as proxy:
        found = list(probe_destination(open_store(url(proxy.endpoint, bucket))))
        refused = [request for request in proxy.requests if denied(request)]

    always = {("s3.lifecycle", "warning")} | ({("s3.versions", "note")} if versions else set())
    if ("s3.lifecycle", "note") in expected:
        always -= {("s3.lifecycle", "warning")}
    assert refused
    assert told(found) == expected | always
    assert left_in(moto_s3, bucket) == []


def test_versions_of_a_moto_bucket_that_does_not_say_that_it_keeps_them_are_taken_away(
    moto_s3: S3Server,
) -> None:
    bucket = moto_s3.make_bucket()
    moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    moto_s3.client.put_object(Bucket=bucket, Key="pre/x", Body=b"x")
    (stranger,) = left_in(moto_s3, bucket)
    with in_front_of(moto_s3, denying(lambda request: "versioning" in request.query)) as proxy:
        found = list(probe_destination(open_store(url(proxy.endpoint, bucket))))

    assert "the bucket keeps versions (enabled)" in [finding.said for finding in found]
    assert ("store.write", "error") not in told(found)
    assert left_in(moto_s3, bucket) == [stranger]


def test_nothing_that_would_stay_is_written_to_a_moto_bucket_that_locks(moto_s3: S3Server) -> None:
    bucket = moto_s3.make_bucket()
    moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    with in_front_of(moto_s3, locking(retention)) as proxy:
        found = list(probe_destination(open_store(url(proxy.endpoint, bucket))))
        puts_ = [request for request in proxy.requests if request.operation == "PUT"]

    assert ("s3.lock", "note") in told(found)
    assert [finding.check for finding in found].count("s3.multipart") == 2
    assert puts_ == []
    assert left_in(moto_s3, bucket) == []


def locking(retention: dict[str, dict[str, object]]) -> Callable[[Request], Answer | None]:
    """Say of a bucket that what is written to it is locked."""
    rule = "".join(f"<{name}>{value}</{name}>" for name, value in retention["DefaultRetention"].items())
    body = (
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
        f"{rule}</DefaultRetention></Rule></ObjectLockConfiguration>"
    )
    return lambda request: Answer(200, body.encode()) if "object-lock" in request.query else None


def test_a_store_that_hangs_is_given_up_and_said_so(s3_environment: dict[str, str]) -> None:
    hangs, go_on = threading.Event(), threading.Event()
    with serving() as stub:

        def hanging(request: Request) -> Answer:
            if "list-type" in request.query:
                hangs.set()
                go_on.wait(PATIENCE_S)
            return Answer()

        stub.answer = hanging
        process = CheckProcess(Check(Side(url(stub.endpoint, "bucket")), None), TRUSTED)
        assert hangs.wait(PATIENCE_S)
        found = process.end(timeout_s=3)
        go_on.set()

    assert [(one.where, one.finding.check) for one in found] == [
        ("source", "store.answers"),
        ("source", "clock"),
        ("stores", "store.time"),
    ]
    assert found[-1].finding.level is ERROR
    process._process.wait(PATIENCE_S)


def test_a_look_that_breaks_down_is_an_error_with_its_last_word() -> None:
    (found,) = CheckProcess(Check(Side("ftp://host/x"), None), TRUSTED).end()

    assert found.finding.level is ERROR
    assert "ftp://host/x: is not a store URL" in found.finding.said


def test_a_rule_of_moto_counts_where_it_holds_for_the_store(moto_s3: S3Server) -> None:
    bucket = moto_s3.make_bucket()

    def lifecycle(prefix: str) -> Finding:
        rule: dict[str, Any] = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": prefix}}
        rule["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 7}
        moto_s3.client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": [rule]}
        )
        found = probe_destination(open_store(url(moto_s3.endpoint, bucket)))
        return next(finding for finding in found if finding.check == "s3.lifecycle")

    assert lifecycle("").said == "incomplete multipart uploads are aborted after 7 days"
    assert lifecycle("pre/").level is OK
    assert lifecycle("other/").level is WARNING


@pytest.mark.parametrize(
    ("denied", "expected"),
    [
        (lambda request: "list-type" in request.query, ("source.list", "error")),
        (
            lambda request: request.method == "GET" and "/.manifests/" in request.path,
            ("source.manifest", "error"),
        ),
        (
            lambda request: request.method == "GET" and "/.objects/" in request.path,
            ("source.object", "error"),
        ),
    ],
)
def test_a_source_that_refuses_to_be_read_is_told(
    rclone_memory_s3: S3Server, denied: Denied, expected: tuple[str, str]
) -> None:
    bucket = rclone_memory_s3.make_bucket()
    fill(open_store(url(rclone_memory_s3.endpoint, bucket)), random_files(2))
    with in_front_of(rclone_memory_s3, denying(denied)) as proxy:
        found = list(probe_source(open_store(url(proxy.endpoint, bucket))))

    assert told(found) == {expected}
    assert all("Not you" in finding.said for finding in found if finding.level is ERROR)


def test_a_server_whose_clock_is_off_is_told_though_it_refuses_everything(
    s3_environment: dict[str, str],
) -> None:
    date = formatdate(time.time() - 1000, usegmt=True)
    refusal = f"HTTP/1.1 403 Forbidden\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode()
    with scripted([refusal]) as server:
        found = list(probe_source(open_store(url(server.endpoint, "bucket"))))

    clock = next(finding for finding in found if finding.check == "clock")
    assert told(found) == {("store.answers", "error"), ("clock", "error")}
    assert "behind this machine's" in clock.said


KILLED = """
import os, sys
from snapferry.stores.backends.s3 import bucket as s3
from snapferry.stores.backends.s3.diagnosis import permissions
from snapferry.stores.diagnosis.probe import probe_destination
from tests.opening import open_store
die = lambda *_, **__: os._exit(9)
{fault}
list(probe_destination(open_store(sys.argv[1])))
"""
AFTER_THE_PUT = "permissions.Probe._conditional_write = die"
WITHIN_PARTS = """
call = s3.Bucket.call
def dying(self, operation, **parameters):
    answer = call(self, operation, **parameters)
    return die() if operation == "upload_part" else answer
s3.Bucket.call = dying
"""
WITH_A_FILE = """
from snapferry.stores.backends.directory import backend as file
file.DirectoryBackend.open = die
"""
WITH_A_TEMPORARY_FILE = """
from snapferry.stores.backends.directory import streams as file_streams
file_streams.FileUpload._rename = die
"""
WITH_A_FOLDER = """
from snapferry.stores.backends.directory import backend as file
file.DirectoryBackend.upload = die
"""


def killed(fault: str, store: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED.format(fault=fault), store], timeout=240, check=False
    )
    assert ended.returncode == 9


@pytest.mark.parametrize("fault", [AFTER_THE_PUT, WITHIN_PARTS])
@pytest.mark.parametrize("versions", [False, True])
def test_what_a_killed_prober_left_in_moto_the_next_one_takes_away(
    moto_s3: S3Server, fault: str, versions: bool
) -> None:
    bucket = moto_s3.make_bucket()
    if versions:
        moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    killed(fault, url(moto_s3.endpoint, bucket))
    left = left_in(moto_s3, bucket)

    list(probe_destination(open_store(url(moto_s3.endpoint, bucket))))

    assert left
    assert left_in(moto_s3, bucket) == []


@pytest.mark.parametrize("fault", [WITH_A_FILE, WITH_A_TEMPORARY_FILE, WITH_A_FOLDER])
@pytest.mark.parametrize("filled", [False, True])
def test_what_a_killed_prober_left_in_a_directory_the_next_one_takes_away(
    tmp_path: Path, fault: str, filled: bool
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    if filled:
        make_store(root, random_files(3))
    before = raw_tree(root)
    killed(fault, str(root))
    left = raw_tree(root)
    store = open_store(str(root))
    snapshots = store.list_manifest_ids()

    found = list(probe_destination(store))

    assert left != before
    assert len(snapshots) == filled
    assert told(found) <= {("file.system", "note")}
    assert raw_tree(root) == before


def test_the_probe_of_another_machine_is_left_alone_for_an_hour(file_root: Path) -> None:
    fresh, old = (file_root / f".snapferry-probe-elsewhere.1-1-{token}-0" for token in ("aa", "bb"))
    for folder in (fresh, old):
        folder.mkdir()
        (folder / "elsewhere.1-1-aa-1").write_bytes(b"probe")
    os.utime(old, (time.time() - 3700, time.time() - 3700))

    list(probe_destination(open_store(str(file_root))))

    assert raw_tree(file_root) == [fresh.name, f"{fresh.name}/elsewhere.1-1-aa-1"]


def raw_tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@contextmanager
def mounted(where: Path, options: str) -> Iterator[Path]:
    """Mount a file system in memory at *where*."""
    where.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        subprocess.run(
            [*as_root, "mount", "-t", "tmpfs", "-o", options, "none", where], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        missing("a file system in memory cannot be mounted: neither root, nor sudo without a password")
    try:
        yield where
    finally:
        subprocess.run([*as_root, "umount", "--lazy", where], check=True)


def test_a_file_system_that_is_full_is_an_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "full", "size=64k,mode=1777") as root:
        (root / "x").touch()
        try:
            with (root / "x").open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
        except OSError:
            pass
        found = list(probe_destination(open_store(str(root))))
        after = raw_tree(root)

    assert told(found) == {("file.space", "error"), ("store.write", "error")}
    assert after == ["x"]
    assert "free some space, or raise the quota" in [finding.advice for finding in found]


def test_few_inodes_are_told(tmp_path: Path) -> None:
    with mounted(tmp_path / "few", "size=2g,nr_inodes=100,mode=1777") as root:
        while (free := os.statvfs(root).f_favail) > 4:
            (root / str(free)).touch()
        found = list(probe_destination(open_store(str(root))))

    assert told(found) == {("file.inodes", "warning")}


def test_a_directory_that_is_read_only_is_an_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "size=64k,ro") as root:
        found = list(probe_destination(open_store(str(root))))
        readable = list(probe_source(open_store(str(root))))

    assert told(found) == {("store.answers", "error")}
    assert told(readable) == {("source.list", "warning")}
    assert [finding.advice for finding in found if finding.level == "error"] == [
        "check the directory's owner and mode"
    ]


def test_a_bucket_that_refuses_everything_is_no_directory(moto_s3: S3Server) -> None:
    with in_front_of(moto_s3, denying(lambda _: True)) as proxy:
        found = list(probe_destination(open_store(url(proxy.endpoint, moto_s3.make_bucket()))))

    assert "check the credentials and their permissions" in [finding.advice for finding in found]


def test_a_directory_that_is_to_be_made_is_probed_where_it_would_be(tmp_path: Path) -> None:
    found = list(probe_destination(open_store(str(tmp_path / "to" / "be"))))

    assert told(found) == {("store.exists", "note")}
    assert raw_tree(tmp_path) == []


@pytest.mark.parametrize("filled", [False, True])
def test_a_file_system_that_does_not_tell_upper_from_lower_case_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filled: bool
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    if filled:
        make_store(root, random_files(1))
    lstat = os.lstat
    # Names in open directories are looked up as such a file system does.
    monkeypatch.setattr(
        os,
        "lstat",
        lambda path, *, dir_fd=None: lstat(path if dir_fd is None else path.lower(), dir_fd=dir_fd),
    )

    found = [*probe_destination(open_store(str(root))), *probe_source(open_store(str(root)))]

    assert ("file.case", "error") in told(found)
    assert [finding.check for finding in found].count("file.case") == 1 + filled


def test_a_clone_is_tried_and_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "a", random_files(1))
    (tmp_path / "b").mkdir()
    source, destination = (open_store(str(tmp_path / side)) for side in "ab")
    plain = list(probe_pair(source, destination))
    monkeypatch.setattr(diagnosis, "clone", lambda _, other: os.write(other, b"x") == 1)
    cloned = list(probe_pair(source, destination))

    assert {finding.check for finding in plain + cloned} == {"pair.clones"}
    assert cloned[0].said == "large objects are cloned: both stores share a file system that can clone"
    assert raw_tree(tmp_path / "b") == []


def test_what_does_not_fit_is_an_error_unless_it_is_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(4, size=1000))
    (tmp_path / "b").mkdir()
    source, destination = (open_store(str(tmp_path / side)) for side in "ab")

    def space() -> tuple[str, str]:
        found = probe_pair(source, destination, [snapshot])
        return next((str(f.level), f.said) for f in found if f.check == "pair.space")

    assert space()[0] == "ok"
    monkeypatch.setattr(diagnosis, "free_bytes", lambda _: 999)
    assert space() == ("error", "the missing objects of the snapshots take 4.0 kB, 999 B is free")
    make_store(tmp_path / "b", random_files(4, size=1000))
    assert space() == ("ok", "the missing objects of the snapshots take 0 B, 999 B is free")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_prober_that_is_told_to_end_takes_its_probe_away_and_one_whose_starter_dies_as_well(
    rclone_memory_s3: S3Server, how: signal.Signals
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    bucket = rclone_memory_s3.make_bucket()

    def holding(request: Request) -> Answer | None:
        if gets(request) and not reached.is_set():
            reached.set()
            go_on.wait(PATIENCE_S)
        return None

    def there() -> int:
        return len(rclone_memory_s3.client.list_objects_v2(Bucket=bucket).get("Contents", ()))

    command = [sys.executable, "-m", "snapferry", "doctor", "--to"]
    with (
        in_front_of(rclone_memory_s3, holding) as proxy,
        subprocess.Popen([*command, url(proxy.endpoint, bucket)], stdout=subprocess.DEVNULL) as process,
    ):
        assert reached.wait(PATIENCE_S)
        written = there()
        process.send_signal(how)
        if how is signal.SIGKILL:
            process.wait(PATIENCE_S)
        go_on.set()
        process.wait(PATIENCE_S)
        # The prober may outlive the doctor, and still needs the store.
        until(lambda: not there(), "the probe is gone")

    assert written == 1
    assert process.returncode == (130 if how is signal.SIGTERM else -how)
