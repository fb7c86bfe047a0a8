"""The job that pulls a snapshot into a tree: what it writes, and what it never writes."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from snapferry.orchestrator.driving.outcome import Result
from snapferry.orchestrator.planning import plan_file, prepare
from snapferry.orchestrator.planning.trees.apart import check_apart
from snapferry.orchestrator.reporting.failures import dead_letters
from snapferry.orchestrator.reporting.text.dry_run import dry_run_lines
from snapferry.stores.access import TRUSTED, AccessPolicy
from snapferry.stores.address import Address, SnapshotId, manifest_key, object_key
from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.snapshot import read_tree
from snapferry.stores.backends.tree.writing.temporary import is_temporary
from snapferry.stores.errors import InvalidStoreURL, ManifestSyntaxError, NotAllowed, StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import OpenReader
from snapferry.stores.urls import parse_url
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, StoreRef, TreeOptions

from .fleet import Fleet, estimate_of

MIB = 1024 * 1024


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree, whose snapshot is in the source."""
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    for number in range(12):
        (root / f"file {number:02}").write_bytes(b"%d" % number * 100)
    for number in range(7):
        (root / "sub" / f"same {number}").write_bytes(b"3" * 100)
    (root / "sub" / "zero").touch()
    (root / "sub" / "large").write_bytes(os.urandom(3 * MIB))
    (root / "sub" / "large too").write_bytes((root / "sub" / "large").read_bytes())
    (root / "a link").symlink_to("sub/large")
    (root / "sub" / "private").write_bytes(b"private")
    (root / "sub" / "private").chmod(0o600)
    (root / "sub").chmod(0o555)
    return root


FILES = 12 + 7 + 5


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


@pytest.fixture
def pull(fleet: Fleet, tree: Path, dest: Path) -> Fleet:
    """A job that pulls the snapshot of *tree* into *dest*, with batches of at most 5 files and 1 MiB."""
    source = open_store(str(fleet.source))
    backend = TreeBackend(TreePlace(str(tree)))
    with read_tree(backend) as manifest:
        source.push(manifest, backend)
        found = manifest.id
    fleet.submit(
        found,
        destination=StoreRef(url=f"tree://{dest}"),
        action=Action.PULL,
        everything=False,
        batch_bytes=MIB,
    )
    return fleet


def described(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return path -> permissions and bytes of all that is in *root*; links count as what they point to."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode & 0o7777 if not path.is_symlink() else 0o777,
            path.read_bytes() if path.is_file() else None,
        )
        for path in root.rglob("*")
    }


def forget_plans() -> None:
    """As on another machine: the plan is not known."""
    prepare.forget("job")
    plan_file.forget("job")


def test_a_snapshot_is_pulled(pull: Fleet, tree: Path, dest: Path) -> None:
    pull.copy_all()

    status = pull.status
    assert (status.state, status.error) == (State.DONE, "")
    assert described(dest) == described(tree)
    assert pull.rows() == [(pull.snapshot, "fetched")]
    assert (status.objects_total, status.copied, status.present, status.failed) == (FILES, FILES, 0, 0)
    assert status.objects_settled == status.objects_total
    assert status.bytes_settled == status.bytes_total


def test_an_object_is_read_once_for_the_files_of_a_batch(pull: Fleet) -> None:
    pull.submit(pull.snapshot, batch_objects=1000, batch_bytes=100 * MIB)
    pull.copy_all()

    assert pull.status.copied == FILES
    assert pull.status.bytes_copied == 1400 + 3 * MIB + len("private")


