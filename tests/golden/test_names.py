"""The real snapdir does not see the names of a store, and does not touch them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.stores.names.name import NameRecord, parse_name
from tests.golden.conftest import Place, Snapshot
from tests.golden.files import contents
from tests.golden.oracle import Oracle
from tests.integration.forge import Forge
from tests.opening import open_store

NIGHTLY = parse_name("nightly")


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_snapdir_works_on_a_store_with_names_as_on_one_without(
    forge: Forge,
    kind: str,
    place: Callable[[str, str], Place],
    environment: dict[str, str],
    everything_snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    oracle = Oracle(tmp_path / "cache", environment)
    named, plain, copy = place(kind, "named"), place(kind, "plain"), place("file", "copy")
    snapshot = oracle.push(everything_snapshot.tree, named.theirs)
    oracle.push(everything_snapshot.tree, plain.theirs)
    before = oracle.size(named.theirs), oracle.diff(named.theirs, plain.theirs)

    tagged = forge.run(["tag", named.ours, snapshot[:8], NIGHTLY], env=environment)
    assert tagged.code == 0, tagged.err

    fresh = Oracle(tmp_path / "fresh cache", environment)
    assert fresh.verify(snapshot, named.theirs)
    assert (fresh.size(named.theirs), fresh.diff(named.theirs, plain.theirs)) == before
    fresh.pull(snapshot, named.theirs, tmp_path / "pulled")
    oracle.pull(snapshot, everything_snapshot.url, tmp_path / "expected")
    assert contents(tmp_path / "pulled") == contents(tmp_path / "expected")
    fresh.sync(snapshot, named.theirs, copy.theirs)
    assert not (tmp_path / "copy" / ".names").exists()
    assert open_store(copy.ours).list_manifest_ids() == [snapshot]

    # A push of another tree into the named store leaves the name alone.
    (tmp_path / "pulled" / "one more").write_text("one more")
    other = fresh.push(tmp_path / "pulled", named.theirs)
    store = open_store(named.ours)
    assert store.names.read(NIGHTLY) == NameRecord(snapshot)  # type: ignore[arg-type]
    assert set(store.list_manifest_ids()) == {snapshot, other}
