"""Machines that are taken away while they run a batch: no sign of a deadly batch, unless that goes on for ever."""

from __future__ import annotations

import json
import time

import pytest

from snapferry.workers.ledger import Ledger
from snapferry.workers.ledger.keys import ROSTER_S, WORKERS
from tests.unit.ledger.support import JOB, TWO, deliver, run_out


def announced(ledger: Ledger, worker: str, ago_s: float = 0.0) -> None:
    """Let *worker* have announced itself so many seconds ago."""
    record = {"at": time.time() - ago_s, "queues": ["snapferry.copy"]}
    ledger.client.hset(WORKERS, worker, json.dumps(record))


def run_on(ledger: Ledger, number: int, silent_s: float, *, requeued: bool = True, settles: int = 0) -> None:
    """Let worker *number* begin the batch, settle objects, and vanish; its lease runs out."""
    worker, holder = f"w{number}@host", f"m-1-{number}#0@w{number}@host"
    announced(ledger, worker)
    assert not ledger.begin(TWO, holder).holder
    if settles:
        ledger.progress(TWO, holder, objects=settles, size_bytes=settles)
    announced(ledger, worker, silent_s)
    run_out(ledger, "plan:0")
    if requeued:
        ledger.note_requeued("job", ["plan:0"])


GONE = ROSTER_S + 5


@pytest.mark.parametrize("requeued", [True, False], ids=["queued again", "delivered again"])
def test_a_start_on_a_machine_that_was_lost_does_not_count_as_a_death(ledger: Ledger, requeued: bool) -> None:
    for number in range(12):
        run_on(ledger, number, GONE, requeued=requeued)

    begun = ledger.begin(TWO, "m-1-x#0@last@host")
    assert begun.times == 1
    assert begun.lost == 12
    assert begun.interrupted, "what they left at the destination is looked for"


@pytest.mark.parametrize("silent_s", [0.0, ROSTER_S - 5], ids=["alive", "started again"])
def test_a_process_that_died_while_its_worker_lives_counts(ledger: Ledger, silent_s: float) -> None:
    for number in range(4):
        run_on(ledger, number, silent_s)

    begun = ledger.begin(TWO, "m-1-x#0@last@host")
    assert (begun.times, begun.lost) == (5, None)


@pytest.mark.parametrize("record", ["", "null", "[]", "{}", '{"at": "soon"}', "{", "1"])
def test_a_worker_that_never_announced_itself_or_whose_record_is_damaged_counts_as_dead(
    ledger: Ledger, record: str
) -> None:
    ledger.begin(TWO, "m-1-1#0@w@host")
    if record:
        ledger.client.hset(WORKERS, "w@host", record)
    run_out(ledger, "plan:0")
    ledger.note_requeued("job", ["plan:0"])

    assert ledger.begin(TWO, "another").times == 2


def test_a_process_that_is_known_to_be_dead_on_a_living_machine_counts(ledger: Ledger) -> None:
    announced(ledger, "w@host", GONE)
    ledger.begin(TWO, "m-1-1#0@w@host")

    assert ledger.begin(TWO, "another", instead_of="m-1-1#0@w@host").times == 2


def test_lost_machines_count_anew_once_a_further_object_is_settled(ledger: Ledger) -> None:
    for number in range(3):
        run_on(ledger, number, GONE)
    assert ledger.lost("job", ["plan:0", "plan:1"]) == [3, 0]

    run_on(ledger, 3, GONE, settles=1)
    assert ledger.lost("job", ["plan:0"]) == [1]
    run_on(ledger, 4, GONE, settles=1)
    assert ledger.lost("job", ["plan:0"]) == [2], "that object was settled before"

    begun = ledger.begin(TWO, "another")
    assert begun.interrupted
    deliver(ledger, TWO)
    assert not ledger.client.hlen(f"{JOB}:begun")


def test_an_object_that_was_copied_alone_is_not_blamed_for_a_lost_machine(ledger: Ledger) -> None:
    for number in range(7):
        holder = f"m-1-{number}#0@w{number}@host"
        ledger.begin(TWO, holder)
        ledger.note_current_object(TWO, holder, 1)
        announced(ledger, f"w{number}@host", GONE)
        run_out(ledger, "plan:0")
        ledger.note_requeued("job", ["plan:0"])

    begun = ledger.begin(TWO, "another")
    assert begun.deaths == {}
    assert begun.lost == 7
