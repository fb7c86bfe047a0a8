"""The command's edges: closed and full standard streams, odd broker passwords, the limits of -j."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from snapferry.stores.address import manifest_key, parse_snapshot_id
from tests.sample import make_store, random_files, tree

from .forge import Forge
from .processes import Finished, finished, program, snapferry


def shell(command: str) -> Finished:
    """Run *command* by bash, with ``snapferry`` in it."""
    return finished(["bash", "-c", command.replace("snapferry", shlex.join(program()))], timeout_s=60)


def sync(tmp_path: Path, snapshot: str, *options: str) -> list[str]:
    return ["sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, *options]


@pytest.mark.parametrize(
    "streams",
    [
        pytest.param("<&-", marks=pytest.mark.slow),
        ">&-",
        pytest.param("2>&-", marks=pytest.mark.slow),
        "<&- >&- 2>&-",
    ],
)
def test_closed_standard_streams_are_no_trouble(tmp_path: Path, streams: str) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))

    ended = shell(f"exec snapferry {shlex.join(sync(tmp_path, snapshot))} {streams}")

    assert (ended.code, ended.err) == (0, "")
    assert ("is published" in ended.out) == (">&- " not in f"{streams} ".replace("2>&-", ""))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    "options",
    [(), ("--json",), pytest.param(("--dryrun",), marks=pytest.mark.slow)],
    ids=["words", "json", "dry run"],
)
def test_an_output_that_takes_nothing_is_one_line_and_a_failure(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(20))

    ended = shell(f"exec snapferry {shlex.join(sync(tmp_path, snapshot, *options))} > /dev/full")

    assert (ended.code, ended.err) == (
        1,
        "snapferry: cannot write the output: No space left on device\n",
    )


@pytest.mark.parametrize(
    "command", ["ls {store}", "version", "--version", "--help", "sync --help", "completion bash"]
)
def test_other_commands_complain_of_a_full_output_as_well(tmp_path: Path, command: str) -> None:
    make_store(tmp_path / "a", random_files(1))

    ended = shell(f"exec snapferry {command.format(store=tmp_path / 'a')} > /dev/full")

    assert (ended.code, ended.err) == (
        1,
        "snapferry: cannot write the output: No space left on device\n",
    )


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_a_script_for_this_program(forge: Forge, name: str) -> None:
    ended = forge.run(["completion", name])

    assert (ended.code, ended.err) == (0, "")
    assert "_SNAPFERRY_COMPLETE" in ended.out


@pytest.mark.parametrize("streams", ["2> /dev/full", "> /dev/full 2> /dev/full"])
def test_messages_that_cannot_be_written_change_no_exit_code(tmp_path: Path, streams: str) -> None:
    make_store(tmp_path / "a", random_files(1))

    assert [
        shell(f"exec snapferry {command} {streams}").code
        for command in ("ls", f"ls {tmp_path / 'missing'}", f"ls {tmp_path / 'a'} > /dev/full")
    ] == [2, 1, 1]


def test_an_output_that_does_not_have_every_character_ends_no_command(tmp_path: Path, redis_url: str) -> None:
    env = {"SNAPFERRY_BROKER_URL": redis_url, "PYTHONIOENCODING": "latin-1"}
    submit = ["submit", *sync(tmp_path / "\u1234", "5" * 64, "-q")[1:]]
    job = snapferry(*submit, env=env).out.strip()

    listed = snapferry("jobs", env=env)

    assert listed.code == 0, listed.err
    assert job[:8] in listed.out
    assert "\\u2192" in listed.out


def test_a_reader_that_has_seen_enough_of_a_list_is_no_trouble(tmp_path: Path) -> None:
    identifiers = [f"{number:064x}" for number in range(3000)]
    for identifier in identifiers:
        path = tmp_path / "a" / manifest_key(parse_snapshot_id(identifier))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    ended = shell(f"snapferry ls {tmp_path / 'a'} | head -1")

    assert (ended.code, ended.out, ended.err) == (0, identifiers[0] + "\n", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cr/etpw@127.0.0.1:1/0",
        pytest.param("redis://:s3cr?etpw@127.0.0.1:1/0", marks=pytest.mark.slow),
        pytest.param("redis://:s3cr#etpw@127.0.0.1:1/0", marks=pytest.mark.slow),
        pytest.param("redis://:s3cr[etpw@127.0.0.1:1/0", marks=pytest.mark.slow),
        "redis://user:s3cr/et?p#w@127.0.0.1:1/0",
        # The beginning of these would do for a port, or for a host.
        "redis://:20244/etpw@127.0.0.1:1/0",
        pytest.param("redis://:20244?etpw@127.0.0.1:1/0", marks=pytest.mark.slow),
        pytest.param("redis://:20244#etpw@127.0.0.1:1/0", marks=pytest.mark.slow),
        "redis://:pw@s3cr/etpw@127.0.0.1:1/0",
        pytest.param("rediss://:s3cr/etpw@127.0.0.1:1/0", marks=pytest.mark.slow),
    ],
)
def test_a_password_with_special_characters_is_refused_and_repeated_by_nobody(forge: Forge, url: str) -> None:
    commands = [
        ["sync", "--from", "/a", "--to", "/b", "--id", "5" * 64, "--broker", url],
        ["worker", "--broker", url],
        ["orchestrator", "--broker", url],
        ["jobs", "--broker", url],
    ]
    for command in commands:
        ended = forge.run(command)
        for part in ("s3cr", "20244", "etpw", "et?p"):
            assert part not in ended.out + ended.err, ended
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
        assert "percent-encode" in ended.err


def test_ids_come_from_standard_input_as_well(forge: Forge, tmp_path: Path) -> None:
    snapshots = [make_store(tmp_path / "a", random_files(3, seed=seed)) for seed in range(2)]
    stores = shlex.join(["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")])

    listed = shell(f"snapferry ls {tmp_path / 'a'} | snapferry sync {stores} --ids-from -")
    closed = shell(f"snapferry sync {stores} --ids-from - <&-")

    assert (listed.code, listed.err) == (0, "")
    assert listed.out.startswith("2 of 2 snapshots are published")
    assert forge.run(["ls", str(tmp_path / "b")]).out.split() == sorted(snapshots)
    assert (closed.code, closed.err) == (2, "snapferry: --ids-from -: no snapshot id in the file\n")


def test_more_objects_in_flight_than_there_may_be_are_refused(forge: Forge, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(50))

    refused = forge.run(sync(tmp_path, snapshot, "-j", "1025"))
    most = forge.run(sync(tmp_path, snapshot, "-j", "1024"))

    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "from 0 to 1,024, not '1025'" in refused.err
    assert most.code == 0, most.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
