"""The story of a snapshot over directories and S3, told by both programs in turns: push, copy, verify, heal, pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.address import Address, object_key, parse_address
from snapferry.stores.manifest.parse import parse
from tests.golden.conftest import Place, Snapshot
from tests.golden.files import contents
from tests.golden.oracle import Oracle, Refused
from tests.integration.forge import Forge
from tests.integration.processes import Finished

WAYS = pytest.mark.parametrize(
    ("here", "there"),
    [
        pytest.param("file", "s3", id="directory-and-s3"),
        pytest.param("s3", "file", id="s3-and-directory", marks=pytest.mark.slow),
    ],
)

BROKEN = 5


@pytest.fixture
def ours(forge: Forge, environment: dict[str, str]) -> Callable[..., Finished]:
    """Run a snapferry command; it must end with *code*."""

    def run(*arguments: str | Path, code: int = 0) -> Finished:
        ended = forge.run([*map(str, arguments)], env=environment)
        assert ended.code == code, ended.out + ended.err
        return ended

    return run


@pytest.fixture
def theirs(environment: dict[str, str], tmp_path: Path) -> Oracle:
    """snapdir, with nothing in its cache."""
    return Oracle(tmp_path / "cache", environment)


@WAYS
def test_what_snapdir_pushed_and_snapferry_copied_both_pull_alike(
    here: str,
    there: str,
    place: Callable[[str, str], Place],
    ours: Callable[..., Finished],
    theirs: Oracle,
    everything_snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    source, destination = place(here, "source"), place(there, "destination")
    snapshot = theirs.push(everything_snapshot.tree, source.theirs)

    ours("sync", "--from", source.ours, "--to", destination.ours, "--id", snapshot)

    theirs.pull(snapshot, destination.theirs, tmp_path / "theirs")
    ours("pull", "--from", destination.ours, "--id", snapshot, tmp_path / "ours")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


@WAYS
def test_what_snapferry_pushed_broke_and_healed_snapdir_verifies_and_pulls(
    here: str,
    there: str,
    place: Callable[[str, str], Place],
    ours: Callable[..., Finished],
    theirs: Oracle,
    everything_snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    snapshot = everything_snapshot.id
    source, copy = place(here, "source"), place(there, "copy")

    # What snapferry pushes is the snapshot that snapdir makes of the same tree.
    pushed = ours("push", everything_snapshot.tree, "--to", source.ours)
    assert pushed.out.split()[-1] == snapshot
    assert theirs.verify(snapshot, source.theirs)
    theirs.pull(snapshot, source.theirs, tmp_path / "expected")

    ours("sync", "--from", source.ours, "--to", copy.ours, "--all")
    paths = break_objects(copy, everything_snapshot)
    with pytest.raises(Refused):
        theirs.verify(snapshot, copy.theirs)

    # Exactly the broken objects are found, with every path that needs one.
    found = ours("verify", copy.ours, "--all", "--json", code=1).document
    assert {error["address"] for error in found["errors"]} == set(paths)
    for error in found["errors"]:
        assert [place["path"] for place in error["places"]] == paths[error["address"]]

    healed = ours("heal", copy.ours, "--from", source.ours, "--all", "--json").document
    assert healed["objects"]["copied"] == BROKEN
    ours("verify", copy.ours, "--all")
    assert theirs.verify(snapshot, copy.theirs)

    ours("pull", "--from", copy.ours, "--id", snapshot, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == contents(tmp_path / "expected")


def break_objects(store: Place, snapshot: Snapshot) -> dict[Address, list[str]]:
    """Break five objects of *store*, each in another way; return their addresses, with the paths that need them."""
    paths: dict[Address, list[str]] = {}
    sizes: dict[Address, int] = {}
    for entry in parse(snapshot.text):
        if entry.type == "F":
            address = parse_address(entry.checksum)
            paths.setdefault(address, []).append(entry.path)
            sizes[address] = (snapshot.store / object_key(address)).stat().st_size
    several = next(address for address in paths if len(paths[address]) > 2 and sizes[address])
    large = max(sizes, key=sizes.__getitem__)
    flipped, emptied, gone = [one for one in sorted(paths) if sizes[one] and one not in (several, large)][:3]
    right = {one: (snapshot.store / object_key(one)).read_bytes() for one in paths}
    store.write(object_key(flipped), bytes([right[flipped][0] ^ 1]) + right[flipped][1:])
    store.write(object_key(emptied), b"")
    store.write(object_key(large), right[large][:-1])
    store.write(object_key(several), right[flipped])
    store.remove(object_key(gone))
    broken = (flipped, emptied, large, several, gone)
    assert len(broken) == BROKEN
    return {address: paths[address] for address in broken}
