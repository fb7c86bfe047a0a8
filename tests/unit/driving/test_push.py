"""The job that pushes a tree: what it publishes, and what it never publishes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from snapferry.orchestrator.driving.context import open_stores
from snapferry.orchestrator.driving.outcome import Result
from snapferry.orchestrator.planning import plan_file, prepare
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.planning.trees import listing_file
from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.reporting.failures import dead_letters
from snapferry.orchestrator.reporting.text.drive import describe_drive
from snapferry.orchestrator.reporting.text.outcome import done_text
from snapferry.stores.access import TRUSTED, AccessPolicy
from snapferry.stores.address import SnapshotId
from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.snapshot import read_tree
from snapferry.stores.errors import InvalidStoreURL, NotAllowed
from snapferry.stores.hashing import digest
from snapferry.stores.names.name import NameRecord, parse_name
from snapferry.stores.urls import parse_url
from snapferry.workers.copying.transfer import push as pushing
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, JobSpec, StoreRef, TreeOptions

from .fleet import Fleet, estimate_of

MIB = 1024 * 1024
NIGHTLY = parse_name("nightly")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    for number in range(12):
        (root / f"file {number:02}").write_bytes(b"%d" % number * 100)
    (root / "sub" / "same").write_bytes(b"3" * 100)
    (root / "sub" / "zero").touch()
    (root / "sub" / "large").write_bytes(os.urandom(3 * MIB))
    (root / "a link").symlink_to("sub/large")
    (root / "sub" / "nowhere").symlink_to("not there")
    (root / "sub" / "private").write_bytes(b"private")
    (root / "sub" / "private").chmod(0o600)
    return root


@pytest.fixture
def push(fleet: Fleet, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A job that pushes *tree*, with batches of at most 5 files and 1 MiB."""
    monkeypatch.setattr(pushing, "PAUSES_S", (0.0, 0.0))
    fleet.submit(source=StoreRef(url=f"tree://{tree}"), action=Action.PUSH, everything=True, batch_bytes=MIB)
    return fleet


def id_of(tree: Path, **options: Any) -> SnapshotId:
    with read_tree(TreeBackend(TreePlace(str(tree))), **options) as manifest:
        return manifest.id


def forget_plans() -> None:
    """As on another machine: neither plan nor listing is known."""
    prepare.forget("job")
    plan_file.forget("job")
    listing_file.forget("job")


def test_a_tree_is_pushed_and_published(push: Fleet, tree: Path) -> None:
    push.copy_all()

    status = push.status
    assert status.state is State.DONE
    assert push.published() == [id_of(tree)] == [status.first_snapshot]
    assert push.rows() == [(id_of(tree), "published")]
    # The link is read as a file of its own, and its bytes are those of its target.
    assert (status.objects_total, status.copied, status.present, status.failed) == (17, 15, 2, 0)
    assert status.objects_settled == status.objects_total
    assert status.bytes_settled == status.bytes_total == 1400 + 100 + 7 + 2 * 3 * MIB
    assert not push.ledger.client.exists("snapferry:job:job:files")


def test_what_is_there_is_not_written_again(push: Fleet, tree: Path) -> None:
    push.copy_all()
    push.submit()
    push.copy_all()

    assert (push.status.state, push.status.copied, push.status.present) == (State.DONE, 0, 17)
    (tree / "new").write_bytes(b"new")
    push.submit()
    push.copy_all()
    assert (push.status.copied, push.status.present) == (1, 17)
    assert len(push.published()) == 2


def test_batches_that_run_twice_and_late_change_nothing(push: Fleet, tree: Path) -> None:
    push.drive()
    queued = push.queued[0]
    push.copy(queued, 0, 1)
    push.copy(queued)
    (tree / "file 03").write_bytes(b"other bytes")
    push.copy(queued)
    push.drive()

    assert push.status.state is State.DONE
    (tree / "file 03").write_bytes(b"3" * 100)
    assert push.published() == [id_of(tree)]


@pytest.mark.parametrize("known", [True, False], ids=["known", "walked again"])
def test_another_orchestrator_publishes_the_same(push: Fleet, tree: Path, *, known: bool) -> None:
    push.drive()
    for queued in list(push.queued):
        push.copy(queued)
    if not known:
        forget_plans()

    assert push.drive().result is Result.DONE
    assert push.published() == [id_of(tree)]


def test_a_tree_that_changed_is_not_planned_anew_by_another_orchestrator(push: Fleet, tree: Path) -> None:
    push.drive()
    push.copy(push.queued[0])
    (tree / "new").touch()
    forget_plans()

    with pytest.raises(SourceChanged):
        push.drive()
    assert push.published() == []


