"""
What a store may hold where a manifest should be: both we and snapdir accept it, or both refuse it.

Where we part with snapdir on purpose, there is a test that says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, manifest_key, parse_snapshot_id
from snapferry.stores.errors import IntegrityError, ManifestSyntaxError, ObjectMissing, StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from tests.golden.conftest import Snapshot
from tests.golden.files import contents, copy_snapshot, manifests_in
from tests.golden.oracle import Oracle, Refused

MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"


@dataclass(frozen=True)
class Planted:
    """A store with all objects of a snapshot, and *text* filed where the manifest *id* belongs."""

    root: Path
    id: str

    @property
    def url(self) -> str:
        return f"file://{self.root}"


Plant = Callable[[bytes, str], Planted]


@pytest.fixture
def plant(everything_snapshot: Snapshot, tmp_path: Path) -> Plant:
    """File any text as the manifest of any id."""

    def planted(text: bytes, snapshot: str) -> Planted:
        root = tmp_path / "source"
        shutil.copytree(everything_snapshot.store / ".objects", root / ".objects")
        path = root / manifest_key(parse_snapshot_id(snapshot))
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
        return Planted(root, snapshot)

    return planted


OTHER_FORMS: dict[str, Callable[[bytes], bytes]] = {
    "comment lines": lambda text: b"# made by hand\n" + text.replace(b"\nF", b"\n#\nF", 2) + b"#",
    "empty lines": lambda text: b"\n\n" + text.replace(b"\nD", b"\n\nD") + b"\n",
    "lines out of order": lambda text: b"".join(line + b"\n" for line in reversed(text[:-1].split(b"\n"))),
    "no end of the last line": lambda text: text[:-1],
}


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_a_manifest_stored_in_another_form_is_accepted_by_both_and_published_canonical_by_both(
    form: str, everything_snapshot: Snapshot, plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    text = OTHER_FORMS[form](everything_snapshot.text)
    assert text != everything_snapshot.text
    source = plant(text, everything_snapshot.id)

    assert oracle.verify(source.id, source.url)
    oracle.sync(source.id, source.url, f"file://{tmp_path}/theirs")
    copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert (
        tmp_path / "ours" / manifest_key(parse_snapshot_id(source.id))
    ).read_bytes() == everything_snapshot.text
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def line(
    *,
    kind: str = "F",
    mode: str = "644",
    checksum: str = EMPTY_ADDRESS,
    size: str = "0",
    path: str = "./zero",
) -> bytes:
    return f"{kind} {mode} {checksum} {size} {path}\n".encode()


# Each text is filed under its own digest: nothing but its form is wrong with it.
REFUSED_BY_BOTH: dict[str, tuple[bytes, type[StoreError], str]] = {
    "a newline in a name": (line(path="./a\nb"), ManifestSyntaxError, "line 2"),
    "no path": (line(path=""), ManifestSyntaxError, "line 1"),
    "four fields": (b"F 644 " + EMPTY_ADDRESS.encode() + b" 0\n", ManifestSyntaxError, "line 1"),
    "no mode": (line(mode=""), ManifestSyntaxError, "line 1"),
    "a directory without a checksum": (line(kind="D", checksum="", path="./") + line(), ManifestSyntaxError, "line 1"),
    "an unknown type": (line() + line(kind="L", path="./zz"), ManifestSyntaxError, "line 2"),
    "a negative size": (line(size="-1"), ManifestSyntaxError, "line 1"),
    "a size with a sign": (line(size="+1"), ManifestSyntaxError, "line 1"),
    "a size with leading zeros": (line(size="007"), ManifestSyntaxError, "line 1"),
    "a size beyond 64 bits": (line(size=str(2**64)), ManifestSyntaxError, "line 1"),
    "a checksum that is no digest": (line(checksum="junk"), ManifestSyntaxError, "line 1"),
    "a checksum in capitals": (line(checksum=EMPTY_ADDRESS.upper()), ManifestSyntaxError, "line 1"),
    "a path as a checksum": (line(checksum="../" * 21 + "x"), ManifestSyntaxError, "line 1"),
    "an MD5 checksum": (line(checksum=MD5_OF_NOTHING), IntegrityError, "128 bits"),
    "bytes that are not UTF-8": (line(path="./caf") + b"F 644 %s 0 ./caf\xe9\n" % EMPTY_ADDRESS.encode(),
                                 ManifestSyntaxError, "line 2"),
    "lines out of order": (line(path="./b") + line(path="./a"), ManifestSyntaxError, "line 2"),
    "a comment in the hashed text": (b"# x\n" + line(), ManifestSyntaxError, "line 1"),
    "no end of the hashed text": (line()[:-1], ManifestSyntaxError, "line 1"),
    "no text at all": (b"", ManifestSyntaxError, "empty"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED_BY_BOTH)
def test_a_text_that_is_no_manifest_is_refused_by_both_and_nothing_is_published(
    fault: str, plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    text, error, said = REFUSED_BY_BOTH[fault]
    source = plant(text, digest(text))

    with pytest.raises(Refused):
        oracle.sync(source.id, source.url, f"file://{tmp_path}/theirs")
    with pytest.raises(error, match=said) as raised:
        copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert type(raised.value) is error
    assert raised.value.subject == source.id
    assert manifests_in(tmp_path / "theirs") == []
    assert not (tmp_path / "ours").exists()


def test_a_corrupt_manifest_is_refused_by_both(
    everything_snapshot: Snapshot, plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    text = everything_snapshot.text.replace(b"F 644 ", b"F 645 ", 1)
    source = plant(text, everything_snapshot.id)

    with pytest.raises(Refused, match="hash mismatch"):
        oracle.sync(source.id, source.url, f"file://{tmp_path}/theirs")
    with pytest.raises(IntegrityError, match="does not hash to its id"):
        copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert manifests_in(tmp_path / "theirs") == []
    assert not (tmp_path / "ours").exists()


def test_a_corrupt_object_is_refused_by_both_and_is_not_at_the_destination(
    everything_snapshot: Snapshot, plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    source = plant(everything_snapshot.text, everything_snapshot.id)
    victim = max((source.root / ".objects").rglob("*"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")

    with pytest.raises(Refused, match="hash mismatch"):
        oracle.sync(source.id, source.url, f"file://{tmp_path}/theirs")
    with pytest.raises(IntegrityError, match="corrupt"):
        copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert manifests_in(tmp_path / "ours") == manifests_in(tmp_path / "theirs") == []
    assert not (tmp_path / "ours" / victim.relative_to(source.root)).exists()


def test_a_missing_object_is_refused_by_both_and_nothing_is_published(
    everything_snapshot: Snapshot, plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    source = plant(everything_snapshot.text, everything_snapshot.id)
    next(path for path in sorted((source.root / ".objects").rglob("*")) if path.is_file()).unlink()

    with pytest.raises(Refused, match="not found"):
        oracle.sync(source.id, source.url, f"file://{tmp_path}/theirs")
    with pytest.raises(ObjectMissing):
        copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert manifests_in(tmp_path / "ours") == manifests_in(tmp_path / "theirs") == []


ACCEPTED_BY_BOTH = {
    "the same path twice": line() + line(),
    "the same path with two modes": line(mode="755") + line(mode="644"),
    "a folder with any checksum": line(kind="D", checksum="junk", path="./") + line(),
    "a mode in letters": line(mode="rwx"),
    "a path outside of the tree": line(path="./../../zero"),
    "a size of 64 bits": line(size=str(2**64 - 1)),
    "no entry at all": b"\n",
}


@pytest.mark.parametrize("oddity", ACCEPTED_BY_BOTH)
def test_what_snapdir_lets_pass_we_let_pass_and_file_the_same_bytes(
    oddity: str, plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    text = ACCEPTED_BY_BOTH[oddity]
    source = plant(text, digest(text))

    oracle.sync(source.id, source.url, f"file://{tmp_path}/theirs")
    copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_a_name_that_ends_in_a_carriage_return_is_copied_by_us_though_snapdir_cannot_read_it(
    plant: Plant, oracle: Oracle, tmp_path: Path
) -> None:
    """snapdir drops a `\\r` at the end of a line and then finds another hash; for us a line ends at `\\n` only."""
    text = line(path="./zero\r")
    source = plant(text, digest(text))

    with pytest.raises(Refused, match="hash mismatch"):
        oracle.verify(source.id, source.url)
    copy_snapshot(open_store(source.url), open_store(str(tmp_path / "ours")), source.id)

    assert open_store(str(tmp_path / "ours")).get_manifest(source.id) == text


def test_a_file_with_a_newline_in_its_name_is_filed_by_snapdir_and_read_by_nobody(
    oracle: Oracle, tmp_path: Path
) -> None:
    """Not only a text made by hand: this is what `snapdir push` itself leaves behind."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "two\nlines").write_bytes(b"x")
    url = f"file://{tmp_path}/store"
    try:
        snapshot = oracle.push(tmp_path / "tree", url)
    except Refused:
        assert manifests_in(tmp_path / "store") == []
        return

    with pytest.raises(Refused, match="parse"):
        oracle.verify(snapshot, url)
    with pytest.raises(ManifestSyntaxError, match=r"line \d of the manifest is not"):
        copy_snapshot(open_store(url), open_store(str(tmp_path / "ours")), snapshot)
    assert not (tmp_path / "ours").exists()
