"""The commands that look at stores, as users run them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from snapferry.stores.address import SnapshotId, manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.names.name import NameRecord, parse_name
from tests.opening import open_store
from tests.sample import fill, make_store
from tests.servers import S3Server

from .forge import Forge
from .processes import PATIENCE_S, REPOSITORY, Finished, environment, program, snapferry

OLD = {"./a": b"one", "./dir/b": b"two", "./dir/big": b"x" * 40_000, "./gone": b"gone"}
NEW = {"./a": b"ONE!", "./dir/b": b"two", "./dir/big": b"x" * 40_000, "./new": b"new"}
HOSTILE = "./\x1b[2J\u202e\x07red"

Run = Callable[..., Finished]


@pytest.fixture
def run(forge: Forge) -> Run:
    def run(*arguments: str, code: int = 0, env: Mapping[str, str] | None = None) -> Finished:
        ended = forge.run(arguments, env)
        assert ended.code == code, (arguments, ended)
        assert "Traceback" not in ended.err
        if code:
            assert len(ended.err.splitlines()) == 1, ended.err
        assert all(character.isprintable() or character in "\n\t" for character in ended.out + ended.err)
        return ended

    return run


@pytest.fixture
def bucket(rclone_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket."""
    for name, value in rclone_s3.environment.items():
        monkeypatch.setenv(name, value)
    return rclone_s3.url(rclone_s3.make_bucket(), "some/prefix")