def test_the_walk_that_was_planned_is_published_although_the_tree_changed(push: Fleet, tree: Path) -> None:
    expected = id_of(tree)
    push.drive()
    push.copy(push.queued[0])
    (tree / "new").touch()
    (tree / "file 01").chmod(0o600)

    push.copy_all()
    assert push.published() == [expected]


def test_a_file_that_is_gone_or_denied_fails_the_snapshot_and_is_listed(push: Fleet, tree: Path) -> None:
    push.drive()
    (tree / "file 03").unlink()
    (tree / "file 04").unlink()
    os.mkfifo(tree / "file 04")
    push.copy_all()

    status = push.status
    assert (status.state, status.failed, push.published()) == (State.FAILED, 2, [])
    details = sorted(one.failure.detail.partition(":")[0] for one in push.ledger.failures("job"))
    assert details == ["./file 03", "./file 04"]
    assert {one.failure.error for one in push.ledger.failures("job")} == {"KeyMissing", "NotAnObject"}


def test_failed_files_are_listed_with_their_paths(push: Fleet, tree: Path) -> None:
    push.drive()
    content = (tree / "file 03").read_bytes()
    (tree / "file 03").unlink()
    push.copy_all()
    (tree / "file 03").write_bytes(content)

    (letter,) = dead_letters(push.ledger, "job", TRUSTED)
    assert [path for _, path in letter.places] == ["./file 03"]
    assert letter.address == digest(b"./file 03")


