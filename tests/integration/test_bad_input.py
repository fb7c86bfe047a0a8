"""Bad input: each one clear line, the right exit code, and nothing written."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from snapferry.stores.address import SnapshotId, manifest_key, object_key, parse_snapshot_id
from snapferry.stores.backends.s3.backend import CHECK_TIMEOUT_S
from snapferry.stores.hashing import digest
from tests.sample import fill, make_store, random_files
from tests.servers import S3Server

from .forge import Forge
from .processes import Finished

ABSENT = "5" * 64


@pytest.fixture
def snapshot(tmp_path: Path) -> str:
    return make_store(tmp_path / "a", random_files(20))


def run(
    forge: Forge, tmp_path: Path, snapshot: str, env: Mapping[str, str] | None = None, /, **changed: str
) -> tuple[int, str]:
    """Run a sync that is right but for *changed*; check the form of its complaint and that nothing was written."""
    ended = forge.run(sync(tmp_path, snapshot, **changed), env)
    assert_complains(tmp_path, ended)
    return ended.code, ended.err


def sync(tmp_path: Path, snapshot: str, **changed: str) -> list[str]:
    options = {"from": str(tmp_path / "a"), "to": str(tmp_path / "b"), "id": snapshot} | changed
    return ["sync", *(part for name, value in options.items() for part in (f"--{name}", value))]


def assert_complains(tmp_path: Path, ended: Finished) -> None:
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not (tmp_path / "b" / ".manifests").exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        (
            "from",
            "ftp://user:secret@host/x",
            "ftp://host/x: is not a store URL; use file://, s3:// or an absolute path",
        ),
        ("to", "relative", "relative: is not a store URL, and no snapferry.toml is here"),
        ("to", "s3:/bucket", "s3:/bucket: is not a store URL; use file:// or s3://"),
        ("to", "~no-such-user/b", "the home directory ~no-such-user is not known"),
        ("from", "file://relative", "needs an absolute path"),
        ("to", "s3://", "names no bucket"),
        ("to", "s3://B_!/x", "s3://B_!: is not the name of a bucket"),
        ("to", "s3://key:secret@bucket/x", "carries credentials"),
        ("to", "s3://bucket?aws_secret_access_key=secret", "carries a secret"),
        ("to", "s3://bucket?colour=blue", "has an unknown parameter 'colour'"),
        ("to", "s3://bucket?endpoint_url=nowhere", "has an endpoint_url that is no http(s) URL"),
        ("id", "123", "--id: 123: is not a snapshot id"),
        ("id", ABSENT.upper().replace("5", "A"), "is not a snapshot id"),
        ("id", "../" * 20, "is not a snapshot id"),
        ("id", "../../etc/passwd@", "is not a name"),
        ("id", "ba5eba11@", "could be the beginning of a snapshot id"),
        ("id", "ba5eba11", "ba5eba11: no snapshot id in this store begins with it"),
        ("id", "nightly@", "nightly@: no snapshot of this store has the name; it has no names"),
        ("jobs", "-1", "Invalid value for '-j' / '--jobs'"),
        ("broker", "amqp://host", "must begin with redis://"),
        ("broker", "amqp://host", "or unix://; this one begins with amqp://"),
        ("colour", "blue", "No such option '--colour'"),
        ("id-from", "blue", "'--id-from'. Did you mean one of: '--from', '--id', '--ids-from'? See: "),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_begun(
    forge: Forge, tmp_path: Path, snapshot: str, option: str, value: str, said: str
) -> None:
    ended = forge.run(sync(tmp_path, snapshot, **{option: value}))

    assert_complains(tmp_path, ended)
    assert ended.code == 2
    assert ended.err.count("\n") == 1, ended.err
    assert said in ended.err
    assert "secret@" not in ended.err
    assert "=secret" not in ended.err
    assert not (tmp_path / "b").exists()


def test_a_bad_setting_names_its_variable(forge: Forge, tmp_path: Path, snapshot: str) -> None:
    ended = forge.run(
        ["sync", "--from", "/a", "--to", "/b", "--id", snapshot], env={"SNAPFERRY_BATCH_OBJECTS": "many"}
    )

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "SNAPFERRY_BATCH_OBJECTS" in ended.err


def test_one_store_on_both_sides_is_refused_also_through_a_link(
    forge: Forge, tmp_path: Path, snapshot: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")

    for to in (tmp_path / "a", tmp_path / "link", f"file://localhost{tmp_path}/a/"):
        code, err = run(forge, tmp_path, snapshot, to=str(to))
        assert (code, err.count("\n")) == (2, 1)
        assert "is both source and destination" in err


A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("options", "text", "said"),
    [
        (
            ["--ids-from", "ids"],
            f"{A}\n\n# {B}\n12\x1b3\n",
            "ids, line 4: 12\\x1b3: is not a snapshot id",
        ),
        (["--ids-from", "ids"], "\xff\n", "ids, line 1: \\xff: is not a snapshot id"),
        (["--ids-from", "ids"], A * 1000, "ids, line 1: aaaaaaaaaa"),
        (["--ids-from", "ids"], f"{A}\n{B}\n#\n{A}\n", f"ids, line 4: {A} repeats line 1"),
        (
            ["--ids-from", "ids", "--id", B],
            f"{A}\n{B}\n",
            f"ids, line 2: {B} repeats --id",
        ),
        (["--id", A, "--id", A], "", f"--id: {A} is given twice"),
        (["--ids-from", "ids"], "# none\n\n", "--ids-from ids: "),
        (["--ids-from", "nowhere"], "", "--ids-from nowhere: No such file or directory"),
        (["--ids-from", "-"], "", "--ids-from -: "),
        ([], "", "Use --id, --ids-from or --all."),
        (["--all", "--id", A], "", "--all cannot be combined with --id or --ids-from"),
    ],
)
def test_ids_that_cannot_be_meant_are_one_line_with_the_number_of_theirs(
    forge: Forge, tmp_path: Path, options: list[str], text: str, said: str
) -> None:
    (tmp_path / "ids").write_bytes(text.encode("latin-1"))
    options = [str(tmp_path / option) if option == "ids" else option for option in options]

    ended = forge.run(["sync", "--from", "/a", "--to", str(tmp_path / "b"), *options])

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    assert said in ended.err.replace(f"{tmp_path}/", "")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--max-bytes", "1,5GB"],
            "'--max-bytes': must be a size such as 500k, 20GB or 1.5TiB, not '1,5GB'.",
        ),
        (["--max-bytes", "-1"], "not '-1'"),
        (["--max-objects", "-1"], "not '-1'"),
        (["--max-cost", "nan"], "not 'nan'"),
        (["--max-cost", "5"], "--max-cost requires prices. Use --prices FILE, or set SNAPFERRY_PRICES."),
        (["--prices", "/no/prices"], "price table /no/prices: No such file or directory"),
        (["--max-delete", "5"], "--max-delete requires --delete"),
        (["--server-side"], "by itself: only servers of S3 stores copy by themselves"),
        (["--force-delete"], "--force-delete requires --delete"),
        (["--receipt", "/no/such/r"], "--receipt /no/such/r: directory /no/such does not exist"),
        (["--receipt", "/dev/null"], "--receipt /dev/null: not a regular file"),
        (["--receipt", "/tmp/r", "--dryrun"], "--receipt cannot be combined with --dryrun"),
        (["--order", "oldest"], "'oldest' is not one of 'newest', 'smallest', 'given'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    forge: Forge, tmp_path: Path, options: list[str], said: str
) -> None:
    ended = forge.run(["sync", "--from", "/a", "--to", str(tmp_path / "b"), "--all", *options])

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    assert said in ended.err
    assert not (tmp_path / "b").exists()


def test_a_limit_of_cost_needs_a_price_for_each_bucket(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "prices").write_text('currency = "USD"\n[[price]]\nstore = "s3://one"\n')
    options = ["--from", "s3://one/x", "--to", "s3://two?region=eu-1", "--all", "--max-cost", "5"]

    ended = forge.run(["sync", *options], env={"SNAPFERRY_PRICES": str(tmp_path / "prices")})

    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"snapferry: --max-cost: price table {tmp_path}/prices has no price for s3://two\n"


def test_commands_about_jobs_need_a_broker_that_answers(forge: Forge, tmp_path: Path) -> None:
    submit = ["submit", "--from", "/a", "--to", str(tmp_path / "b"), "--all"]
    commands = [submit, ["jobs"], *([command, "1234"] for command in ("status", "cancel", "retry"))]
    nowhere = {"SNAPFERRY_BROKER_URL": "redis://127.0.0.1:1/0"}
    without = [forge.run(command) for command in commands]
    with_none = [forge.run(command, nowhere) for command in commands]

    for ended in without:
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("snapferry: no broker is configured: ")
        assert "SNAPFERRY_BROKER_URL" in ended.err
        assert ended.err.count("\n") == 1
    for ended in with_none:
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1), ended
        assert "the broker at redis://127.0.0.1:1/0 cannot be used" in ended.err
        assert ended.err.endswith(": snapferry doctor\n")


def test_a_push_of_a_store_names_the_command_that_copies_its_snapshots(
    forge: Forge, tmp_path: Path, snapshot: str
) -> None:
    given = ["push", str(tmp_path / "a"), str(tmp_path / "b")]
    told, quiet = forge.run([*given, "--dryrun"]), forge.run([*given, "--dryrun", "--quiet"])

    assert (told.code, quiet.code, quiet.err) == (0, 0, "")
    assert f"snapferry sync {tmp_path}/a {tmp_path}/b --all" in told.err


def test_what_click_says_of_a_command_line_ends_before_the_advice(forge: Forge) -> None:
    ended = forge.run(["mirrors", "nightly"])

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith("(nightly). See: snapferry mirrors --help\n")


def test_an_option_before_the_command_is_told_its_place(forge: Forge) -> None:
    before, behind = forge.run(["--broker", "redis://h", "jobs"]), forge.run(["jobs", "--brokre", "x"])
    unknown = forge.run(["-V"])

    assert (before.code, behind.code, unknown.code) == (2, 2, 2)
    assert "snapferry COMMAND --broker" in before.err
    assert "COMMAND" not in behind.err
    assert unknown.err == "snapferry: No such option '-V'. See: snapferry --help\n"


def break_nothing(_: Path, __: str) -> None:
    """Leave the source as it is."""


def corrupt_manifest(source: Path, snapshot: str) -> None:
    path = source / manifest_key(parse_snapshot_id(snapshot))
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
            "StoreFault: file:///proc/store: the directory cannot be made",
        ),
        (break_nothing, {"to": "/etc/hostname/store"}, "a part of the path is not a directory"),
        (break_nothing, {"from": "/etc/hostname"}, "/etc/hostname is not a directory"),
        (corrupt_manifest, {}, "is corrupt and was not used"),
        (remove_object, {}, "the object is not in this store"),
        (corrupt_object, {}, "the object filed here is corrupt: its bytes do not hash to its address"),
        (directory_for_an_object, {}, "is a directory, not a regular file"),
    ],
)
def test_what_fails_on_the_way_is_one_reason_and_exit_code_1(
    forge: Forge,
    tmp_path: Path,
    snapshot: str,
    damage: Callable[[Path, str], None],
    changed: dict[str, str],
    said: str,
) -> None:
    damage(tmp_path / "a", snapshot)

    code, err = run(forge, tmp_path, snapshot, **changed)

    assert code == 1
    assert said in err
    # The reason, the object and each path that needs it, and the end of the job.
    assert err.count("\n") <= 5, err
    assert err.count("snapferry: ") == 1, err


@pytest.mark.parametrize("chosen", ["--all", "--id"])
def test_a_heal_makes_no_store_and_waits_for_none_that_was_never_there(
    forge: Forge, tmp_path: Path, snapshot: str, chosen: str
) -> None:
    missing = tmp_path / "missing"
    which = [chosen, snapshot] if chosen == "--id" else [chosen]

    # Longer than this test may take.
    patience = {"SNAPFERRY_PATIENCE": "86400"}
    ended = forge.run(["heal", str(missing), "--from", str(tmp_path / "a"), *which], patience)

    assert ended.code == 1
    assert f"StoreNotFound: file://{missing}: there is no such directory" in ended.err
    assert not missing.exists()


def test_a_manifest_that_does_not_parse_names_its_line(forge: Forge, tmp_path: Path) -> None:
    text = f"D 755 {digest(b'')} 0 ./\nF 644 {digest(b'')} 0 ./a\nb\n".encode()
    path = tmp_path / "a" / manifest_key(SnapshotId(digest(text)))
    path.parent.mkdir(parents=True)
    path.write_bytes(text)

    code, err = run(forge, tmp_path, digest(text))

    assert (code, err.count("\n")) == (1, 1)
    assert "ManifestSyntaxError" in err
    assert "line 3 of the manifest is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'" in err
    assert not (tmp_path / "b").exists()


def test_a_manifest_that_cannot_be_read_stops_no_other_snapshot(
    forge: Forge, tmp_path: Path, snapshot: str
) -> None:
    other = make_store(tmp_path / "a", {"./other": b"other"})
    (tmp_path / "a" / manifest_key(parse_snapshot_id(snapshot))).write_bytes(b"no manifest\n")

    ended = forge.run(["sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--all"])

    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 2), ended
    assert ended.err.split()[0] == snapshot
    assert "failed: 1 of 2 snapshots is not published: 1 manifest could not be read" in ended.err
    assert forge.run(["ls", str(tmp_path / "b")]).out.split() == [other]


def test_a_mirror_of_an_empty_source_deletes_nothing_unless_forced(
    forge: Forge, tmp_path: Path, snapshot: str
) -> None:
    (tmp_path / "empty" / ".manifests").mkdir(parents=True)
    options = ["--from", str(tmp_path / "empty"), "--to", str(tmp_path / "a"), "--all", "--delete"]

    refused = forge.run(["sync", *options])
    careless = forge.run(["sync", *options, "--allow-empty-source"])
    kept = forge.run(["ls", str(tmp_path / "a")]).out.split()
    forced = forge.run(["sync", *options, "--force-delete"])

    assert refused.code == 1
    assert f"SourceEmpty: file://{tmp_path}/empty: lists no manifest at all" in refused.err
    assert "--allow-empty-source" in refused.err
    assert (careless.code, careless.err.count("\n")) == (1, 1)
    assert "the source lists no snapshot at all, so --delete would delete every manifest" in careless.err
    assert kept == [snapshot]
    assert forced.code == 0
    assert forced.out.startswith("nothing to copy: ")
    assert "; 1 manifest deleted, in " in forced.out
    assert forge.run(["ls", str(tmp_path / "a")]).out == ""


# SNAPSHOT is a snapshot of the store OWN, TREE a directory, FREE a path where nothing is.
WITHOUT_A_BUCKET = [
    "sync OWN ABSENT --all",
    "sync ABSENT OWN --all",
    "sync ABSENT OWN --id SNAPSHOT",
    "plan OWN ABSENT --all",
    "push TREE ABSENT",
    "pull ABSENT --id SNAPSHOT FREE",
    "pull ABSENT --id latest FREE",
    "verify ABSENT --all",
    "heal ABSENT --from OWN --all",
    "heal OWN --from ABSENT --all",
    "ls ABSENT",
    "ls -l ABSENT",
    "show ABSENT SNAPSHOT",
    "size ABSENT",
    "orphans ABSENT",
    "tag ABSENT SNAPSHOT name",
    "untag ABSENT name",
]


@pytest.mark.parametrize("server", ["rclone_s3", "moto_s3"])
@pytest.mark.parametrize("line", WITHOUT_A_BUCKET)
def test_a_bucket_that_does_not_exist_is_said_to_be_missing(
    forge: Forge, tmp_path: Path, snapshot: str, line: str, server: str, request: pytest.FixtureRequest
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    (tmp_path / "tree").mkdir()
    words = {
        "ABSENT": s3.url("no-such-bucket", "pre"),
        "OWN": str(tmp_path / "a"),
        "TREE": str(tmp_path / "tree"),
        "FREE": str(tmp_path / "b"),
        "SNAPSHOT": snapshot,
    }

    ended = forge.run([words.get(word, word) for word in line.split()], s3.environment)

    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1), ended.err
    said = f"s3://no-such-bucket/pre at {s3.endpoint}: there is no bucket no-such-bucket; create it, or correct the URL"
    assert said in ended.err
    assert ".manifests" not in ended.err
    assert not (tmp_path / "b").exists()


# A destination that does not exist is made, unless it is healed.
WITHOUT_A_DIRECTORY = [line for line in WITHOUT_A_BUCKET if not line.startswith(("push", "sync OWN", "plan"))]


@pytest.mark.parametrize(
    ("line", "code"),
    [*((line, 1) for line in WITHOUT_A_DIRECTORY), ("diff ABSENT OWN", 2), ("diff OWN ABSENT", 2)],
)
def test_a_directory_that_does_not_exist_may_be_a_missing_mount_and_is_a_failure(
    forge: Forge, tmp_path: Path, snapshot: str, line: str, code: int
) -> None:
    words = {
        "ABSENT": str(tmp_path / "nowhere"),
        "OWN": str(tmp_path / "a"),
        "FREE": str(tmp_path / "b"),
        "SNAPSHOT": snapshot,
    }

    ended = forge.run([words.get(word, word) for word in line.split()])

    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1), ended.err
    assert f"StoreNotFound: file://{tmp_path}/nowhere: there is no such directory" in ended.err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("server", ["rclone_s3", "moto_s3"])
@pytest.mark.parametrize("side", ["--from", "--to"])
def test_the_doctor_says_which_bucket_is_missing(
    forge: Forge, server: str, side: str, request: pytest.FixtureRequest
) -> None:
    s3: S3Server = request.getfixturevalue(server)

    ended = forge.run(["doctor", "--json", side, s3.url("no-such-bucket", "pre")], s3.environment)

    errors = [one for one in ended.document["checks"] if one["level"] == "error"]
    assert (ended.code, len(errors)) == (1, 1)
    assert "there is no bucket no-such-bucket" in errors[0]["said"]
    assert s3.endpoint in errors[0]["said"]
    assert "mount" not in errors[0]["advice"]


def test_refused_credentials_are_said_to_be_so(
    forge: Forge, tmp_path: Path, snapshot: str, rclone_s3: S3Server
) -> None:
    bucket = rclone_s3.make_bucket()
    env = {**rclone_s3.environment, "AWS_SECRET_ACCESS_KEY": "wrong-and-secret"}

    code, err = run(forge, tmp_path, snapshot, env, to=rclone_s3.url(bucket))

    assert (code, err.count("\n")) == (1, 1)
    assert "AccessDenied" in err
    assert "wrong-and-secret" not in err


def test_no_credentials_at_all_are_said_to_be_so(
    forge: Forge, tmp_path: Path, snapshot: str, rclone_s3: S3Server
) -> None:
    bucket = rclone_s3.make_bucket()
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    env = {name: value for name, value in rclone_s3.environment.items() if name not in keys}

    code, err = run(forge, tmp_path, snapshot, env, to=rclone_s3.url(bucket))

    assert (code, err.count("\n")) == (1, 1)
    assert "AccessDenied" in err
    assert "credentials" in err


def test_an_endpoint_that_refuses_or_stays_silent_is_given_up_without_another_try(
    forge: Forge, tmp_path: Path, snapshot: str, s3_environment: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for listener in (silent, closed):
            url = f"s3://bucket?endpoint_url=http://127.0.0.1:{listener.getsockname()[1]}"
            options = ["--from", str(tmp_path / "a"), "--id", snapshot, "--to", url]
            ended = forge.run(["sync", *options], s3_environment)

            assert ended.code == 1
            assert "StoreUnavailable" in ended.err.splitlines()[-1]
            # All that was waited for is this bound, once; 10 s are promised.
            silent_for = f"did not answer within {CHECK_TIMEOUT_S} s" in ended.err
            assert silent_for == (listener is silent)
    assert CHECK_TIMEOUT_S < 10


def test_one_bad_object_of_many_is_named_with_what_was_and_was_not_done(
    forge: Forge, tmp_path: Path, rclone_s3: S3Server
) -> None:
    from tests.opening import open_store

    url = rclone_s3.url(rclone_s3.make_bucket(), "pre/fix")
    snapshot = fill(open_store(url), {"./good": b"good", "./bad": b"bad"})
    make_store(tmp_path / "b", {"./other": b"other"})
    open_store(url).objects.write(object_key(digest(b"bad")), b"evil")

    ended = forge.run(
        ["sync", "--from", url, "--to", str(tmp_path / "b"), "--id", snapshot], rclone_s3.environment
    )

    assert ended.code == 1
    assert f"1 x IntegrityError at {url.split('?')[0]}" in ended.err
    assert digest(b"bad") in ended.err
    assert "1 of 2 objects could not be copied; the manifest was not written." in ended.err
    assert (tmp_path / "b" / object_key(digest(b"good"))).read_bytes() == b"good"
    assert not (tmp_path / "b" / object_key(digest(b"bad"))).exists()


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("snyc", "'sync'"),
        ("job list", "'jobs'"),
        ("jobs exprot", "'export'"),
        ("sync --form x", "'--from'"),
        # Options that only Celery knows, and those that only snapferry knows.
        ("worker --autoscal 8,2", "'--autoscale'"),
        ("worker --queu default", "'--queue'"),
        ("worker --metrics-prt 1", "'--metrics-port'"),
        ("orchestrator --export-job x", "'--export-jobs'"),
    ],
)
def test_what_is_misspelt_is_one_line_with_what_is_meant(forge: Forge, line: str, meant: str) -> None:
    command = line.split()
    ended = forge.run(command, {"SNAPFERRY_BROKER_URL": "redis://127.0.0.1:1/0"})

    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert meant in ended.err
    assert "See: snapferry" in ended.err
