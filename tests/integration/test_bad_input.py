"""Bad input: each one clear line, the right exit code, and nothing written."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from stores.address import manifest_key, object_key
from stores.hashing import digest
from tests.sample import fill, make_store, random_files
from tests.servers import S3Server

from .processes import snapferry

ABSENT = "5" * 64


@pytest.fixture
def snapshot(tmp_path: Path) -> str:
    return make_store(tmp_path / "a", random_files(20))


def run(tmp_path: Path, snapshot: str, **changed: str) -> tuple[int, str]:
    """Run a sync that is right but for *changed*; check the form of its complaint and that nothing was written."""
    options = {"from": str(tmp_path / "a"), "to": str(tmp_path / "b"), "id": snapshot} | changed
    ended = snapferry(
        "sync", *(part for name, value in options.items() for part in (f"--{name}", value)), timeout_s=40
    )
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not (tmp_path / "b" / ".manifests").exists()
    return ended.code, ended.err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        (
            "from",
            "ftp://user:secret@host/x",
            "ftp://host/x: is no store URL; use file://, s3:// or an absolute path",
        ),
        ("to", "relative/path", "relative/path: is no store URL"),
        ("from", "file://relative", "needs an absolute path"),
        ("to", "s3://", "names no bucket"),
        ("to", "s3://key:secret@bucket/x", "carries credentials"),
        ("to", "s3://bucket?aws_secret_access_key=secret", "carries a secret"),
        ("to", "s3://bucket?colour=blue", "has an unknown parameter 'colour'"),
        ("to", "s3://bucket?endpoint_url=nowhere", "has an endpoint_url that is no http(s) URL"),
        ("id", "123", "--id: 123: is not 64 lowercase hex digits"),
        ("id", ABSENT.upper().replace("5", "A"), "is not 64 lowercase hex digits"),
        ("id", "../" * 20, "is not 64 lowercase hex digits"),
        ("jobs", "-1", "Invalid value for '-j' / '--jobs'"),
        ("broker", "amqp://host", "must begin with redis://"),
        ("colour", "blue", "No such option '--colour'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_begun(
    tmp_path: Path, snapshot: str, option: str, value: str, said: str
) -> None:
    code, err = run(tmp_path, snapshot, **{option: value})

    assert code == 2
    assert err.count("\n") == 1, err
    assert said in err
    assert "secret@" not in err
    assert "=secret" not in err
    assert not (tmp_path / "b").exists()


def test_a_bad_setting_names_its_variable(tmp_path: Path, snapshot: str) -> None:
    ended = snapferry(
        "sync", "--from", "/a", "--to", "/b", "--id", snapshot, env={"SNAPFERRY_BATCH_OBJECTS": "many"}
    )

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "SNAPFERRY_BATCH_OBJECTS" in ended.err


def test_one_store_on_both_sides_is_refused_also_through_a_link(tmp_path: Path, snapshot: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")

    for to in (tmp_path / "a", tmp_path / "link", f"file://localhost{tmp_path}/a/"):
        code, err = run(tmp_path, snapshot, to=str(to))
        assert (code, err.count("\n")) == (2, 1)
        assert "is both source and destination" in err


def break_nothing(_: Path, __: str) -> None:
    """Leave the source as it is."""


def corrupt_manifest(source: Path, snapshot: str) -> None:
    path = source / manifest_key(snapshot)
    path.write_bytes(path.read_bytes().replace(b"file-00001", b"file-1"))


def remove_object(source: Path, _: str) -> None:
    (source / object_key(digest(b""))).unlink()


def corrupt_object(source: Path, _: str) -> None:
    (source / object_key(digest(b""))).write_bytes(b"not empty")


def directory_for_an_object(source: Path, _: str) -> None:
    path = source / object_key(digest(b""))
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "changed", "said"),
    [
        (
            break_nothing,
            {"from": "/no/such/store"},
            "StoreNotFound: file:///no/such/store: there is no such directory",
        ),
        (break_nothing, {"id": ABSENT}, f"{ABSENT}: no such snapshot in this store"),
        (
            break_nothing,
            {"to": "/proc/store"},
            "StoreNotFound: file:///proc/store: the directory cannot be made",
        ),
        (break_nothing, {"to": "/etc/hostname/store"}, "a part of the path is not a directory"),
        (break_nothing, {"from": "/etc/hostname"}, "/etc/hostname is not a directory"),
        (corrupt_manifest, {}, "it is corrupt and was not used"),
        (remove_object, {}, "the object is not in this store"),
        (corrupt_object, {}, "the object filed here is corrupt: its bytes hash to"),
        (directory_for_an_object, {}, "Is a directory"),
    ],
)
def test_what_fails_on_the_way_is_one_reason_and_exit_code_1(
    tmp_path: Path, snapshot: str, damage: Callable[[Path, str], None], changed: dict[str, str], said: str
) -> None:
    damage(tmp_path / "a", snapshot)

    code, err = run(tmp_path, snapshot, **changed)

    assert code == 1
    assert said in err
    assert err.count("\n") <= 3, err


def test_a_manifest_that_does_not_parse_names_its_line(tmp_path: Path) -> None:
    text = f"D 755 {digest(b'')} 0 ./\nF 644 {digest(b'')} 0 ./a\nb\n".encode()
    path = tmp_path / "a" / manifest_key(digest(text))
    path.parent.mkdir(parents=True)
    path.write_bytes(text)

    code, err = run(tmp_path, digest(text))

    assert (code, err.count("\n")) == (1, 1)
    assert "ManifestSyntaxError" in err
    assert "line 3 of the manifest is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'" in err
    assert not (tmp_path / "b").exists()


def test_an_unknown_bucket_is_named(tmp_path: Path, snapshot: str, rclone_s3: S3Server) -> None:
    absent = rclone_s3.url("no-such-bucket")

    for changed in ({"from": absent}, {"to": absent}):
        code, err = run(tmp_path, snapshot, **changed)
        assert (code, err.count("\n")) == (1, 1)
        assert "StoreNotFound: s3://no-such-bucket" in err


def test_refused_credentials_are_said_to_be_so(
    tmp_path: Path, snapshot: str, rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone_s3.make_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-secret")

    code, err = run(tmp_path, snapshot, to=rclone_s3.url(bucket))

    assert (code, err.count("\n")) == (1, 1)
    assert "AccessDenied" in err
    assert "wrong-and-secret" not in err


def test_no_credentials_at_all_are_said_to_be_so(
    tmp_path: Path, snapshot: str, rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone_s3.make_bucket()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    code, err = run(tmp_path, snapshot, to=rclone_s3.url(bucket))

    assert (code, err.count("\n")) == (1, 1)
    assert "AccessDenied" in err
    assert "credentials" in err


def test_an_endpoint_that_refuses_or_stays_silent_is_given_up_within_10_seconds(
    tmp_path: Path, snapshot: str, s3_environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for listener in (silent, closed):
            url = f"s3://bucket?endpoint_url=http://127.0.0.1:{listener.getsockname()[1]}"
            options = ["--from", str(tmp_path / "a"), "--id", snapshot, "--to", url]
            ended = snapferry("sync", *options, timeout_s=12)

            assert ended.code == 1
            assert "StoreUnavailable" in ended.err.splitlines()[-1]


def test_one_bad_object_of_many_is_named_with_what_was_and_was_not_done(
    tmp_path: Path, rclone_s3: S3Server
) -> None:
    from stores.urls import open_store

    url = rclone_s3.url(rclone_s3.make_bucket(), "pre/fix")
    snapshot = fill(open_store(url), {"./good": b"good", "./bad": b"bad"})
    make_store(tmp_path / "b", {"./other": b"other"})
    open_store(url)._objects.write(object_key(digest(b"bad")), b"evil")

    ended = snapferry("sync", "--from", url, "--to", str(tmp_path / "b"), "--id", snapshot)

    assert ended.code == 1
    assert f"1 x IntegrityError at {url.split('?')[0]}" in ended.err
    assert digest(b"bad") in ended.err
    assert (
        "1 of 2 objects could not be copied; the manifest was not written. Run it again to resume."
        in ended.err
    )
    assert (tmp_path / "b" / object_key(digest(b"good"))).read_bytes() == b"good"
    assert not (tmp_path / "b" / object_key(digest(b"bad"))).exists()
