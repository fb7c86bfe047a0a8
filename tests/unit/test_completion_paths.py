"""What TAB offers for paths in a snapshot and for queues: from which level, quoted how, and what it never offers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.cli.completion import shells
from snapferry.orchestrator.cli.completion.shells import open_quote
from snapferry.orchestrator.cli.completion.values import paths
from snapferry.orchestrator.cli.group import cli
from snapferry.stores.errors import ManifestMissing, ManifestTooLarge, NameMissing, StoreError, StoreNotFound
from snapferry.stores.runtime.bounds import bounds
from snapferry.workers.ledger import Ledger
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, copy_queue, parking_queue
from snapferry.workers.reachability.worker_roster import WorkerRoster
from tests.completing import SHELLS, offered, values
from tests.sample import make_store
from tests.unit.ledger.support import request

FILES = [
    "a.txt", "dir/a", "dir/b/c", "dir/b/d", "dir-x/y", "dir.txt", "dir/sub dir/x", "-rf", "-v/x", "~root/x", "é/ü",
    "x:y/z=1@2", "it's", '"', "$(id)", "`id`", "a!b", "#c", "back\\slash", "[ab]", "x;y", "x&y",
]  # fmt: skip
HOSTILE = ["bell\x07", "esc\x1b[2J", "tab\tx", "\u202ertl", "del\x7f", "\u00a0", "\u2028"]

CONFIG = """
[[mirror]]
name = "nightly"
from = "/a"
to = "/b"
every = "1d"
queue = "tapes"
[[scrub]]
name = "weekly"
store = "/a"
every = "1d"
share = "1/2"
queue = "tapes"
[[mirror]]
name = "hostile"
queue = "$(id)"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a store `./s`."""
    for name in ("SNAPFERRY_BROKER_URL", "SNAPFERRY_CONFIG", "SNAPDIR_STORE", "_SNAPFERRY_WORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "s", {f"./{name}": b"" for name in [*FILES, *HOSTILE]})
    return tmp_path


def raw(text: str) -> list[str]:
    """Return what zsh is offered for a path: nothing is quoted."""
    return values(f"snapferry cat ./s latest {text}", shell="zsh")


@pytest.mark.parametrize("command", ["cat", "show", "show --flat", "cat --stream"])
def test_a_path_is_completed_level_by_level(command: str) -> None:
    assert values(f"snapferry {command} ./s latest di") == ["dir-x/", "dir.txt", "dir/"]
    assert values(f"snapferry {command} ./s latest dir/") == ["dir/a", "dir/b/", r"dir/sub\ dir/"]
    assert values(f"snapferry {command} ./s latest dir/b/") == ["dir/b/c", "dir/b/d"]
    assert values(f"snapferry {command} ./s latest ./dir/b") == ["./dir/b/"]
    assert values(f"snapferry {command} ./s latest dir/none") == []
    assert values(f"snapferry {command} ./s latest none/") == []


def test_all_names_of_a_level_are_offered_but_those_that_control_a_terminal() -> None:
    # Those that a terminal could misread are left out.
    level = {re.sub("/.*", "/", name) for name in FILES}
    # A name with a dash would be an option.
    assert set(raw("")) == {f"./{name}" if name.startswith("-") else name for name in level}
    assert set(raw("./")) == {f"./{name}" for name in level}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("begins", ["", "'", '"'])
def test_bash_reads_back_each_name_as_it_is(name: str, begins: str) -> None:
    found = values(f"snapferry show ./s latest {begins}./{name[0] if name[0].isalnum() else ''}", None)

    # With the quote that the user began, and that bash ends.
    words = "\n".join(f"printf '%s\\0' {begins}{value}{begins}" for value in found)
    ended = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=240, check=True)
    whole = f"./{re.sub('/.*', '/', name)}"
    # A quote cannot stand in itself, and between double quotes bash expands an exclamation mark.
    impossible = (begins == "'" and "'" in name) or (begins == '"' and "!" in name)
    assert (whole in ended.stdout.split("\0")) != impossible


@pytest.mark.parametrize(
    ("line", "word", "wanted"),
    [
        # bash breaks words at a colon and at =, if they are not quoted.
        ("x:", "", "y/"),
        ("x:y/z=", "", "1@2"),
        (r"x\:y/z\=", r"x\:y/z\=", "x:y/z=1@2"),
        (r"dir/su", "dir/su", r"dir/sub\ dir/"),
        (r"dir/sub\ d", r"dir/sub\ d", r"dir/sub\ dir/"),
        ("'dir/sub d", "dir/sub d", "dir/sub dir/"),
        ("'x:", "x:", "x:y/"),
    ],
)
def test_bash_is_offered_the_part_that_it_replaces(line: str, word: str, wanted: str) -> None:
    assert values(f"snapferry show ./s latest {line}", word) == [wanted]


@pytest.mark.parametrize(
    ("line", "quote"),
    [
        ("a 'b", "'"), ("a 'b'", ""), ('a "b\'', '"'), ("a \\'b", ""), ("a '\\", "'"), ('a "\\"', '"'), ("", ""),
        ("'a' \"b\" 'c", "'"), ("a\\", ""),
    ],
)  # fmt: skip
def test_an_open_quote_is_found(line: str, quote: str) -> None:
    assert open_quote(line) == quote


def test_of_too_many_paths_none_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MOST_PATHS", 2)

    assert values("snapferry show ./s latest di") == []
    assert values("snapferry show ./s latest dir/b/") == ["dir/b/c", "dir/b/d"]


def test_a_long_manifest_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bounds()
    monkeypatch.setattr(paths, "LONGEST_MANIFEST", 100)

    with pytest.raises(ManifestTooLarge):
        values("snapferry show ./s latest di")
    assert bounds() == before
    monkeypatch.setenv("_SNAPFERRY_LINE", "snapferry show ./s latest di")
    assert SHELLS["bash"](cli, {}, "snapferry", shells.VARIABLE).complete() == ""


def test_no_snapshot_no_path(folder: Path) -> None:
    wanted: dict[str, type[StoreError]] = {
        "cat ./s none@ d": NameMissing,
        "show ./none latest d": StoreNotFound,
        "show ./s 00000 d": ManifestMissing,
    }
    for line, error in wanted.items():
        with pytest.raises(error):
            offered(f"snapferry {line}")
    assert offered("snapferry pull ./s --id latest di")[0].kind == "dir"
    assert list(folder.glob("none")) == []


@pytest.fixture
def fleet(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("SNAPFERRY_BROKER_URL", redis_url)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


QUEUE_LINES = ["submit ./s ./o --queue ", "worker --queue ", "push . ./s --queue ", "verify ./s --queue="]


@pytest.mark.parametrize("line", QUEUE_LINES)
def test_queues_of_the_file_and_of_the_fleet_are_offered(line: str, folder: Path, fleet: redis.Redis) -> None:
    (folder / "snapferry.toml").write_text(CONFIG)
    served = [COPY_QUEUE, PLAN_QUEUE, copy_queue("tapes"), copy_queue("far"), parking_queue("far", "job-1")]
    WorkerRoster(fleet).announce("w1", served)
    WorkerRoster(fleet).announce("w2", [copy_queue("far"), copy_queue("$(id)"), copy_queue("a\x1b[2J")])
    WorkerRoster(fleet).announce("gone", [copy_queue("left")])
    WorkerRoster(fleet).leave("gone")
    ledger = Ledger(fleet, expires_s=3600)
    ledger.create(request("waits").model_copy(update={"queue": "waiting"}))

    start = "--queue=" if line.endswith("=") else ""
    found = {each.value.removeprefix(start): each.help for each in offered(f"snapferry {line}")}

    assert found == {
        "default": "jobs without a queue; workers: 1",
        "far": "workers: 2",
        "tapes": "mirror nightly, scrub weekly; workers: 1",
        "waiting": "no worker",
    }
    assert values(f"snapferry {line}f") == [f"{start}far"]


def test_without_redis_the_queues_of_the_file_are_offered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "snapferry.toml").write_text(CONFIG)

    assert values("snapferry submit --queue ") == ["default", "tapes"]
    monkeypatch.setenv("SNAPFERRY_BROKER_URL", "redis://127.0.0.1:1/0")
    assert values("snapferry submit --queue ") == ["default", "tapes"]