def test_a_file_larger_than_a_batch_is_read_once_for_all_its_places(
    pull: Fleet, tree: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_object = SnapshotStore.open_object

    def opening(store: SnapshotStore, address: Address, *, size_hint: int = 0) -> OpenReader:
        opened.append(address)
        return open_object(store, address, size_hint=size_hint)

    monkeypatch.setattr(SnapshotStore, "open_object", opening)
    pull.copy_all()

    large = digest((tree / "sub" / "large").read_bytes())
    assert opened.count(large) == 1
    assert described(dest) == described(tree)
    assert (pull.status.copied, pull.status.bytes_settled) == (FILES, pull.status.bytes_total)


def test_what_is_right_is_not_written_again(pull: Fleet, tree: Path, dest: Path) -> None:
    pull.copy_all()
    before = {path: path.stat().st_ino for path in dest.rglob("*")}
    times = (dest / "file 01").stat()
    (dest / "file 01").write_bytes(b"9" * 100)
    os.utime(dest / "file 01", ns=(times.st_atime_ns, times.st_mtime_ns))
    (dest / "file 02").chmod(0o600)
    (dest / "stranger").write_bytes(b"stranger")
    pull.submit(pull.snapshot)
    pull.copy_all()

    assert (pull.status.state, pull.status.copied, pull.status.present) == (State.DONE, 1, FILES - 1)
    (dest / "stranger").unlink()
    assert described(dest) == described(tree)
    assert [path for path in before if path.stat().st_ino != before[path]] == [dest / "file 01"]


def test_a_dry_run_counts_and_changes_nothing(pull: Fleet, dest: Path) -> None:
    pull.submit(pull.snapshot, dry_run=True)
    assert pull.drive().to_do == FILES
    assert not dest.exists()

    pull.submit(pull.snapshot, dry_run=False)
    pull.copy_all()
    (dest / "file 01").write_bytes(b"other")
    (dest / "file 02").chmod(0o600)
    (dest / "stranger").write_bytes(b"stranger")
    before = described(dest)
    pull.submit(pull.snapshot, dry_run=True, tree=TreeOptions(delete=True))

    assert pull.drive().to_do == 1
    assert described(dest) == before
    assert estimate_of(pull)["remove"] == {
        "files": 1,
        "directories": 0,
        "in_the_way": 0,
        "unlisted": 0,
        "paths": ["./stranger"],
    }


def test_a_dry_run_counts_what_delete_would_remove(pull: Fleet, dest: Path) -> None:
    pull.copy_all()
    (dest / "sub").chmod(0o755)
    (dest / "file 01").unlink()
    (dest / "file 01" / "deep").mkdir(parents=True)
    (dest / "file 01" / "deep" / "x").write_bytes(b"x")
    (dest / "file 02").unlink()
    (dest / "file 02").mkdir()
    shutil.rmtree(dest / "sub" / "empty")
    (dest / "sub" / "empty").write_bytes(b"in the way")
    (dest / "sub" / "stranger").symlink_to("/etc/passwd")
    (dest / "strangers" / "more" / "and more").mkdir(parents=True)
    (dest / "strangers" / "a").write_bytes(b"a")
    for number in range(30):
        (dest / f"stray {number:02}").touch()
    before = described(dest)

    pull.submit(pull.snapshot, dry_run=True, tree=TreeOptions(delete=True))
    pull.drive()

    assert described(dest) == before
    removed = estimate_of(pull)["remove"]
    paths = removed.pop("paths")
    assert removed == {"files": 32, "directories": 2, "in_the_way": 2, "unlisted": 0}
    assert len(paths) == 20
    assert {"./file 01/", "./sub/empty", "./sub/stranger"} < set(paths)
    lines = dry_run_lines(pull.status, estimate_of(pull))
    assert "  deletions  would remove 32 files and 2 directories, with all that is in them" in lines
    assert lines[-1] == "    and 14 more"

    pull.submit(pull.snapshot, dry_run=False, tree=TreeOptions(delete=True))
    pull.copy_all()
    assert pull.status.state is State.DONE
    # What is in the way of a file or directory is removed by the worker that writes it.
    assert pull.status.deleted == 34 - 2


def test_a_dry_run_without_a_tree_removes_nothing(pull: Fleet, dest: Path) -> None:
    pull.submit(pull.snapshot, dry_run=True, tree=TreeOptions(delete=True))
    pull.drive()

    removed = estimate_of(pull)["remove"]
    assert (removed["files"], removed["directories"], removed["paths"]) == (0, 0, [])
    assert not dest.exists()


def test_an_exact_mirror_on_request(pull: Fleet, tree: Path, dest: Path) -> None:
    (dest / "file 01" / "deep").mkdir(parents=True)
    (dest / "file 01" / "deep" / "x").write_bytes(b"x")
    (dest / "stranger").write_bytes(b"stranger")
    (dest / "sub").write_bytes(b"a file")
    pull.submit(pull.snapshot, tree=TreeOptions(delete=True))
    pull.copy_all()

    assert (pull.status.state, pull.status.error) == (State.DONE, "")
    assert described(dest) == described(tree)


def test_without_delete_what_is_in_the_way_fails_its_file_alone(pull: Fleet, dest: Path) -> None:
    (dest / "file 01").mkdir(parents=True)
    (dest / "file 01" / "x").write_bytes(b"x")
    pull.submit(pull.snapshot)
    pull.copy_all()

    status = pull.status
    assert (status.state, status.copied, status.failed) == (State.FAILED, FILES - 1, 1)
    letters = list(dead_letters(pull.ledger, "job", TRUSTED))
    assert [(letter.places, letter.known and letter.known.failure.error) for letter in letters] == [
        ([(pull.snapshot, "./file 01")], "NotAnObject")
    ]
    assert (dest / "file 01" / "x").read_bytes() == b"x"
    assert pull.rows() == [(pull.snapshot, "failed")]


@pytest.mark.parametrize("damage", ["missing", "corrupt"])
def test_an_object_that_is_wrong_fails_its_files_and_deletes_nothing(
    pull: Fleet, dest: Path, damage: str
) -> None:
    found = pull.source / object_key(digest(b"3" * 100))
    found.chmod(0o644)
    found.write_bytes(b"4" * 100) if damage == "corrupt" else found.unlink()
    dest.mkdir()
    (dest / "stranger").write_bytes(b"stranger")
    pull.submit(pull.snapshot, tree=TreeOptions(delete=True))
    pull.copy_all()

    assert (pull.status.state, pull.status.copied, pull.status.failed) == (State.FAILED, FILES - 8, 8)
    letters = list(dead_letters(pull.ledger, "job", TRUSTED))
    paths = {path for letter in letters for _, path in letter.places}
    assert paths == {"./file 03", *(f"./sub/same {number}" for number in range(7))}
    assert not (dest / "file 03").exists()
    assert (dest / "stranger").exists()


def test_files_that_vanish_or_change_before_the_end_are_pulled_again(
    pull: Fleet, tree: Path, dest: Path
) -> None:
    pull.drive()
    for queued in list(pull.queued):
        pull.copy(queued)
    (dest / "file 01").unlink()
    (dest / "sub" / "same 3").chmod(0o700)
    (dest / "sub" / "private").unlink()
    (dest / "sub" / "private").symlink_to("/etc/passwd")
    pull.copy_all()

    assert pull.status.state is State.DONE
    assert described(dest) == described(tree)
    assert [queued.series for queued in pull.queued if queued.series != "plan"] == ["heal-0-1"]


@pytest.mark.parametrize("known", [True, False], ids=["known", "planned again"])
def test_batches_run_twice_and_another_orchestrator_changes_nothing(
    pull: Fleet, tree: Path, dest: Path, *, known: bool
) -> None:
    pull.drive()
    queued = pull.queued[0]
    pull.copy(queued, 0, 1)
    if not known:
        forget_plans()
    pull.drive()
    for each in list(pull.queued):
        pull.copy(each)
        pull.copy(each)
    if not known:
        forget_plans()

    assert pull.drive().result is Result.DONE
    assert pull.drive().result is Result.ALREADY_ENDED
    assert described(dest) == described(tree)


def test_a_hostile_manifest_ends_the_job_before_anything_is_written(pull: Fleet, dest: Path) -> None:
    text = render([Entry("F", "644", digest(b"3" * 100), 100, "./../outside")])
    found = pull.source / manifest_key(snapshot_id(text))
    found.parent.mkdir(parents=True)
    found.write_bytes(text)
    pull.submit(SnapshotId(snapshot_id(text)))

    with pytest.raises(ManifestSyntaxError):
        pull.drive()
    assert not dest.exists()
    assert not (dest.parent / "outside").exists()


def test_a_snapshot_without_files_is_pulled(pull: Fleet, tree: Path, dest: Path) -> None:
    text = render([Entry("D", "750", digest(b""), 0, "./"), Entry("D", "711", digest(b""), 0, "./empty/")])
    open_store(str(pull.source)).put_manifest(snapshot_id(text), text)
    pull.submit(SnapshotId(snapshot_id(text)))
    pull.copy_all()

    assert pull.status.state is State.DONE
    assert {path: mode for path, (mode, _) in described(dest).items()} == {"empty": 0o711}
    assert dest.stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize(
    ("access", "allowed"),
    [
        ({}, False),
        ({"write": ["/elsewhere"]}, False),
        ({"write": ["tree:///elsewhere"]}, False),
        ({"write": ["tree://{}"]}, True),
    ],
)
def test_a_process_writes_only_to_trees_that_it_names(
    pull: Fleet, dest: Path, access: dict[str, list[str]], allowed: bool
) -> None:
    places = {name: tuple(parse_url(url.format(dest)) for url in urls) for name, urls in access.items()}
    pull.access = AccessPolicy(**places)  # type: ignore[arg-type]
    if allowed:
        assert pull.drive().planned is not None
        return
    with pytest.raises(NotAllowed):
        pull.drive()
    assert not dest.exists()


def test_a_tree_that_is_gone_is_not_made_again(pull: Fleet, dest: Path) -> None:
    pull.drive()
    shutil.rmtree(dest)
    pull.copy(pull.queued[0])

    assert pull.status.failed == 0 or pull.status.copied == 0
    assert not dest.exists()


@pytest.mark.parametrize(
    ("source", "tree"),
    [("/a/store", "/a"), ("/a", "/a/tree"), ("/a", "/a"), ("/a/../b", "/b/c")],
)
def test_a_store_and_a_tree_must_be_apart(source: str, tree: str) -> None:
    with pytest.raises(InvalidStoreURL):
        check_apart(StoreRef(url=source), StoreRef(url=f"tree://{tree}"))
    check_apart(StoreRef(url="/a/store"), StoreRef(url="tree:///a/storehouse"))


def test_a_tree_that_cannot_share_bytes_fails_before_it_is_written(pull: Fleet, dest: Path) -> None:
    pull.submit(pull.snapshot, tree=TreeOptions(linked=True))

    with pytest.raises(StoreError) as raised:
        pull.drive()
    assert list(dest.iterdir()) == []
    assert not is_temporary(raised.value.subject.removeprefix("./"))


def test_a_tree_shares_bytes_also_through_the_limits_of_its_job(
    pull: Fleet, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned = []

    def clone(descriptor: int, request: int, source: int) -> None:
        cloned.append(os.write(descriptor, os.pread(source, 10 * MIB, 0)))
        os.lseek(descriptor, 0, os.SEEK_SET)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    pull.submit(pull.snapshot, tree=TreeOptions(linked=True))

    pull.copy_all()

    assert pull.status.state is State.DONE, pull.status.error
    assert cloned
