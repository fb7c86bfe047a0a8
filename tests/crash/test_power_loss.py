"""
Lose power at any moment of a command that writes to a directory; see `disk` for what the disk may then hold.

The slow tests record the system calls of whole commands with strace, those of workers and orchestrators among them:

    python -m pytest -m slow --timeout=3600 tests/crash/test_power_loss.py
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from snapferry.stores.address import SnapshotId, object_key
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from tests.faults.test_kill_points import copy_and_commit
from tests.integration.processes import environment, program, snapferry
from tests.opening import open_store
from tests.sample import make_store

from .disk import Model, Recording, State, is_temporary
from .power import Check, problems, read_state, store_check, write_state
from .trace import Call, calls, record

FILES = {"./one": b"1" * 5000, "./two": b"2" * 100}
OTHERS = {**FILES, "./three": b"3" * 100}


# The model, on calls that are made up.


def put(path: str, data: bytes, *, sync: str, known: set[str]) -> list[Call]:
    """Return the calls of a writer of one file: to a temporary file, which is renamed. *sync* is what it syncs."""
    found = []
    folder = ""
    for part in path.split("/")[:-1]:
        folder = f"{folder}/{part}" if folder else part
        if folder not in known:
            known.add(folder)
            found.append(Call("mkdir", folder))
    temporary = f"{folder}/.tmp-1"
    found += [Call("create", temporary), Call("write", temporary, data=data)]
    if sync == "file":
        found.append(Call("fsync", temporary))
    return [*found, Call("rename", temporary, path)]


def copied(store: Path, *, objects: str, between: bool, end: bool) -> list[Call]:
    """Return the calls of a copy of a store: the objects, each synced as *objects*, then the manifest."""
    known: set[str] = set()
    files = {f"b/{path}": data for path, data in read_state(store).items() if data is not None}
    manifests = [path for path in files if "/.manifests/" in path]
    found = [
        call
        for path in sorted(files.keys() - set(manifests))
        for call in put(path, files[path], sync=objects, known=known)
    ]
    found += [Call("syncfs", "b")] if between else []
    for path in manifests:
        found += put(path, files[path], sync="file", known=known)
    found += [Call("syncfs", "b")] if end else []
    return [replace(call, since=index) for index, call in enumerate(found)]


@pytest.mark.parametrize(
    ("objects", "between", "end", "model", "wrong"),
    [
        ("file", True, True, Model.ORDERED, ""),
        ("file", True, True, Model.ANY_ORDER, ""),
        # Names in their order carry the objects with the manifest; elsewhere only a sync does.
        ("file", False, True, Model.ORDERED, ""),
        ("file", False, True, Model.ANY_ORDER, "published, and not complete"),
        ("nothing", True, True, Model.ORDERED, "counts as present"),
        ("file", True, False, Model.ORDERED, "the command had ended"),
    ],
)
def test_the_model_finds_what_is_not_synced(
    memory: Path, objects: str, between: bool, end: bool, model: Model, wrong: str
) -> None:
    reference = memory / "a"
    ids = [make_store(reference, {"./one": FILES["./one"]})]

    count, found = problems(
        copied(reference, objects=objects, between=between, end=end),
        {}, memory / "disk", store_check(reference, ids), [model],
    )  # fmt: skip

    assert count > 10
    assert [one for one in found if wrong in one] if wrong else found == [], found


def test_a_file_that_is_not_synced_may_be_empty_short_or_torn() -> None:
    data = b"x" * 10_000
    made = [Call("create", "f"), Call("write", "f", data=data), Call("rename", "f", "g")]

    found = {state.get("g") for _, state in Recording(made).states(Model.ORDERED)}

    assert found == {
        None, b"", data, bytes(10_000), data[:4096], bytes(4096) + data[4096:],
    }  # fmt: skip


def test_calls_are_read_in_the_order_of_their_returns() -> None:
    def quoted(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    root, other = quoted("/r"), quoted("/elsewhere")
    lines = [
        f'7 mkdirat(3<{root}>, "{quoted("d")}", 0755) = 0',
        f'8 openat(4<{quoted("/r/d")}>, "{quoted("f")}", O_RDWR|O_CREAT|O_EXCL, 0644 <unfinished ...>',
        f"7 syncfs(3<{root}> <unfinished ...>",
        f"8 <... openat resumed>) = 5<{quoted('/r/d/f')}>",
        f'8 write(5<{quoted("/r/d/f")}>, "{quoted("ab,")}", 3) = 3',
        "7 <... syncfs resumed>) = 0",
        f'8 write(6<{other}>, "{quoted("no")}", 2) = 2',
        f'8 renameat(4<{quoted("/r/d")}>, "{quoted("f")}", 4<{quoted("/r/d")}>, "{quoted("g")}") = 0',
        f'8 unlinkat(4<{quoted("/r/d")}>, "{quoted("none")}", 0) = -1 ENOENT (No such file or directory)',
    ]

    found = list(calls(lines, "/r"))

    assert [(call.kind, call.path, call.target) for call in found] == [
        ("mkdir", "d", ""), ("create", "d/f", ""), ("write", "d/f", ""), ("syncfs", "", ""), ("rename", "d/f", "d/g"),
    ]  # fmt: skip
    assert found[2].data == b"ab,"
    # What returned after the sync began is not covered by it.
    assert found[3].since == 1


# Whole commands.


def run(root: Path, folder: Path, *arguments: str) -> tuple[State, list[Call]]:
    """Run a command that writes to *root*; return what *root* held before, and the calls."""
    before = read_state(root)
    found = record([*program(), *arguments], root, folder / "strace.log", environment())
    return before, found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "disk"
    found.mkdir()
    return found


def in_memory(memory: Path, store: Path) -> Path:
    """Return a copy of a store in memory."""
    shutil.copytree(store, memory / "reference", dirs_exist_ok=True)
    return memory / "reference"


def assert_whole(recorded: tuple[State, list[Call]], memory: Path, check: Check) -> None:
    before, found = recorded
    count, wrong = problems(found, before, memory / "disk", check)
    assert count > 5
    assert wrong == [], "\n".join(wrong[:20])


@pytest.mark.slow
def test_a_copy_survives_a_loss_of_power(tmp_path: Path, root: Path, memory: Path) -> None:
    ids = [make_store(tmp_path / "a", files) for files in (FILES, OTHERS)]
    receipt = root / "receipt.json"
    before, found = run(
        root, tmp_path, "sync", "--all", "--from", str(tmp_path / "a"), "--to", str(root / "b"),
        "--receipt", str(receipt),
    )  # fmt: skip
    check = store_check(in_memory(memory, tmp_path / "a"), ids)

    def with_receipt(folder: Path, ended: bool) -> Iterator[str]:
        yield from check(folder, ended)
        if ended and (folder / receipt.name).read_bytes() != receipt.read_bytes():
            yield "the receipt is not whole"

    assert_whole((before, found), memory, with_receipt)
    # The recording without its syncs is not.
    assert problems(without_syncs(found), before, memory / "disk", check, enough=1)[1]


def without_syncs(found: Sequence[Call]) -> list[Call]:
    kept = [call for call in found if call.kind not in ("fsync", "syncfs")]
    return [replace(call, since=index) for index, call in enumerate(kept)]


@pytest.mark.slow
def test_a_mirror_that_deletes_survives_a_loss_of_power(tmp_path: Path, root: Path, memory: Path) -> None:
    ids = [make_store(tmp_path / "a", OTHERS)]
    gone = make_store(root / "b", {"./gone": b"gone"})
    recorded = run(
        root, tmp_path, "sync", "--all", "--delete", "--from", str(tmp_path / "a"), "--to", str(root / "b")
    )

    assert_whole(recorded, memory, store_check(in_memory(memory, tmp_path / "a"), ids, gone=[gone]))


@pytest.mark.slow
def test_a_repair_survives_a_loss_of_power(tmp_path: Path, root: Path, memory: Path) -> None:
    """The wrong bytes are in their place or in quarantine, or both, and never lost."""
    ids = [make_store(place, OTHERS) for place in (tmp_path / "a", root / "b")][:1]
    victim = root / "b" / object_key(digest(FILES["./one"]))
    wrong = b"these bytes are wrong"
    victim.chmod(0o644)
    victim.write_bytes(wrong)
    before, found = run(root, tmp_path, "heal", str(root / "b"), "--all", "--from", str(tmp_path / "a"))

    def check(folder: Path, ended: bool) -> Iterator[str]:
        state = read_state(folder)
        place = str(victim.relative_to(root))
        if state[place] not in (wrong, FILES["./one"]):
            yield f"neither the wrong bytes nor the right ones: {state[place]!r}"
        if ended and state[place] == wrong:
            yield "the command had ended, and the bytes are wrong"
        if state[place] != wrong and wrong not in state.values():
            yield "the wrong bytes are lost"
        if ended:
            yield from store_check(memory / "reference", ids)(folder, ended)

    in_memory(memory, tmp_path / "a")
    assert_whole((before, found), memory, check)


@pytest.mark.slow
def test_a_push_with_a_tag_survives_a_loss_of_power(tmp_path: Path, root: Path, memory: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, data in OTHERS.items():
        (tree / name).write_bytes(data)
    recorded = run(root, tmp_path, "push", str(tree), "--to", str(root / "b"), "--tag", "pushed")
    reference = in_memory(memory, root / "b")
    ids = open_store(str(reference)).list_manifest_ids()
    check = store_check(reference, ids)

    def with_tag(folder: Path, ended: bool) -> Iterator[str]:
        yield from named(folder / "b", "pushed", None, ids[0], ended)
        yield from check(folder, ended)

    assert_whole(recorded, memory, with_tag)


def named(store: Path, name: str, before: SnapshotId | None, after: SnapshotId, ended: bool) -> Iterator[str]:
    """Yield what is wrong with a name that was of the snapshot *before*, and is now of *after*."""
    listed = open_store(str(store)).names.listed() if (store / ".names").is_dir() else {}
    for found in listed.values():
        if found.error is not None or found.dangling:
            yield f"the name {found}"
    ids = {str(one): found.record and found.record.snapshot_id for one, found in listed.items()}
    if ids.get(name) not in ((after,) if ended else (before, after)):
        yield f"the name is of {ids.get(name)}"


@pytest.mark.slow
def test_a_tag_survives_a_loss_of_power(tmp_path: Path, root: Path, memory: Path) -> None:
    old, new = (make_store(root / "b", files) for files in (FILES, OTHERS))
    assert snapferry("tag", str(root / "b"), old, "stable").code == 0
    recorded = run(root, tmp_path, "tag", str(root / "b"), new, "stable")

    assert_whole(recorded, memory, lambda folder, ended: named(folder / "b", "stable", old, new, ended))


@pytest.mark.slow
def test_a_pull_survives_a_loss_of_power(tmp_path: Path, root: Path, memory: Path) -> None:
    """A file is the old one or the new one, whole; and the next pull completes the tree."""
    snapshot = make_store(tmp_path / "a", OTHERS)
    tree = root / "tree"
    (tree / "gone").mkdir(parents=True)
    (tree / "gone" / "x").write_bytes(b"x")
    (tree / "one").write_bytes(b"old")
    before, found = run(
        root, tmp_path, "pull", "--from", str(tmp_path / "a"), "--id", snapshot, "--delete", str(tree)
    )
    store = open_store(str(in_memory(memory, tmp_path / "a")))
    wanted = {f"tree/{name[2:]}": data for name, data in OTHERS.items()}

    def check(folder: Path, ended: bool) -> Iterator[str]:
        state = {path: data for path, data in read_state(folder).items() if not is_temporary(path)}
        yield from (
            f"{path} is neither the old file nor the new one"
            for path, data in state.items()
            if data is not None and data not in (wanted.get(path), before.get(path))
        )
        if ended and state != {"tree": None, **wanted}:
            yield f"the command had ended, and the tree has {sorted(state)}"
        fetch(store, snapshot, folder / "tree")
        state = {path: data for path, data in read_state(folder).items() if not is_temporary(path)}
        if state != {"tree": None, **wanted}:
            yield f"the next pull does not complete it: {sorted(state)}"

    assert_whole((before, found), memory, check)


def fetch(store: SnapshotStore, snapshot: SnapshotId, tree: Path) -> None:
    with store.read_manifest(snapshot) as manifest:
        store.fetch_files(manifest, TreeTarget(str(tree), delete=True))


@pytest.mark.slow
def test_a_job_that_finds_everything_there_makes_it_last(tmp_path: Path, root: Path, memory: Path) -> None:
    """Another process has written it and died before it synced anything."""
    ids = [make_store(tmp_path / "a", FILES)]
    written = copied(tmp_path / "a", objects="file", between=True, end=False)
    end = [Call("mkdir", "b"), *written]
    copy_and_commit(open_store(str(tmp_path / "a")), open_store(str(root / "b")), ids)
    _, found = run(root, tmp_path, "sync", "--all", "--from", str(tmp_path / "a"), "--to", str(root / "b"))
    both = [replace(call, since=index) for index, call in enumerate([*end, *found])]

    assert_whole(({}, both), memory, store_check(in_memory(memory, tmp_path / "a"), ids))


def test_a_state_is_written_as_it_is(tmp_path: Path) -> None:
    state: State = {"d": None, "d/e": None, "d/f": b"data", "g": b""}

    write_state(tmp_path / "there", state)

    assert read_state(tmp_path / "there") == state
