"""What TAB offers: by which parameter, of which store or fleet, in which form; and what it never offers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import pytest
import redis

from snapferry.orchestrator.cli.completion import bounded, shells
from snapferry.orchestrator.cli.completion.bounded import answer_within
from snapferry.orchestrator.cli.completion.parameters import KINDS, OF_METAVAR, kind_of
from snapferry.orchestrator.cli.completion.values import jobs, snapshots
from snapferry.orchestrator.cli.group import cli
from snapferry.orchestrator.jobs import JobRefused, Jobs
from snapferry.stores.access import TRUSTED
from snapferry.stores.errors import NotAllowed
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.settings.environment import Settings
from tests.completing import SHELLS, listed_store, offered, values
from tests.sample import fill
from tests.servers import S3Server
from tests.unit.ledger.support import batch, deliver, request
from tests.unit.test_commands_alike import LINES, command

ONE, OTHER, THIRD = "12" + 62 * "a", "12" + 62 * "b", "3" + 63 * "c"

CONFIG: Final = """
[stores]
one = "{root}/one"
"other" = "{root}/other"
[stores.cloud]
url = "s3://bucket/x?region=eu"
[[mirror]]
name = "nightly"
from = "one"
to = "cloud"
every = "1d"
[[mirror]]
name = "both"
from = "one"
to = "other"
every = "1d"
[[scrub]]
name = "both"
store = "one"
every = "1d"
share = "1/2"
"""


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a snapferry.toml."""
    for name in ("SNAPFERRY_BROKER_URL", "SNAPFERRY_CONFIG", "SNAPDIR_STORE", "_SNAPFERRY_WORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "snapferry.toml").write_text(CONFIG.format(root=tmp_path))
    return tmp_path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return listed_store(tmp_path / "one", [ONE, OTHER, THIRD], {"week-1": ONE, "gone": 64 * "d"})


def test_commands_and_options_are_offered_with_their_summaries() -> None:
    assert [found.value for found in offered("snapferry s")][:3] == ["sync", "submit", "size"]
    assert offered("snapferry sync --max-d")[0].help.startswith("Abort without deleting")
    assert values("snapferry jobs ") == ["export", "import", "recover"]
    assert values("snapferry priority 8b1f ") == ["high", "normal", "low"]
    assert values("snapferry sync --order=") == ["--order=newest", "--order=smallest", "--order=given"]
    # bash replaces what stands behind the mark.
    assert values("snapferry sync --order=", "") == ["newest", "smallest", "given"]


def test_an_alias_is_not_offered() -> None:
    assert values("snapferry ls --log") == ["--log-level"]


@pytest.mark.parametrize("name", LINES)
def test_every_parameter_offers_values_or_takes_free_text(name: str) -> None:
    free = {
        "URL",
        "N",
        "SIZE",
        "AMOUNT",
        "RATE",
        "DURATION",
        "TEXT",
        "PATTERN",
        "1/N",
        "SECONDS",
        "PORT",
        "ADDRESS",
    }
    # Names that nothing here knows, and paths of a web server.
    free |= {
        "CELERY_OPTIONS",
        "hosts NAME",
        "forget NAME",
        "url_prefix PATH",
        "node NAME",
    }
    for parameter in command(name).params:
        if isinstance(parameter.type, click.Choice) or getattr(parameter, "is_flag", False):
            continue
        kind, metavar = kind_of(parameter), (parameter.metavar or "").strip("[].")
        assert kind in KINDS or {metavar, f"{parameter.name} {metavar}"} & free, parameter.opts
    assert set(OF_METAVAR.values()) <= KINDS


def test_names_in_the_file_are_offered_for_stores() -> None:
    found = offered("snapferry ls ")
    assert [each.value for each in found] == ["cloud", "one", "other"]
    # Without parameters, which may be long.
    assert found[0].help == "s3://bucket/x"
    for line in (
        "sync one ",
        "sync --from ",
        "doctor --to ",
        "orphans --objects ",
        "limit --store ",
        "diff ",
    ):
        assert values(f"snapferry {line}o") == ["one", "other"], line
    assert values("snapferry sync --from=o", "o") == ["one", "other"]


@pytest.mark.parametrize(
    "line",
    [
        "ls /",
        "ls ~/x",
        "ls .",
        "ls ./o",
        "ls ../",
        "ls o/",
        "diff ./o",
        "sync --to=./",
        "sync file:",
        "push ",
        "push x",
        "run nightly --state-dir ",
    ],
)
def test_directories_are_left_to_the_shell(line: str) -> None:
    assert [found.kind for found in offered(f"snapferry {line}")] == ["dir"]


def test_without_names_a_store_is_a_directory(configured: Path) -> None:
    (configured / "snapferry.toml").unlink()

    assert [found.kind for found in offered("snapferry ls ")] == ["dir"]
    assert offered("snapferry ls o") == []


@pytest.mark.parametrize("line", ["ls --config ", "sync --ids-from ", "jobs export ", "watch --receipt "])
def test_files_are_left_to_the_shell(line: str) -> None:
    assert [found.kind for found in offered(f"snapferry {line}")] == ["file"]


def test_the_file_of_the_option_or_of_the_environment_is_read(
    configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (configured / "far.toml").write_text(f'[stores]\nfar = "{configured}/one"\n')

    assert values("snapferry ls --config far.toml ") == ["far"]
    monkeypatch.setenv("SNAPFERRY_CONFIG", "far.toml")
    assert values("snapferry ls ") == ["far"]


def test_mirrors_and_scrubs_are_offered_with_their_stores() -> None:
    assert [tuple(found)[1:] for found in offered("snapferry run ")] == [
        ("mirror:both", "mirror of one to other"),
        ("nightly", "mirror of one to cloud"),
        ("scrub:both", "scrub of one"),
    ]
    assert values("snapferry run mirror:n") == ["mirror:nightly"]
    # bash breaks words at a colon.
    assert values("snapferry run mirror:n", "n") == ["nightly"]


@pytest.mark.parametrize(
    "text",
    [
        '[stores]\n"x\x1b[31m" = "/a"\n',
        '[stores]\n"$(id)" = "/a"\n"`id`" = "/a"\n"a b" = "/a"\n"*" = "/a"\n"é" = "/a"\n"-" = "a"\n',
        '[stores]\nx = "/a\\n\\tplain\\tevil"\n',
        "stores = 7\nmirror = 7\n",
        "[[mirror]]\nname = 7\n[[scrub]]\n",
        "[stores.x]\nurl = 7\n",
        "not TOML",
    ],
)
def test_a_file_with_faults_offers_harmless_names_alone(text: str, configured: Path) -> None:
    text = text.replace("\x1b", "\\u001b")
    (configured / "snapferry.toml").write_text(text)
    for line in ("ls ", "run ", "ls x"):
        with suppress(Exception):
            for found in offered(f"snapferry {line}"):
                assert re.fullmatch(r"[a-z0-9:-]*", found.value)
                assert found.help.isprintable()


def test_snapshots_of_the_named_store_are_offered(one: Path) -> None:
    everything = offered("snapferry show one ")
    ids = [ONE[:12], OTHER[:12], THIRD[:12]]
    assert [found.value for found in everything] == ["gone@", "week-1@", "latest", *ids]
    by_value = {found.value: found.help for found in everything}
    assert by_value["week-1@"] == ONE[:12]
    assert by_value[ONE[:12]] == "week-1"
    assert values(f"snapferry show one {ONE[:2]}") == [ONE[:12], OTHER[:12]]
    assert values(f"snapferry show one {ONE[:30]}") == [ONE]
    assert values("snapferry show one we") == ["week-1@"]
    assert values("snapferry show one zz") == []


@pytest.mark.parametrize(
    "line",
    [
        "sync --from one --id ", "sync one other --id ", "sync --id x --from=one --to other --id ", "cat one ",
        "verify one --id ", "heal one --from other --id ", "pull one --id ", "doctor --from one --id ", "tag one ",
        "size --id 12 one --id ", "tag --if-was ",
    ],
)  # fmt: skip
def test_every_command_offers_the_snapshots_of_the_store_that_it_reads(line: str, one: Path) -> None:
    found = values(f"snapferry {line}3")
    assert found == ([] if line == "tag --if-was " else [THIRD[:12]])


def test_the_store_of_the_environment_counts(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered("snapferry sync --id 3") == []
    monkeypatch.setenv("SNAPDIR_STORE", str(one))
    assert values("snapferry sync --id 3") == [THIRD[:12]]


def test_a_home_directory_is_expanded_as_the_shell_will_do_it(
    one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(one.parent))

    assert values("snapferry show ~/one 3") == [THIRD[:12]]


def test_snapshots_of_a_store_by_its_relative_path_are_offered(
    one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert values("snapferry show ./one 3") == [THIRD[:12]]
    assert values("snapferry diff ./one@3") == [f"./one@{THIRD[:12]}"]
    monkeypatch.chdir(one)
    assert values("snapferry show . 3") == [THIRD[:12]]


def test_names_of_a_store_are_offered(one: Path) -> None:
    assert values("snapferry untag one ") == ["gone", "week-1"]
    assert values("snapferry tag one 3ccc w") == ["week-1"]
    assert values("snapferry push . one --tag ") == ["gone", "week-1"]
    assert values("snapferry push . --to one --tag g") == ["gone"]


def test_references_of_diff_are_offered(one: Path) -> None:
    assert values("snapferry diff one@3") == [f"one@{THIRD[:12]}"]
    assert values("snapferry diff one@3", "3") == [THIRD[:12]]
    assert values("snapferry diff one@3 @we") == ["@week-1@"]
    assert values("snapferry diff @3") == []


def test_of_too_many_snapshots_none_is_offered(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell would insert what those that are listed have in common."""
    monkeypatch.setattr(snapshots, "MOST_SNAPSHOTS", 2)

    assert values("snapferry show one ") == ["gone@", "week-1@", "latest"]
    assert values("snapferry show one 12") == [ONE[:12], OTHER[:12]]


def test_hostile_names_in_a_store_are_not_offered(one: Path) -> None:
    for name in ("$(id)", "a\x1b[2J", "a b", "*", "-rf", "latest", "a" * 99, "line\nbreak", "\u202ea"):
        (one / ".names" / name).write_text(f"{ONE}\n")
    (one / ".names" / "odd").write_text("\x1b[2J\n")

    assert values("snapferry untag one ") == ["gone", "odd", "week-1"]
    assert all(re.fullmatch("[0-9a-f]{12}|", found.help) for found in offered("snapferry untag one "))


def test_a_store_that_the_configuration_does_not_allow_is_not_opened(
    one: Path, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotAllowed):
        offered("snapferry show s3://bucket/x?endpoint_url=https://203.0.113.9 ")
    with (configured / "snapferry.toml").open("a") as file:
        file.write('[access]\nread = ["other"]\n')
    with pytest.raises(NotAllowed):
        offered("snapferry show one ")


@pytest.fixture
def fleet(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Jobs in each state."""
    monkeypatch.setenv("SNAPFERRY_BROKER_URL", redis_url)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        ledger = Ledger(client, expires_s=3600)
        for name in ("queued", "copying", "halted", "failed", "cancelled", "done"):
            ledger.create(request(f"{name}-1"))
        ledger.advance("copying-1", State.COPYING)
        ledger.pause("halted-1", paused=True)
        for name in ("failed", "cancelled", "done"):
            ledger.advance(f"{name}-1", State(name))
        yield ledger


OPEN: Final = {"queued-1", "copying-1", "halted-1"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("status", OPEN | {"failed-1", "cancelled-1", "done-1"}),
        ("receipt", OPEN | {"failed-1", "cancelled-1", "done-1"}),
        ("cancel", OPEN),
        ("watch", OPEN),
        ("limit", OPEN),
        ("pause", OPEN - {"halted-1"}),
        ("continue", {"halted-1"}),
        ("resume", {"failed-1", "cancelled-1"}),
        ("retry", set()),
        ("dismiss", {"failed-1"}),
        ("dismiss --undo", set()),
        ("status c", {"copying-1", "cancelled-1"}),
        ("status x", set()),
    ],
)
def test_a_command_is_offered_the_jobs_that_it_can_do_something_with(
    line: str, wanted: set[str], fleet: Ledger
) -> None:
    text = line if line.endswith((" c", " x")) else f"{line} "
    assert set(values(f"snapferry {text}")) == wanted


def test_retry_and_resume_are_offered_the_jobs_that_they_accept(redis_url: str, fleet: Ledger) -> None:
    tried = {"objects_total": 5, "batches_total": 2, "batches_handed": 2}
    kinds: dict[str, dict[str, Any]] = {
        "tried": tried,
        "untried": tried | {"batches_total": 3},
        "bounded": tried | {"batches_total": 3, "bounded": "max_bytes"},
    }
    for kind, fields in kinds.items():
        for end in (State.FAILED, State.CANCELLED, State.DONE):
            job_id = f"{kind}-{end}"
            fleet.create(request(job_id))
            fleet.advance(job_id, State.COPYING, **fields)
            for message in (batch(0, 2, 3, job_id=job_id), batch(1, 1, 2, 3, first=2, job_id=job_id)):
                deliver(fleet, message, failed=[0] if end is not State.DONE else [])
            fleet.advance(job_id, end)
    api = Jobs(Settings(broker_url=redis_url))
    job_ids = fleet.job_ids()

    def accepts(act: Callable[[str], str | None], job_id: str) -> bool:
        try:
            return act(job_id) is not None
        except JobRefused:
            return False

    wanted = {
        name: set(filter(partial(accepts, act), job_ids))
        for name, act in (("retry", api.retry), ("resume", api.resume))
    }

    assert wanted["retry"] == {"tried-failed", "tried-cancelled", "bounded-failed", "bounded-cancelled"}
    # The calls above have made jobs.
    assert set(values("snapferry retry ")) & set(job_ids) == wanted["retry"]
    assert set(values("snapferry resume ")) & set(job_ids) == wanted["resume"]


def test_a_job_is_offered_with_its_state_and_stores(fleet: Ledger) -> None:
    found = {each.value: each.help for each in offered("snapferry status ")}

    assert found["copying-1"] == "copying /a to /b"
    assert found["halted-1"] == "paused /a to /b"


def test_the_newest_jobs_are_offered(fleet: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MOST_JOBS", 2)

    assert values("snapferry status ") == ["done-1", "cancelled-1"]

    # A shell would insert what the newest have in common.
    for number in range(3):
        fleet.create(request(f"cancelled-1{number}"))
    assert values("snapferry status c") == []
    assert values("snapferry status cancelled-1") == ["cancelled-12", "cancelled-11"]


def test_hostile_records_offer_nothing_that_controls_a_terminal(fleet: Ledger) -> None:
    client = fleet.client
    client.zadd("snapferry:jobs", {"$(id)": 1, "a\x1b[2J": 2, "a b": 3, "*": 4, "-x": 5, "x\n": 6, "x": 7})
    client.hset("snapferry:job:x", mapping={"state": "evil\x1b[2J"})
    client.hset(
        "snapferry:job:copying-1", mapping={"source": "s3://a\x1b[2J\nplain\tevil\t", "action": "\x07"}
    )
    client.hset("snapferry:job:queued-1", mapping={"source": "s3://u:p@h/\u202e?secret=x", "destination": ""})

    found = {each.value: each.help for each in offered("snapferry status ")}
    assert found.keys() <= OPEN | {"failed-1", "cancelled-1", "done-1"}
    assert all(text.isprintable() for text in found.values())
    assert "secret" not in found["queued-1"]


def test_asking_writes_nothing_to_redis(fleet: Ledger) -> None:
    def everything() -> dict[str, object]:
        return {key: fleet.client.dump(key) for key in ["snapferry:jobs"]} | {
            str(key): fleet.client.ttl(key) > 0 for key in fleet.client.scan_iter()
        }

    before = everything()
    for name in ("status", "cancel", "retry"):
        offered(f"snapferry {name} ")
    assert everything() == before


def test_without_a_broker_no_job_is_offered() -> None:
    assert offered("snapferry status ") == []


@pytest.mark.parametrize(
    "line",
    [
        "", "snapferry", "snapferry nonsense ", "snapferry sync --nonsense ", "snapferry sync 'a", 'snapferry ls "',
        "snapferry ls \\", "snapferry --version ", "snapferry ls one two three four ", "snapferry sync -- --",
        "snapferry sync --jobs many --from ", "snapferry ls \x1b[2J", "snapferry jobs export f g ", "\x1f",
        "snapferry sync --max-bytes x --id ", "snapferry worker -- -", "snapferry ls --", "snapferry status \udcff",
    ],
)  # fmt: skip
@pytest.mark.parametrize("shell", SHELLS)
def test_no_command_line_is_an_error(line: str, shell: str) -> None:
    for found in offered(line, shell=shell):
        assert found.value.isprintable()


def test_a_script_per_shell_runs_the_program_silently() -> None:
    for shell in SHELLS:
        text = shells.script(shell)
        assert f"{shell}_complete" in text
        assert "</dev/null 2>/dev/null" in text
        assert "eval" not in text.replace("zsh_eval_context", "")
        assert f"{shells.TIMEOUT_S} seconds" in text


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 1.5), ("x", 1.5), ("nan", 1.5), ("-1", 1.5), ("0.2", 0.2), ("1e9", 300)]
)
def test_the_time_is_bounded(text: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFERRY_COMPLETION_TIMEOUT", text)

    assert shells._timeout_s() == seconds


def test_an_answer_comes_back_whole() -> None:
    text = "é\n" * 100_000

    assert answer_within(240, lambda: text) == text


@pytest.mark.parametrize(
    "ends",
    [
        lambda: 1 / 0,
        sys.exit,
        lambda: os._exit(3),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: "x" * (bounded.MOST_BYTES + 1),
        lambda: str(os.write(1, b"to nobody") / os.write(2, b"to nobody") / 0),
    ],
)
def test_an_answer_that_fails_is_empty(ends: Callable[[], str], capfd: pytest.CaptureFixture[str]) -> None:
    assert answer_within(240, ends) == ""
    assert capfd.readouterr() == ("", "")


def test_what_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    def hangs() -> str:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        with subprocess.Popen(["sleep", "10000"]) as process:
            (tmp_path / "new").write_text(f"{os.getpid()} {process.pid}")
            (tmp_path / "new").rename(tmp_path / "pids")
        return "late"

    seconds = 1.0
    while not (tmp_path / "pids").exists():
        # On a busy machine the child may not get as far.
        assert answer_within(seconds, hangs) == ""
        seconds *= 2
    for pid in (tmp_path / "pids").read_text().split():
        deadline = time.monotonic() + 240
        while _runs(int(pid)):
            assert time.monotonic() < deadline


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_has_no_terminal_and_no_streams() -> None:
    def look() -> str:
        targets = {os.readlink(f"/proc/self/fd/{stream}") for stream in range(3)}
        return f"{targets} {os.getsid(0) == os.getpid()}"

    assert answer_within(240, look) == "{'/dev/null'} True"


@pytest.mark.parametrize("what", ["broker", "store", "path", "queue"])
def test_a_server_that_does_not_answer_costs_the_time_and_no_more(
    what: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        monkeypatch.setenv("SNAPFERRY_BROKER_URL", f"redis://127.0.0.1:{port}/0")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("SNAPFERRY_ACCESS_ENDPOINTS", f"http://127.0.0.1:{port}")
        store = f"s3://b/x?endpoint_url=http://127.0.0.1:{port}"
        line = {
            "broker": "status ",
            "store": f"show {store} ",
            "path": f"cat {store} {ONE} d",
            # Nothing else is named that could be offered.
            "queue": "submit --queue z",
        }[what]
        monkeypatch.setenv("_SNAPFERRY_LINE", f"snapferry {line}")
        asked = SHELLS["bash"](cli, {}, "snapferry", shells.VARIABLE)

        seconds, reached = 1.0, False
        while not reached:
            # On a busy machine the child may not get as far.
            monkeypatch.setattr(shells, "TIMEOUT_S", seconds)
            assert asked.complete() == ""
            with suppress(BlockingIOError):
                connection, _ = server.accept()
                reached = True
                # The client is gone with the child: all that it sent can be read to the end.
                with connection:
                    connection.settimeout(240)
                    while connection.recv(65536):
                        pass
            seconds *= 2

    assert capfd.readouterr() == ("", "")


def test_the_snapshots_of_a_bucket_are_offered(
    rclone_memory_server: S3Server, s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = rclone_memory_server.make_bucket()
    store = open_store(rclone_memory_server.url(bucket, "store"), access=TRUSTED)
    published = fill(store, {"./one": b"1"})

    assert values(f"snapferry show {rclone_memory_server.url(bucket, 'store')} ") == [
        "latest",
        published[:12],
    ]
    assert values(f"snapferry show {rclone_memory_server.url(bucket, 'store')} {published[:5]}") == [
        published[:12]
    ]


def test_a_redis_that_is_away_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFERRY_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("_SNAPFERRY_LINE", "snapferry status ")

    assert SHELLS["zsh"](cli, {}, "snapferry", shells.VARIABLE).complete() == ""
