"""What the doctor makes of what it was told, and how it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.cli.output.doctor_report import document, print_results, rows
from snapferry.orchestrator.doctor import CheckResult, worst
from snapferry.orchestrator.doctor.fleet import Answer, check_fleet
from snapferry.orchestrator.doctor.schedules import check_schedules
from snapferry.orchestrator.doctor.store_checks import compare_nodes
from snapferry.orchestrator.notify.records import Delivery, NotificationLedger, PendingMessage
from snapferry.stores.diagnosis.findings import Finding, Level, clock_finding
from snapferry.workers.diagnosis import broker_check, remote_control
from snapferry.workers.diagnosis.broker_replication import check_replicas, check_role
from snapferry.workers.diagnosis.store_check import Check, Side, SideFinding, from_document, to_document
from snapferry.workers.ledger import Expected, FreshnessLedger, scripts
from snapferry.workers.lua import LuaScript
from snapferry.workers.settings.broker_url import parse
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.traffic import history as traffic

NOW = 1_800_000_000.0
OK, NOTE, WARNING, ERROR = Level


def facts(
    *queues: str, versions: Mapping[str, str] | None = None, settings: Mapping[str, int] | None = None
) -> dict[str, Any]:
    own = remote_control.fleet_wide(Settings())
    return {
        "versions": remote_control.versions() | dict(versions or {}),
        "settings": own | dict(settings or {}),
        "queues": list(queues),
        "unlimited": [],
        "time": NOW,
    }


def answer(node: str, facts: dict[str, Any], at: float = NOW) -> Answer:
    return Answer(node, facts, at, at + 0.1)


WORKER = answer("w@1", facts("snapferry.copy"))
PLANNER = answer("o@1", facts("snapferry.plan"))


def said(lines: list[CheckResult], level: Level) -> dict[str, str]:
    return {line.finding.check: line.finding.said for line in lines if line.finding.level is level}


def named(lines: list[CheckResult], level: Level) -> dict[str, str]:
    """Return the nodes that each finding of *level* names."""
    return {check: text.rpartition(": ")[2] for check, text in said(lines, level).items()}


def judged(
    *answers: Answer, known: tuple[str, ...] = (), settings: Settings | None = None
) -> list[CheckResult]:
    return check_fleet(answers, known, settings or Settings())


@pytest.mark.parametrize(
    ("there", "level", "words"),
    [
        ((NOW, NOW), OK, "agrees"),
        ((NOW - 2.0, NOW - 2.0), OK, "agrees"),
        ((NOW - 3.0, NOW - 3.0), WARNING, "3 s behind this machine's"),
        ((NOW + 13.5, NOW + 13.5), WARNING, "4 s ahead of this machine's"),
        ((NOW + 12.0, NOW + 12.0), OK, "agrees"),
        ((NOW - 301.0, NOW - 301.0), ERROR, "301 s behind this machine's: S3 refuses"),
        ((NOW + 1e4, NOW + 1e4), ERROR, "9990 s ahead of"),
        ((NOW - 4.0, NOW - 1.0), OK, "agrees"),
    ],
)
def test_clocks_differ_by_what_the_time_of_the_answer_does_not_explain(
    there: tuple[float, float], level: Level, words: str
) -> None:
    found = clock_finding("it", there, (NOW, NOW + 10.0))

    assert found.level is level
    assert words in found.said
    assert bool(found.advice) is (level is not OK)


def test_a_fleet_in_order_has_no_complaint() -> None:
    lines = judged(WORKER, PLANNER, known=("w@1", "o@1"))

    assert {line.finding.level for line in lines} == {OK}
    assert "1 worker on snapferry.copy: w@1" in [line.finding.said for line in lines]


def test_a_queue_that_nobody_serves_is_an_error() -> None:
    assert set(said(judged(PLANNER), ERROR)) == {"fleet.workers"}
    assert set(said(judged(WORKER), ERROR)) == {"fleet.orchestrators"}
    assert set(said(judged(), ERROR)) == {"fleet.workers", "fleet.orchestrators"}


def test_nodes_without_an_allow_list_of_stores_are_named() -> None:
    # A node of an earlier version does not say.
    older = {name: found for name, found in facts("snapferry.copy").items() if name != "unlimited"}
    open_node = answer("w@2", facts("snapferry.copy") | {"unlimited": ["write"]})

    lines = judged(WORKER, PLANNER, open_node, answer("w@3", older))

    assert said(lines, WARNING).keys() == {"fleet.access"}
    assert said(lines, WARNING)["fleet.access"].endswith(": w@2, w@3")


def test_nodes_that_do_not_answer_or_are_too_old_are_named() -> None:
    lines = judged(WORKER, PLANNER, answer("old@1", {}), known=("w@1", "dead@1"))

    assert named(lines, NOTE) == {"fleet.silent": "dead@1"}
    assert named(lines, WARNING) == {"fleet.versions": "old@1"}


def twin(node: str, pid: int, *queues: str, **different: Any) -> Answer:
    process = {"instance": f"{pid:x}", "machine": "m1", "pid": pid}
    return answer(node, facts(*queues, **different) | {"process": process})


def test_a_name_that_processes_share_is_told_with_the_command_that_gives_each_its_own() -> None:
    newer = {"snapferry": "9.9.9"}
    workers = [twin("w@1", 7, "snapferry.copy"), twin("w@1", 8, "snapferry.copy", versions=newer)]

    lines = judged(*workers, PLANNER, PLANNER)

    shared = [line.finding for line in lines if line.finding.check == "fleet.names"]
    assert [finding.level for finding in shared] == [WARNING, WARNING]
    assert "2 processes share the name w@1 (7 on m1, 8 on m1)" in shared[0].said
    assert shared[0].advice.endswith("snapferry worker --name worker-2")
    # Processes of an earlier version do not tell who they are.
    assert "2 processes share the name o@1," in shared[1].said
    assert shared[1].advice.endswith("snapferry orchestrator --name orchestrator-2")
    # What differs between them is told of each.
    assert "9.9.9 (w@1 (8 on m1))" in said(lines, WARNING)["fleet.versions"]


def test_versions_that_differ_are_a_warning_and_messages_that_nobody_reads_an_error() -> None:
    newer = answer("w@2", facts("snapferry.copy", versions={"snapferry": "9.9.9"}))
    foreign = answer("w@3", facts("snapferry.copy", "snapferry.plan", versions={"messages": "99"}))

    assert "9.9.9 (w@2)" in said(judged(WORKER, PLANNER, newer), WARNING)["fleet.versions"]
    assert "99 (w@3)" in said(judged(foreign), ERROR)["fleet.versions"]
    assert "99 (w@3)" in said(judged(WORKER, PLANNER, foreign), WARNING)["fleet.versions"]


def test_a_visibility_timeout_that_differs_is_an_error_and_other_settings_a_warning() -> None:
    short = answer("w@2", facts("snapferry.copy", settings={"visibility_timeout": 60}))
    brief_ = answer("w@3", facts("snapferry.copy", settings={"job_expires": 7200}))

    assert "60 (w@2)" in said(judged(WORKER, PLANNER, short), ERROR)["fleet.settings"]
    assert "7200 (w@3)" in said(judged(WORKER, PLANNER, brief_), WARNING)["fleet.settings"]
    here = judged(WORKER, PLANNER, settings=Settings(job_expires=3600))
    assert said(here, WARNING)["fleet.settings"] == (
        "SNAPFERRY_JOB_EXPIRES is 3600 here and 2592000 on the fleet"
    )


def test_each_node_s_clock_is_compared() -> None:
    lines = judged(WORKER, PLANNER, answer("late@1", facts("snapferry.copy"), at=NOW + 400))

    assert said(lines, ERROR) == {
        "clock": "the clock of late@1 is 400 s behind this machine's: S3 refuses signatures that are so far off"
    }


def line(check: str, level: Level, node: str = "", *, said: str = "it", value: str = "") -> CheckResult:
    return CheckResult("destination", Finding(level, check, said, "do it" * (level is not OK), value), node)


def test_what_this_machine_may_not_is_no_error_where_the_fleet_may() -> None:
    here = [line("store.answers", ERROR)]

    alone = compare_nodes(here, {})
    beside = compare_nodes(here, {"w@1": [line("store.answers", OK, "w@1")]})
    unasked = compare_nodes(here, {"w@1": "it does not answer"})

    assert [one.finding.level for one in alone] == [ERROR]
    assert [one.finding.level for one in beside] == [WARNING, OK]
    assert beside[0].finding.advice.startswith("do it; ")
    assert [one.finding.level for one in unasked] == [ERROR, WARNING]


def test_a_directory_that_one_machine_lacks_is_a_missing_mount() -> None:
    absent = line("store.exists", NOTE, "w@1", value="/srv/b")
    lines = compare_nodes([line("store.exists", OK)], {"w@1": [absent]})
    nowhere = compare_nodes([], {"w@1": [absent]})

    assert lines[1].finding.level is ERROR
    assert lines[1].finding.said.startswith("/srv/b does not exist here")
    assert [one.finding.level for one in nowhere] == [NOTE]


def test_machines_that_see_other_snapshots_are_told() -> None:
    here = [line("source.list", OK, value="x")]

    same = compare_nodes(here, {"w@1": [line("source.list", OK, "w@1", value="x")]})
    other = compare_nodes(here, {"w@1": [line("source.list", OK, "w@1", value="y")]})

    assert "source.same" not in said(same, WARNING)
    assert "this machine; w@1" in said(other, WARNING)["source.same"]


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("redis://127.0.0.1:6379/0", OK),
        ("redis://localhost", OK),
        ("redis://[::1]:6379", OK),
        ("unix:///run/redis.sock?db=0", OK),
        ("rediss://:pw@192.0.2.1:6379/0?ssl_cert_reqs=required", OK),
        ("rediss://192.0.2.1:6379/0?ssl_cert_reqs=none", WARNING),
        ("redis://:pw@192.0.2.1:6379/0", WARNING),
        ("redis://192.0.2.1:6379/0", WARNING),
        ("rediss://192.0.2.1?ssl_check_hostname=false", WARNING),
        ("redis://192.0.2.1?credentials_file=/pw", WARNING),
        ("sentinel://127.0.0.1;localhost?master_name=m", OK),
        ("sentinel://127.0.0.1;192.0.2.1?master_name=m&sentinel_password=pw", WARNING),
        ("sentinels://192.0.2.1?master_name=m", OK),
        ("sentinels://192.0.2.1?master_name=m&sentinel_ssl=false", WARNING),
        ("sentinels://192.0.2.1?master_name=m&sentinel_ssl=false&allowed_hosts=192.0.2.0/24", OK),
    ],
)
def test_a_connection_in_the_clear_over_a_network_is_a_warning(url: str, level: Level) -> None:
    (found,) = broker_check._safety(parse(url))

    assert found.level is level
    assert "pw" not in found.said + found.advice


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"aof_enabled": 1}, OK),
        ({"aof_enabled": 0}, WARNING),
        ({}, NOTE),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, ERROR),
        ({"aof_enabled": 1, "rdb_last_bgsave_status": "err"}, ERROR),
        ({"aof_enabled": 1, "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "err"}, ERROR),
    ],
)
def test_persistence_is_judged(info: dict[str, Any], level: Level) -> None:
    assert [found.level for found in broker_check._persistence(info)] == [level]


@pytest.mark.parametrize(("used", "level"), [(10, OK), (74, OK), (75, WARNING), (95, ERROR), (120, ERROR)])
def test_memory_is_judged_by_its_headroom(used: int, level: Level) -> None:
    assert broker_check._memory({"used_memory": used, "maxmemory": 100}).level is level
    assert broker_check._memory({"used_memory": used, "maxmemory": 0}).level is OK


def test_old_servers_and_parts_of_a_cluster_are_told() -> None:
    assert broker_check._version({"redis_version": "6.0.16"}).level is WARNING
    assert broker_check._version({"redis_version": "7.0.15"}).level is OK
    assert broker_check._version({"redis_version": "7.2.4", "valkey_version": "9.1.2"}).said == "Valkey 9.1.2"
    client = redis.Redis()
    assert check_role({"role": "master", "cluster_enabled": 1}, client).level is ERROR
    assert check_role({"role": "slave"}, client).level is ERROR
    assert check_role({"role": "master"}, client).level is OK


@pytest.mark.parametrize(
    ("info", "expected", "levels"),
    [
        ({}, False, []),
        ({}, True, [WARNING]),
        ({"connected_slaves": 1}, True, [NOTE]),
        ({"connected_slaves": 2}, False, [WARNING]),
        ({"connected_slaves": 2, "min_slaves_good_slaves": 2}, True, [OK]),
    ],
)
def test_what_a_failover_would_lose_is_told(
    info: dict[str, int], expected: bool, levels: list[Level]
) -> None:
    assert [found.level for found in check_replicas(info, expected=expected)] == levels


def test_the_ledger_s_trial_does_all_that_its_steps_do() -> None:
    """A command that a new step uses must be tried as well."""
    tried = set(re.findall(r"try\('([A-Z]+)'", broker_check.TRY_WRITES.text))
    found = [*vars(scripts).values(), *vars(traffic).values()]
    steps = [script.text for script in found if isinstance(script, LuaScript)]
    used = set(re.findall(r"redis\.call\('([A-Z]+)'", "".join(steps)))

    assert len(used) > 20
    assert used - tried == set()


def test_what_a_check_says_survives_the_way_through_redis() -> None:
    told = SideFinding("source", Finding(WARNING, "a.b", "said", "advice", "value"))
    check = Check(Side("file:///a"), None, ("5" * 64,))

    assert from_document(to_document(told)) == told
    assert Check.read(json.dumps(check)) == check


LINES = [
    CheckResult("broker", Finding(OK, "broker.answers", "it answers")),
    CheckResult("destination", Finding(NOTE, "s3.versions", "it keeps versions", "expire them")),
    CheckResult("destination", Finding(OK, "store.write", "fine"), "w@1"),
    CheckResult("destination", Finding(NOTE, "s3.versions", "it keeps versions", "expire them"), "w@1"),
    CheckResult("destination", Finding(ERROR, "store.write", "cannot be \x1b[2J written", "chmod"), "w@2"),
]


def test_what_is_in_order_at_a_node_is_one_row() -> None:
    assert rows(LINES) == [
        ("ok", "broker", "it answers", ""),
        ("note", "destination", "it keeps versions", "expire them"),
        ("error", "destination from w@2", "cannot be \\x1b[2J written", "chmod"),
        ("ok", "stores from w@1", "2 checks in order, or as above", ""),
    ]


def test_what_several_nodes_say_is_one_row() -> None:
    finding = Finding(ERROR, "store.write", "no", "yes")
    lines = [CheckResult("destination", finding, f"w@{number}") for number in range(7)]

    assert rows(lines) == [("error", "destination from w@0, w@1 and 5 more", "no", "yes")]


def test_rows_are_aligned_and_plain_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(LINES)

    assert capsys.readouterr().out == (
        "ok       broker                it answers\n"
        "note     destination           it keeps versions\n"
        "                               -> expire them\n"
        "error    destination from w@2  cannot be \\x1b[2J written\n"
        "                               -> chmod\n"
        "ok       stores from w@1       2 checks in order, or as above\n"
        "1 error, no warnings\n"
    )


def test_the_document_holds_everything() -> None:
    found = document(LINES)

    assert found["healthy"] is False
    assert found["counts"] == {"ok": 2, "note": 2, "warning": 0, "error": 1}
    assert len(found["checks"]) == len(LINES)
    assert found["checks"][1] == {
        "level": "note",
        "about": "destination",
        "check": "s3.versions",
        "node": None,
        "said": "it keeps versions",
        "advice": "expire them",
    }


def test_the_worst_line_decides() -> None:
    assert worst([]) is OK
    assert worst(LINES) is ERROR
    assert worst(LINES[:2]) is NOTE


def test_what_is_late_and_what_was_not_told_are_warnings(redis_url: str, tmp_path: Path) -> None:
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    freshness, records = FreshnessLedger(client), NotificationLedger(client)
    secret = tmp_path / "urls"
    secret.touch(mode=0o600)
    secret.write_text("json://127.0.0.1:1/hook-token")
    config = tmp_path / "snapferry.toml"
    config.write_text(f'[notify]\nurls-file = "{secret}"\n')
    settings = Settings(broker_url=redis_url, config=str(config))

    def levels() -> list[tuple[str, Level]]:
        found = list(check_schedules(client, settings))
        assert not any("hook-token" in finding.said + finding.advice for finding in found)
        return [(finding.check, finding.level) for finding in found]

    nothing = levels()
    freshness.expect([Expected("mirror", "a", "1h"), Expected("scrub", "b", "1h")], replace=True)
    fine = levels()
    client.hset("snapferry:mirror:a", "since", freshness.now() - 9000)
    message = PendingMessage("id", "title", "body", "failure", 5.0, {"1 json": Delivery(3, 9e9)})
    records.delivered(message)
    secret.chmod(0o644)
    wrong = levels()

    assert nothing == [("notify", Level.OK)]
    assert fine == [("schedules", Level.OK), ("notify", Level.OK)]
    assert wrong == [
        ("schedules.late", Level.WARNING),
        ("schedules", Level.OK),
        ("notify", Level.WARNING),
        ("notify.waiting", Level.WARNING),
    ]