def test_every_command(run: Run, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    opened = open_store(store)
    old, new = fill(opened, OLD), fill(opened, NEW)
    opened.names.write(parse_name("nightly"), NameRecord(new))

    assert run("ls", store).out.split() == sorted([old, new])
    rows = {row["id"]: row for row in run("ls", "-l", "--json", store).document}
    assert {each: (rows[each]["files"], rows[each]["bytes"], rows[each]["objects"]) for each in rows} == {
        old: (4, 40_010, 4),
        new: (4, 40_010, 4),
    }
    assert rows[new]["names"] == ["nightly"]
    table = run("ls", "-l", store).out.splitlines()
    assert len(table) == 3
    assert [old[:8] in line or new[:8] in line for line in table] == [False, True, True]
    assert [line.endswith(" nightly@") for line in table if new[:8] in line] == [True]

    sizes = run("size", "--json", store).document
    assert sizes == {
        "snapshot": None,
        "snapshots": 2,
        "files": 8,
        "logical_bytes": 80_020,
        "objects": 6,
        "physical_bytes": 40_017,
        "shared": {"objects": 2, "bytes": 40_003},
    }
    one = run("size", "--json", "--shared", store, "--id", "nightly@").document
    assert (one["snapshot"], one["shared"]) == (new, {"objects": 2, "bytes": 40_003})
    assert "40017" in run("size", "-b", store).out
    assert "40.0 kB" in run("size", store).out

    lines = ["M\t./a", "D\t./gone", "A\t./new"]
    assert run("diff", f"{store}@{old}", f"{store}@nightly@").out.splitlines() == lines
    assert run("diff", f"{store}@{old[:12]}", "@nightly@").out.splitlines() == lines
    assert run("diff", f"{store}@{old}", f"@{old}", "--exit-code").out == ""

    flat = run("show", "--flat", store, old[:10], "dir").out
    assert [line.split()[-1] for line in flat.splitlines()] == ["./dir/b", "./dir/big"]
    assert run("cat", store, old, "dir/big").out == "x" * 40_000
    assert run("cat", "--stream", store, "nightly@", "./a").out == "ONE!"
    missing = run("cat", store, old, "zzz", code=2).err
    assert missing == f"snapferry: path 'zzz' is not in snapshot {old}\n"

    assert run("orphans", store).out == ""
    opened.delete_manifest(old)
    found = run("orphans", "--json", store).document
    assert [each["address"] for each in found["orphans"]] == sorted([digest(b"one"), digest(b"gone")])
    assert (found["objects"], found["orphan_objects"], found["orphan_bytes"], found["snapshots"]) == (
        6,
        2,
        7,
        1,
    )
    assert run("orphans", "--json", "--count", store).document == {
        name: value for name, value in found.items() if name != "orphans"
    }
    assert run("orphans", "--older-than", "1d", store).out == ""


def test_a_bucket(run: Run, bucket: str, rclone_s3: S3Server) -> None:
    store, env = open_store(bucket), rclone_s3.environment
    old, new = fill(store, OLD), fill(store, NEW)

    rows = run("ls", "-l", "--json", bucket, env=env).document
    assert {(row["id"], row["files"], row["bytes"]) for row in rows} == {(old, 4, 40_010), (new, 4, 40_010)}
    assert run("size", "--json", bucket, env=env).document["physical_bytes"] == 40_017
    assert run("diff", f"{bucket}@{old}", f"@{new}", env=env).out.count("\n") == 3
    assert run("cat", bucket, old, "dir/big", env=env).out == "x" * 40_000
    store.delete_manifest(old)
    assert run("orphans", "--json", "--count", bucket, env=env).document["orphan_bytes"] == 7


def test_stores_are_compared_by_snapshots_and_by_objects(run: Run, tmp_path: Path) -> None:
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    old, new = make_store(Path(one), OLD), make_store(Path(other), NEW)

    found = run("diff", one, other).out.splitlines()
    assert found == [line for _, line in sorted([(old, f"D\t{old}"), (new, f"A\t{new}")])]
    run("diff", one, one, "--exit-code")
    differ = run("diff", "--objects", "--json", one, other).document
    assert {(each["status"], each["address"]) for each in differ} == {
        ("D", digest(b"one")),
        ("D", digest(b"gone")),
        ("A", digest(b"ONE!")),
        ("A", digest(b"new")),
    }
    assert run("diff", "--objects", one, one).out == ""
    assert snapferry("diff", "--objects", "--exit-code", one, other).code == 1
    assert snapferry("diff", "--exit-code", one, other).code == 1


def test_objects_may_be_in_another_store(run: Run, tmp_path: Path) -> None:
    one, other, pool = (str(tmp_path / name) for name in ("one", "other", "pool"))
    old = fill(open_store(one, pool), OLD)
    fill(open_store(other, pool), NEW)

    assert run("cat", one, old, "a", "--objects", pool).out == "one"
    assert run("orphans", one, other, "--objects", pool).out == ""
    assert set(run("orphans", one, "--objects", pool).out.split()) > {digest(b"new"), digest(b"ONE!")}
    fill(open_store(pool), NEW)
    assert run("orphans", one, "--objects", pool).out == ""
    assert "--objects" in run("orphans", one, other, code=2).err


def test_a_store_may_be_named_in_the_configuration(run: Run, tmp_path: Path) -> None:
    old = make_store(tmp_path / "one", OLD)
    make_store(tmp_path / "other", NEW)
    config = tmp_path / "snapferry.toml"
    config.write_text(f'[stores]\none = "{tmp_path}/one"\nother = "{tmp_path}/other"\n')
    env = {"SNAPFERRY_CONFIG": str(config)}

    assert run("cat", "one", "latest", "a", env=env).out == "one"
    assert run("diff", f"one@{old}", "other@latest", env=env).out.count("\n") == 3
    assert "nowhere" in run("size", "nowhere", code=2, env=env).err


def publish(root: Path, *entries: Entry) -> SnapshotId:
    """File a manifest in the store at *root*, whatever it lists."""
    text = render(entries)
    identifier = snapshot_id(text)
    path = root / manifest_key(identifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return identifier


def test_hostile_names_control_no_terminal(run: Run, tmp_path: Path) -> None:
    hostile = publish(
        tmp_path, Entry("F", "\x1b[m", "a" * 64, 1, HOSTILE), Entry("F", "644", "a" * 64, 1, "./ a")
    )
    empty = publish(tmp_path, Entry("F", "644", "a" * 64, 1, "./b"))

    assert "\\x1b[2J\\u202e\\x07red" in run("show", str(tmp_path), hostile).out
    assert '  " a"' in run("show", str(tmp_path), hostile).out
    assert "\\x1b" in run("show", "--flat", str(tmp_path), hostile).out
    assert "\\x1b" in run("diff", f"{tmp_path}@{empty}", f"@{hostile}").out
    assert "\\x1b" in run("cat", str(tmp_path), hostile, HOSTILE + "x", code=2).err
    found = run("show", "--json", str(tmp_path), hostile).document
    assert HOSTILE in [entry["path"] for entry in found]


def test_what_the_user_named_wrongly_is_one_line_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    old = make_store(tmp_path / "store", OLD)
    for arguments in (
        ("cat", store, "f" * 64, "a"),
        ("cat", store, "ffff", "a"),
        ("cat", store, "never@", "a"),
        ("cat", store, old, "dir"),
        ("cat", store, old, "."),
        ("show", store, "A" * 64),
        ("size", store, "--id", "1"),
        ("size", store, "--shared"),
        ("diff", f"{store}@{old}", store),
        ("diff", "@latest", "@latest"),
        ("diff", f"{store}@{old}", f"@{old}", "--objects"),
        ("diff", store, store, "--directories"),
        ("diff", f"{store}@{'f' * 64}", f"@{old}"),
        ("show", "ftp://x", old),
    ):
        run(*arguments, code=2)

    assert "'./dir/b'" in run("cat", store, old, "dir/bb", code=2).err
    assert "'./dir/big'" in run("show", store, old, "big", code=2).err


def test_a_store_that_cannot_be_read_is_one_line_and_exit_code_1(run: Run, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for arguments in (
        ("ls", "-l", nowhere),
        ("size", nowhere),
        ("show", nowhere, "f" * 64),
        ("cat", nowhere, "latest", "a"),
        ("orphans", nowhere),
    ):
        assert nowhere in run(*arguments, code=1).err
    # 1 is the answer "they differ".
    run("diff", nowhere, nowhere, code=2)
    run("diff", f"{nowhere}@latest", "@latest", code=2)


def test_corrupt_objects_and_manifests(run: Run, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    old = make_store(tmp_path / "store", OLD)
    new = make_store(tmp_path / "store", NEW)
    (tmp_path / "store" / object_key(digest(b"one"))).write_bytes(b"onf")
    (tmp_path / "store" / object_key(digest(b"gone"))).unlink()

    assert run("cat", store, old, "a", code=1).out == ""
    streamed = run("cat", "--stream", store, old, "a", code=1)
    assert (streamed.out, "IntegrityError" in streamed.err) == ("onf", True)
    assert "ObjectMissing" in run("cat", store, old, "gone", code=1).err

    (tmp_path / "store" / manifest_key(old)).write_bytes(b"F 644 x 1 ./a\n")
    for arguments in (("size",), ("orphans",)):
        assert old in run(*arguments, store, code=1).err
    assert run("size", "--id", new, "--json", store).document["files"] == 4
    run("diff", f"{store}@{new}", f"@{old}", code=2)
    rows = run("ls", "-l", "--json", store, code=1).document
    assert {row["id"]: row["files"] for row in rows} == {old: None, new: 4}
    assert "?" in run("ls", "-l", store, code=1).out


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    entries = [Entry("F", "644", "a" * 64, 1, f"./{number:06}") for number in range(30_000)]
    snapshot = publish(tmp_path, *entries)
    big = make_store(tmp_path, {"./big": b"x" * 5_000_000})
    for arguments in (
        ["show", str(tmp_path), snapshot],
        ["diff", f"{tmp_path}@{big}", f"@{snapshot}"],
        ["cat", str(tmp_path), big, "big"],
        ["cat", "--stream", str(tmp_path), big, "big"],
    ):
        with subprocess.Popen(
            [*program(), *arguments],
            env=environment(),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
            process.wait(PATIENCE_S)


def test_a_long_read_can_be_interrupted(tmp_path: Path) -> None:
    snapshot = publish(tmp_path, Entry("F", "644", digest(b"x"), 1, "./a"))
    os.mkfifo(tmp_path / "pipe")
    hang = f"""
import os, threading
from snapferry.stores.snapshot_store import SnapshotStore
def hang(self, *_):
    open({str(tmp_path / "pipe")!r}, "w").close()
    threading.Event().wait()
SnapshotStore.read_manifest = hang
"""
    for arguments, number, code in (
        (["show", str(tmp_path), snapshot], signal.SIGINT, 130),
        (["ls", "-l", str(tmp_path)], signal.SIGTERM, 130),
    ):
        with subprocess.Popen(
            [*program(hang), *arguments],
            env=environment(),
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            # Blocks until the read began.
            (tmp_path / "pipe").read_bytes()
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, out) == (code, b"")
            assert b"Traceback" not in err


def test_progress_is_shown_without_a_terminal_too(tmp_path: Path) -> None:
    make_store(tmp_path / "store", OLD)
    soon = "import snapferry.orchestrator.cli.output.activity as a; a.LINE_EVERY_S = 0"
    for arguments, shown in ((["size"], True), (["size", "--no-progress"], False), (["orphans"], True)):
        ended = subprocess.run(
            [*program(soon), *arguments, str(tmp_path / "store")],
            env=environment(),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        assert ("1 manifest" in ended.stderr) == shown


def peak_memory(*arguments: str) -> int:
    """Run a command whose output is thrown away; return the peak of its memory in bytes."""
    with subprocess.Popen(
        [*program(), *arguments], env=environment(), cwd=REPOSITORY, stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_manifests_and_files(tmp_path: Path) -> None:
    small = publish(tmp_path, Entry("F", "644", "a" * 64, 1, "./a"))
    entries = [Entry("F", "644", f"{number:064x}", 1, f"./{number:09}") for number in range(700_000)]
    huge = publish(tmp_path, *entries)
    changed = publish(tmp_path, *entries[::2])
    text = make_store(tmp_path, {"./big": b"x" * 200_000_000, "./a": b"a"})
    base = peak_memory("diff", f"{tmp_path}@{small}", f"@{small}")

    most = base + 40_000_000
    assert peak_memory("diff", f"{tmp_path}@{huge}", f"@{changed}") < most
    assert peak_memory("diff", "--json", f"{tmp_path}@{changed}", f"@{huge}") < most
    assert peak_memory("show", str(tmp_path), huge) < most
    assert peak_memory("cat", "--stream", str(tmp_path), text, "big") < most
    # What is kept in memory before the temporary file takes over, and again while it is moved there.
    assert peak_memory("cat", str(tmp_path), text, "big") < most + 2 * 32 * 1024**2
