"""`snapferry run`: a mirror or scrub once, for cron and systemd timers, on one machine and on a fleet."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs.batching import BATCHES_OF_A_PROCESS
from snapferry.orchestrator.schedules.state_file import StateFile
from snapferry.stores.address import Address, object_key
from snapferry.stores.hashing import digest
from tests.sample import make_store, random_files

from .forge import Forge
from .processes import PATIENCE_S, Fleet, marked, program, started, until

FILES = random_files(40)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a mirror from a to b, and a scrub of b in two runs."""
    make_store(tmp_path / "a", FILES)
    path = tmp_path / "snapferry.toml"
    path.write_text(
        f'[stores]\na = "file://{tmp_path}/a"\nb = "file://{tmp_path}/b"\n'
        '[[mirror]]\nname = "nightly"\nfrom = "a"\nto = "b"\nevery = "1d"\n'
        '[[scrub]]\nname = "nightly"\nstore = "b"\nevery = "30 3 * * *"\nshare = "1/2"\n'
    )
    return path


def arguments(config: Path, name: str, *options: str) -> list[str]:
    return ["run", name, "--config", str(config), "--state-dir", str(config.parent / "state"), *options]


def test_one_machine_mirrors_a_store_and_scrubs_it_share_by_share(
    forge: Forge, config: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "receipt"
    mirrored = forge.run(arguments(config, "mirror:nightly", "--json", "--receipt", str(receipt)))
    path = tmp_path / "b" / object_key(Address(digest(FILES["./dir 0/file-00000"])))
    path.unlink()
    path.write_bytes(b"other bytes")
    halves = [forge.run(arguments(config, "scrub:nightly", "--json")) for _ in range(2)]
    state = json.loads((tmp_path / "state/scrub-nightly.json").read_text())
    places = ["--config", str(config), "--state-dir", str(tmp_path / "state"), "--json"]
    (mirror,), (scrub,) = (forge.run([kind, *places]).document for kind in ("mirrors", "scrubs"))

    assert (mirror["last_job"], mirror["late"]) == (mirrored.document["job"], False)
    assert mirror["last_success"] == mirror["last_status"]["ended"] == mirrored.document["ended"]
    assert (scrub["last_job"], scrub["shares"]["verified"], scrub["findings"]) == (
        halves[1].document["job"],
        2,
        1,
    )
    assert (mirrored.code, mirrored.document["state"]) == (0, "done"), mirrored.err
    assert json.loads(receipt.read_text())["job"] == mirrored.document["job"]
    assert sum(half.document["objects"]["total"] for half in halves) == 41
    # Only the run that reads the damaged share fails.
    assert sorted(half.code for half in halves) == [0, 1]
    assert (state["state"]["cycle"], state["state"]["known"], len(state["verified"])) == ("2", "1", 2)


def test_a_run_between_directories_is_cut_as_a_sync(forge: Forge, tmp_path: Path) -> None:
    config = tmp_path / "snapferry.toml"
    make_store(tmp_path / "a", random_files(4_000, size=8))
    config.write_text(
        f'[[mirror]]\nname = "nightly"\nfrom = "file://{tmp_path}/a"\nto = "file://{tmp_path}/b"\n'
        'every = "1d"\njobs = 1\n'
    )
    sync = ["sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "c"), "--all", "-j", "1", "--json"]
    found = [forge.run(line).document for line in (sync, arguments(config, "nightly", "--json"))]

    # Those of one process, with no small one at the end.
    batches = BATCHES_OF_A_PROCESS
    assert [(each["state"], each["batches"]["total"]) for each in found] == [("done", batches)] * 2


def test_a_run_is_skipped_while_the_last_one_has_not_ended(
    forge: Forge, config: Path, tmp_path: Path
) -> None:
    with StateFile(str(tmp_path / "state"), "mirror", "nightly").locked():
        skipped = forge.run(arguments(config, "mirror:nightly", "--json"))
    assert (skipped.code, skipped.document["mirror"]) == (0, "nightly")
    assert skipped.err.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_sigterm_ends_a_run_and_its_position_is_kept(config: Path, tmp_path: Path) -> None:
    """A scrub that would take days is told to end."""
    with config.open("a") as file:
        file.write('[[scrub]]\nname = "slow"\nstore = "a"\nevery = "1d"\nshare = "1/2"\nlimit-rate = "1"\n')
    log = tmp_path / "log"
    with started(*program(), *arguments(config, "slow", "--verbose", "--no-progress"), log=log) as running:
        until(lambda: "job begins" in running.logged(), "the job has begun")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE_S) == 130, running.logged()
        until(lambda: not marked(running.mark), "nothing of it is left")
    state = json.loads((tmp_path / "state/scrub-slow.json").read_text())

    assert state["job"]["state"] == "cancelled"
    assert (state["state"]["share"], state["verified"]) == ("0", {})


def test_on_a_fleet_the_run_is_recorded_and_a_second_one_is_skipped(
    forge: Forge, config: Path, redis_url: str, tmp_path: Path
) -> None:
    env = {"SNAPFERRY_BROKER_URL": redis_url}
    queued = forge.run(arguments(config, "mirror:nightly", "--detach", "--json"), env)
    skipped = forge.run(arguments(config, "mirror:nightly", "--json"), env)
    fleet = Fleet(redis_url, tmp_path)
    with fleet.orchestrator(), fleet.worker():
        followed = forge.run(["watch", queued.document["job"], "--json"], env)
        scrubbed = forge.run(arguments(config, "scrub:nightly", "--json"), env)
    mirrors = forge.run(["mirrors", "--config", str(config), "--json"], env)
    scrubs = forge.run(["scrubs", "--config", str(config), "--json"], env)

    assert (queued.code, skipped.code, followed.code, scrubbed.code) == (0, 0, 0, 0), skipped.err
    assert queued.document["job"] in skipped.document["skipped"]
    (mirror,), (scrub,) = mirrors.document, scrubs.document
    assert (mirror["last_job"], mirror["skipped"]) == (queued.document["job"], 1)
    assert (scrub["last_job"], scrub["shares"]["verified"]) == (scrubbed.document["job"], 1)
    assert not (tmp_path / "state").exists()


def test_wrong_names_and_places_are_bad_usage(forge: Forge, config: Path, tmp_path: Path) -> None:
    unknown, both = (forge.run(arguments(config, name)) for name in ("weekly", "nightly"))
    (tmp_path / "state").touch()
    nowhere = forge.run(arguments(config, "mirror:nightly"))
    config.write_text("")
    empty = forge.run(arguments(config, "nightly"))

    for ended, said in (
        (unknown, "mirror nightly, scrub nightly"),
        (both, "scrub:nightly"),
        (nowhere, "--state-dir"),
        (empty, "no mirror or scrub is named 'nightly'. The file has no mirror and no scrub."),
    ):
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
        assert said in ended.err