def test_a_file_that_does_not_hold_still_fails_and_one_that_does_at_last_is_pushed(
    push: Fleet, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.stores.backends.tree.reading.PAUSES_S", (0.0,))
    opened: dict[str, int] = {}
    real = TreeBackend.open

    def open_and_change(self: TreeBackend, key: str, *, size_hint: int = 0) -> Any:
        reader = real(self, key, size_hint=size_hint)
        opened[key] = opened.get(key, 0) + 1
        if key == "./file 01" or (key == "./file 02" and opened[key] == 1):
            with (tree / key).open("ab") as file:
                file.write(b"+")
        return reader

    monkeypatch.setattr(TreeBackend, "open", open_and_change)
    monkeypatch.setattr(TreeBackend, "fetch_many", lambda _, keys, _hints: [None] * len(keys))
    push.copy_all()

    (failed,) = push.ledger.failures("job")
    assert (failed.failure.error, failed.failure.detail.partition(":")[0]) == ("FileChanged", "./file 01")
    assert (push.status.state, push.published()) == (State.FAILED, [])


def test_a_large_file_that_changes_between_its_two_readings_is_pushed_as_it_is_then(
    push: Fleet, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.stores.backends.tree.reading.LARGEST_KEPT_BYTES", MIB)
    (tree / "a link").unlink()
    times = 0
    real = TreeBackend.open

    def open_and_change(self: TreeBackend, key: str, *, size_hint: int = 0) -> Any:
        nonlocal times
        if key == "./sub/large":
            times += 1
            if times == 2:
                (tree / "sub" / "large").write_bytes(b"changed" * MIB)
        return real(self, key, size_hint=size_hint)

    monkeypatch.setattr(TreeBackend, "open", open_and_change)
    push.copy_all()

    assert push.status.state is State.DONE
    assert times >= 3
    assert push.store.has_object(digest(b"changed" * MIB))
    (snapshot,) = push.published()
    with push.store.read_manifest(snapshot) as manifest:
        sizes = {entry.path: entry.size for entry in manifest.entries()}
    assert sizes["./sub/large"] == 7 * MIB


def test_objects_that_disappear_are_pushed_again(push: Fleet, tree: Path) -> None:
    push.drive()
    for queued in list(push.queued):
        push.copy(queued)
    push.remove(digest(b"3" * 100), digest(b"5" * 100))

    push.copy_all()
    assert (push.status.state, push.published()) == (State.DONE, [id_of(tree)])
    assert push.status.healed == 2


def test_digests_that_redis_lost_are_found_again(push: Fleet, tree: Path) -> None:
    push.drive()
    for queued in list(push.queued):
        push.copy(queued)
    push.ledger.client.delete("snapferry:job:job:files")

    push.copy_all()
    assert (push.status.state, push.published()) == (State.DONE, [id_of(tree)])


def test_patterns_and_links_are_those_of_the_job(push: Fleet, tree: Path) -> None:
    push.submit(tree=TreeOptions(exclude=("/sub/l", "[12]$"), follow=False))
    push.copy_all()

    backend = TreeBackend(TreePlace(str(tree)), follow=False)
    with read_tree(backend, exclude=["/sub/l", "[12]$"]) as manifest:
        assert push.published() == [manifest.id]


def test_an_empty_tree_is_a_snapshot(push: Fleet, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    push.submit(source=StoreRef(url=f"tree://{tmp_path}/nothing"))
    push.copy_all()

    assert push.status.state is State.DONE
    assert push.published() == [id_of(tmp_path / "nothing")]


def test_a_tree_is_read_only_where_the_process_allows_it(push: Fleet, tree: Path) -> None:
    for access in (AccessPolicy(), AccessPolicy(read=(parse_url("file:///"),))):
        push.access = access
        with pytest.raises(NotAllowed):
            push.drive()
    push.access = AccessPolicy(read=(parse_url(f"tree://{tree}"),))

    push.copy_all()
    assert push.published() == [id_of(tree)]


def test_a_dry_run_counts_and_writes_nothing(push: Fleet) -> None:
    push.submit(dry_run=True)
    outcome = push.drive()
    assert (outcome.result, outcome.to_do) == (Result.DONE, 17)
    assert not push.destination.exists()
    assert describe_drive(outcome) == "dry run: 17 of 17 files would be read; done"
    estimate = estimate_of(push)
    assert estimate["objects"] == {"total": 17, "present": 0, "to_copy": 17, "to_read": 17}
    assert estimate["bytes"]["to_read"] == estimate["bytes"]["total"] > 0
    assert estimate["exact"] is False


def test_the_snapshot_is_tagged_when_it_is_published(push: Fleet, tree: Path) -> None:
    push.submit(tag="nightly")
    push.drive()
    assert push.ledger.spec("job").tag == "nightly"
    assert not (push.destination / ".names").exists()
    push.copy_all()

    assert (push.status.state, push.status.names_carried) == (State.DONE, 1)
    assert push.store.names.read(NIGHTLY) == NameRecord(id_of(tree))
    assert "and tagged" in done_text(push.status)

    (tree / "file 01").write_bytes(b"changed")
    push.submit(tag="nightly", dry_run=True)
    push.drive()
    assert push.store.names.read(NIGHTLY) != NameRecord(id_of(tree))
    push.submit(tag="nightly", dry_run=False)
    push.copy_all()
    assert push.store.names.read(NIGHTLY) == NameRecord(id_of(tree))


def test_a_tag_that_cannot_be_written_fails_the_job_and_the_snapshot_is_published(
    push: Fleet, tree: Path
) -> None:
    push.destination.mkdir()
    (push.destination / ".names").write_bytes(b"in the way")
    push.submit(tag="nightly")
    push.copy_all()

    status = push.status
    assert (status.state, status.cause, push.published()) == (State.FAILED, "tag", [id_of(tree)])
    assert status.error.startswith(
        f"snapshot {id_of(tree)} is published, but could not be tagged as nightly: "
    )
    assert status.error.endswith(f": snapferry tag {push.destination} {id_of(tree)} nightly")
    assert "published" in advise(status).sentence


@pytest.mark.parametrize(
    ("tag", "action"), [("cafe", Action.PUSH), ("../x", Action.PUSH), ("x", Action.COPY)]
)
def test_a_tag_that_is_no_name_or_of_no_snapshot_is_refused(tag: str, action: Action) -> None:
    one, other = StoreRef(url="tree:///a"), StoreRef(url="file:///b")
    with pytest.raises(ValidationError):
        JobSpec(source=one, destination=other, everything=True, action=action, tag=tag)


@pytest.mark.parametrize(
    ("action", "source", "destination"),
    [
        (Action.COPY, "tree:///a", "file:///b"),
        (Action.COPY, "file:///a", "tree:///b"),
        (Action.PUSH, "file:///a", "file:///b"),
        (Action.PUSH, "tree:///a", "tree:///b"),
        (Action.VERIFY, "tree:///a", "tree:///a"),
        (Action.PULL, "tree:///a", "file:///b"),
    ],
)
def test_a_tree_is_no_store_and_a_store_no_tree(action: Action, source: str, destination: str) -> None:
    spec = JobSpec.of(StoreRef(url=source), StoreRef(url=destination), None, action=action)
    with pytest.raises(InvalidStoreURL):
        open_stores(spec, TRUSTED, create=False)
