"""What the ledger keeps of repairs: each object once, a bounded number, until the job expires."""

from __future__ import annotations

import json

import redis

from snapferry.workers.ledger import REPAIRS_KEPT, Ledger, Repair, State
from tests.unit.ledger.support import JOB, address


def test_a_repair_is_recorded_when_it_is_found_and_when_it_is_done(ledger: Ledger) -> None:
    ledger.note_repairs("job", [Repair(address(1), "corrupt"), Repair(address(2), "missing")])
    done = Repair(address(1), "corrupt", "file:///b", ".quarantine/x")
    for _ in range(2):
        ledger.note_repairs("job", [done])

    assert ledger.repairs("job") == sorted([done, Repair(address(2), "missing")])


def test_what_was_not_repaired_is_forgotten(ledger: Ledger) -> None:
    ledger.note_repairs("job", [Repair(address(1), "corrupt")])
    for _ in range(2):
        ledger.forget_repair("job", address(1))

    assert ledger.repairs("job") == []


def test_repairs_are_kept_after_the_end_of_the_job(ledger: Ledger, client: redis.Redis) -> None:
    ledger.note_repairs("job", [Repair(address(1), "corrupt")])
    ledger.advance("job", State.DONE)

    assert len(ledger.repairs("job")) == 1
    assert client.ttl(f"{JOB}:repairs") > 0


def test_an_unknown_job_has_no_repairs(ledger: Ledger, client: redis.Redis) -> None:
    ledger.note_repairs("nobody's", [Repair(address(1), "corrupt")])

    assert ledger.repairs("nobody's") == []
    assert list(client.scan_iter("*nobody*")) == []


def test_no_more_than_so_many_are_recorded(ledger: Ledger) -> None:
    found = [Repair(address(number), "missing") for number in range(REPAIRS_KEPT + 10)]
    ledger.note_repairs("job", found[:-5])
    ledger.note_repairs("job", found[-5:])
    ledger.note_repairs("job", [found[0]._replace(source="file:///b")])

    kept = ledger.repairs("job")
    assert len(kept) == REPAIRS_KEPT
    assert "file:///b" in {repair.source for repair in kept}


def test_a_record_that_cannot_be_read_is_left_out(ledger: Ledger, client: redis.Redis) -> None:
    good = Repair(address(0), "corrupt", "file:///b", "")
    ledger.note_repairs("job", [good])
    for number, text in enumerate(["", "{", "[1]", "null", "[1, 2, 3, 4]"], 1):
        client.hset(f"{JOB}:repairs", address(number), text)
    client.hset(f"{JOB}:repairs", "no address", json.dumps(["corrupt", "", ""]))
    client.hset(f"{JOB}:repairs", address(9), json.dumps(["\x1b[31m", "", ""]))

    found = ledger.repairs("job")
    assert good in found
    assert "\x1b" not in "".join(repair.wrong for repair in found)
    assert len(found) == 2
