"""Laws of a job's record: whatever happens to a job, when, how often and in which order, a plain model agrees."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from snapferry.stores.hashing import digest
from snapferry.workers.ledger import PLAN, Begun, Directive, JobStatus, Ledger, State, set_bits
from snapferry.workers.ledger.steps import leases
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef, encode_addresses
from snapferry.workers.outcome import BatchOutcome, Failure
from tests.property.strategies import machine

HERE, THERE = StoreRef(url="/a"), StoreRef(url="/b")

# The plan: batches by the sizes of their objects, and the place of each batch's first object.
PLANNED = [(1, 2), (0, 100, 5), (7,)]
STARTS = [0, *accumulate(map(len, PLANNED))]
SIZES = [size for sizes in PLANNED for size in sizes]
ADDRESSES = [digest(b"object %d" % place) for place in range(len(SIZES))]
TOTALS = {"objects_total": len(SIZES), "bytes_total": sum(SIZES), "batches_total": len(PLANNED)}

RANK = {State.QUEUED: 0, State.PLANNING: 1, State.COPYING: 2, State.COMMITTING: 3}
RANK |= dict.fromkeys((State.DONE, State.FAILED, State.CANCELLED), 4)

holders = st.sampled_from(["one@here", "two@there"])
drivers = st.sampled_from(["driver one", "driver two"])


def request(job_id: str) -> JobSpec:
    return JobSpec(
        job_id=job_id,
        snapshots=encode_addresses([digest(b"snapshot")]),
        source=HERE,
        destination=THERE,
        batch_objects=10,
        batch_bytes=100,
    )


def message(job_id: str, series: str, number: int, places: tuple[int, ...]) -> BatchMessage:
    return BatchMessage(
        job_id=job_id, series=series, number=number, source=HERE, destination=THERE,
        addresses=encode_addresses(ADDRESSES[place] for place in places), sizes=tuple(SIZES[place] for place in places),
        positions=places,
    )  # fmt: skip


class Job(RuleBasedStateMachine):
    """One job whose tasks come twice, late, in any order and partly, while people steer it and processes die."""

    client: redis.Redis

    @initialize(planned=st.booleans(), lives_for=st.integers(0, 45))
    def start(self, planned: bool, lives_for: int) -> None:
        """Nobody ends the job before so many steps."""
        self.steps_to_live = lives_for
        self.job_id = uuid.uuid4().hex
        self.ledger = Ledger(self.client, expires_s=3600)
        assert self.ledger.create(request(self.job_id))
        self.state = State.QUEUED
        self.planned = self.paused = self.cancelled = False
        self.final: JobStatus | None = None
        self.messages: dict[str, BatchMessage] = {
            f"{PLAN}:{number}": message(
                self.job_id, PLAN, number, tuple(range(STARTS[number], STARTS[number + 1]))
            )
            for number in range(len(PLANNED))
        }
        # Of each batch, by its name.
        self.accounted: set[str] = set()
        self.held: set[str] = set()
        self.begun: dict[str, int] = {}
        self.alive: dict[str, bool] = {}
        self.holder: dict[str, str] = {}
        self.inside: dict[str, tuple[int, int]] = {}
        # Which object is copied alone, and how many died over which.
        self.alone: dict[str, int] = {}
        self.deaths: dict[str, dict[int, int]] = {}
        # Of each object, by its place in the plan.
        self.found_missing: set[int] = set()
        self.failed: set[int] = set()
        self.healed = self.bytes_copied = 0
        self.heals: dict[int, tuple[int, int]] = {}
        # Of the driver.
        self.driver = ""
        self.asked_again = False
        self.drives = 0
        self.before = self.ledger.status(self.job_id)
        if planned:
            self.plan()

    @property
    def stopped(self) -> bool:
        return self.cancelled or self.state.final

    def leased_to(self, name: str) -> str:
        """Return who runs a batch now."""
        return self.holder.get(name, "") if self.alive.get(name) else ""

    def any_batch(self, data: st.DataObject) -> tuple[str, BatchMessage]:
        names = st.sampled_from(sorted(self.messages))
        if new := sorted(self.messages.keys() - self.accounted):
            # Half of the time one that something still depends on.
            names = st.one_of(st.sampled_from(new), names)
        name = data.draw(names, "batch")
        return name, self.messages[name]

    def ended(self) -> None:
        if self.state.final and self.final is None:
            self.final = replace(self.ledger.status(self.job_id), workers=())

    @precondition(lambda self: not self.planned)
    @rule()
    def plan(self) -> None:
        """Do what a plan ends with."""
        alive = self.ledger.advance(self.job_id, State.COPYING, batches_handed=len(PLANNED), **TOTALS)

        assert alive == (not self.state.final)
        if alive:
            self.planned = self.planned or RANK[self.state] <= RANK[State.COPYING]
            if RANK[self.state] <= RANK[State.COPYING] or self.state is State.COMMITTING:
                self.state, self.planned = State.COPYING, True

    @rule(data=st.data(), holder=holders, dead=st.one_of(st.just(""), holders))
    def begin(self, data: st.DataObject, holder: str, dead: str) -> None:
        name, batch = self.any_batch(data)

        begun = self.ledger.begin(batch, holder, instead_of=dead)

        other = self.leased_to(name)
        if name in self.accounted:
            assert begun == Begun(accounted=True)
        elif self.stopped:
            assert begun == Begun(stopped=True)
        elif self.paused:
            # Which of the two a batch is told that another runs is all the same.
            assert begun == Begun(paused=True) or (other and begun == Begun(holder=other))
            if begun.paused:
                self.held.add(name)
        elif other not in ("", holder, dead):
            assert begun == Begun(holder=other)
        else:
            place = self.alone.pop(name, None)
            if place is not None:
                deaths = self.deaths.setdefault(name, {})
                deaths[place] = deaths.get(place, 0) + 1
            # A run that asks again, because its first answer was lost, has begun once.
            again = self.holder.get(name) == holder
            if not again and (place is None or not self.begun.get(name)):
                self.begun[name] = self.begun.get(name, 0) + 1
            self.alive[name], self.holder[name] = True, holder
            self.held.discard(name)
            assert begun == Begun(times=self.begun[name], deaths=self.deaths.get(name, {}))

    @rule(data=st.data(), holder=holders, again_in_s=st.sampled_from([0, 8]), ended=st.booleans())
    def release(self, data: st.DataObject, holder: str, again_in_s: int, ended: bool) -> None:
        name, batch = self.any_batch(data)

        self.ledger.release(batch, holder, again_in_s=again_in_s, ended=ended)

        if self.holder.get(name) == holder:
            self._released(name, again_in_s=again_in_s, ended=ended)

    def _released(self, name: str, *, again_in_s: int = 0, ended: bool = False) -> None:
        if not ended:
            self.begun[name] = max(0, self.begun.get(name, 0) - 1)
            self.alone.pop(name, None)
        if again_in_s:
            self.alive[name], self.holder[name] = True, ""
        else:
            del self.alive[name], self.holder[name]

    @rule(data=st.data(), holder=holders)
    def hold(self, data: st.DataObject, holder: str) -> None:
        """Give a batch back because its job is paused, or was a moment ago."""
        name, batch = self.any_batch(data)

        held = self.ledger.hold(batch, holder)

        mine = self.holder.get(name) == holder
        holds = self.paused and not self.stopped
        assert held == (holds or not mine)
        if mine:
            self._released(name)
            if holds:
                self.held.add(name)

    @rule(data=st.data(), holder=holders)
    def copy_alone(self, data: st.DataObject, holder: str) -> None:
        """Begin an object of a batch that killed workers; if its worker dies now, it died over that object."""
        name, batch = self.any_batch(data)
        place = data.draw(st.sampled_from(sorted(batch.positions_by_address().values())))

        self.ledger.note_current_object(batch, holder, place)

        if self.holder.get(name) == holder:
            self.alone[name] = place

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        name, _ = self.any_batch(data)

        self.ledger.note_retry(self.job_id, name, 10)

        if not self.stopped and not self.holder.get(name) and name not in self.accounted:
            self.alive[name], self.holder[name] = True, ""

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def lease_runs_out(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        self.client.zadd(f"snapferry:job:{self.job_id}:leases", {name: time.time() - 1}, xx=True)
        self.alive[name] = False

    @rule(data=st.data())
    def find_missing(self, data: st.DataObject) -> None:
        """However late: by then its batch may be accounted for, or its job have ended."""
        name, batch = self.any_batch(data)
        self._find_missing(name, batch, self._some(data, batch))

    def _some(self, data: st.DataObject, batch: BatchMessage) -> list[int]:
        return sorted(data.draw(st.sets(st.sampled_from(batch.positions))))

    def _find_missing(self, name: str, batch: BatchMessage, needed: list[int]) -> None:
        self.ledger.note_missing(batch, [ADDRESSES[place] for place in needed])
        if batch.series == PLAN and name not in self.accounted and not self.state.final:
            self.found_missing.update(needed)

    @rule(data=st.data(), holder=holders)
    def report(self, data: st.DataObject, holder: str) -> None:
        name, batch = self.any_batch(data)
        objects = data.draw(st.integers(0, len(batch.sizes)))
        size_bytes = data.draw(st.integers(0, sum(batch.sizes)))

        wish = self.ledger.progress(batch, holder, objects=objects, size_bytes=size_bytes)

        assert wish is (
            Directive.STOP if self.stopped else Directive.HOLD if self.paused else Directive.CONTINUE
        )
        assert self.ledger.directive(self.job_id) is wish

        if name in self.alive and self.holder[name] == holder:
            self.alive[name] = True
        if name not in self.accounted and not self.stopped:
            before = self.inside.get(name, (0, 0))
            self.inside[name] = max(objects, before[0]), max(size_bytes, before[1])

    @precondition(lambda self: self.planned)
    @rule(data=st.data())
    def account(self, data: st.DataObject) -> None:
        """Let a delivery come to its end: some objects were missing, and some of those cannot be copied."""
        name, batch = self.any_batch(data)
        needed = self._some(data, batch)
        failed = sorted(data.draw(st.sets(st.sampled_from(needed)))) if needed else []
        self._find_missing(name, batch, needed)
        copied = [place for place in needed if place not in failed]
        outcome = BatchOutcome(
            copied=len(copied),
            present=len(batch.sizes) - len(needed),
            bytes_copied=sum(SIZES[place] for place in copied),
            needed_bytes=sum(SIZES[place] for place in needed),
            failures=[
                Failure(ADDRESSES[place], "ObjectMissing", "/a", "", transient=False) for place in failed
            ],
        )

        counted = self.ledger.account(batch, outcome)

        assert counted == (name not in self.accounted and not self.state.final)
        if not self.state.final:
            self.inside.pop(name, None)
            self.begun.pop(name, None)
            self.alone.pop(name, None)
            self.deaths.pop(name, None)
        if counted:
            self.accounted.add(name)
            self.failed.update(failed)
            self.bytes_copied += outcome.bytes_copied
            if batch.series == PLAN:
                others = self.found_missing.intersection(batch.positions).difference(needed)
                self.bytes_copied += sum(SIZES[place] for place in others)
            else:
                self.healed += len(copied)
            self.found_missing.difference_update(failed)

    @precondition(lambda self: self.planned and not self.state.final and self.settled_places())
    @rule(data=st.data(), group=st.sampled_from([0, 1]))
    def heal(self, data: st.DataObject, group: int) -> None:
        """Let objects that were accounted for be absent: they get batches of their own, which come as often as any."""
        absent = sorted(data.draw(st.sets(st.sampled_from(sorted(self.settled_places())), min_size=1)))
        half = len(absent) // 2
        parts = [tuple(part) for part in (absent[:half], absent[half:]) if part]
        turn = self.heals.get(group, (0, 0))[0] + 1
        self.ledger.note_healing(self.job_id, group, turn=turn, batches=len(parts))
        self.heals[group] = turn, len(parts)
        series = f"heal-{group}-{turn}"
        for number, places in enumerate(parts):
            self.messages[f"{series}:{number}"] = message(self.job_id, series, number, places)

    def settled_places(self) -> set[int]:
        names = [name for name in self.accounted if name.startswith(PLAN)]
        return {place for name in names for place in self.messages[name].positions_by_address().values()}

    @precondition(lambda self: not self.state.final)
    @rule(data=st.data())
    def hand_out_again(self, data: st.DataObject) -> None:
        """Queue batches again that are not on their way."""
        lost = [name for name in self.messages if not self.alive.get(name)]
        names = data.draw(st.sets(st.sampled_from(sorted(lost)))) if lost else set()

        self.ledger.note_requeued(self.job_id, sorted(names))

        for name in names:
            self.alive.pop(name, None)
            self.holder.pop(name, None)
            self.held.discard(name)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        assert self.ledger.pause(self.job_id, paused=paused) is self.state
        if not self.state.final:
            self.paused = paused

    @precondition(lambda self: self.steps_to_live <= 0)
    @rule()
    def cancel(self) -> None:
        if self.state is State.QUEUED:
            self.state = State.CANCELLED
            self.cancelled = True
        self.cancelled = self.cancelled or not self.state.final

        assert self.ledger.cancel(self.job_id) is self.state
        self.ended()

    @rule(state=st.sampled_from([State.QUEUED, State.PLANNING, State.COMMITTING, State.COPYING]))
    def step(self, state: State) -> None:
        """Move on, legally or not: a step may come late, and none moves a job back but to heal."""
        if state is State.COPYING and not self.planned:
            return self.plan()
        assert self.ledger.advance(self.job_id, state) == (not self.state.final)

        if not self.state.final and (
            RANK[state] >= RANK[self.state] or (self.state, state) == (State.COMMITTING, State.COPYING)
        ):
            self.state = state
        return None

    @precondition(lambda self: self.steps_to_live <= 0)
    @rule(state=st.sampled_from([State.DONE, State.FAILED, State.CANCELLED]), words=st.sampled_from("ab"))
    def end(self, state: State, words: str) -> None:
        assert self.ledger.advance(self.job_id, state, error=words) == (not self.state.final)
        if not self.state.final:
            self.state = state
            self.ended()

    @rule(words=st.sampled_from(["", "something"]))
    def note(self, words: str) -> None:
        assert self.ledger.set_fields(self.job_id, reasons=words) == (not self.state.final)

    @precondition(lambda self: self.state.final)
    @rule()
    def tidy(self) -> None:
        self.ledger.remove_working_keys(self.job_id)
        self.held, self.begun, self.alive, self.holder, self.heals = set(), {}, {}, {}, {}
        self.alone, self.deaths = {}, {}
        self.found_missing, self.driver = set(), ""

        self._assert_tidy()

    def _assert_tidy(self) -> None:
        parts = {str(key).split(":")[3] for key in self.client.keys(f"snapferry:job:{self.job_id}:*")}
        assert parts <= {"done", "failures", "failed", "classes", "running"}

    @rule(driver=drivers, dead=st.one_of(st.just(""), st.just(""), drivers))
    def drive(self, driver: str, dead: str) -> None:
        times = self.ledger.start_driving(self.job_id, driver, instead_of=dead)

        if self.driver not in ("", driver, dead):
            assert times == 0
            self.asked_again = True
        else:
            self.drives += 1
            assert times == self.drives
            self.driver, self.asked_again = driver, False

    @rule(driver=drivers, look_again=st.booleans())
    def park(self, driver: str, look_again: bool) -> None:
        goes_on = self.ledger.stop_driving(self.job_id, driver, look_again=look_again)

        assert goes_on == (driver == self.driver != "" and look_again and self.asked_again)
        if goes_on:
            self.asked_again = False
        elif driver == self.driver:
            self.driver, self.drives = "", 0

    @rule(driver=drivers)
    def keep_driving(self, driver: str) -> None:
        self.ledger.keep_driving(self.job_id, driver)

    @precondition(lambda self: self.driver)
    @rule()
    def driver_dies(self) -> None:
        self.client.delete(f"snapferry:job:{self.job_id}:driver")
        self.driver = ""

    @invariant()
    def the_state_and_who_steers_are_as_they_should_be(self) -> None:
        self.steps_to_live -= 1
        standing, neglected = self.ledger.neglected(self.job_id)

        assert (standing.state, standing.paused, standing.cancelling) == (
            self.state, self.paused, self.cancelled,
        )  # fmt: skip
        assert self.ledger.driver(self.job_id) == self.driver
        assert neglected == (self.driver == "" and self.drives > 0)
        assert (self.job_id in self.ledger.open_jobs()) == (not self.state.final)

    @invariant()
    def what_is_on_its_way_is_known(self) -> None:
        standing = self.ledger.standing(self.job_id)
        alive = [name for name, alive in self.alive.items() if alive]

        ran_out = self.alive.keys() - set(alive)
        assert set(standing.expired) == {name for name in ran_out if self.holder[name]}
        assert set(standing.overdue) == {name for name in ran_out if not self.holder[name]}
        assert set(standing.held) == self.held
        assert (standing.leased, standing.running) == (
            len(alive),
            sum(bool(self.holder[name]) for name in alive),
        )
        assert standing.heals == self.heals
        found = {holder.partition("@")[2] for holder in self.holder.values() if holder}
        assert self.ledger.status(self.job_id).workers == tuple(sorted(found))

    @invariant()
    def progress_never_goes_back_and_never_exceeds_the_plan(self) -> None:
        now, before = self.ledger.status(self.job_id), self.before
        self.before = now

        assert before.batches_done <= now.batches_done
        assert before.objects_settled <= now.objects_settled
        assert before.bytes_settled <= now.bytes_settled
        assert RANK[before.state] <= RANK[now.state] or before.state is State.COMMITTING
        if self.planned:
            assert now.objects_settled <= len(SIZES) == now.objects_total
            assert now.bytes_settled <= sum(SIZES) == now.bytes_total
        if now.batches_done == len(PLANNED):
            assert (now.objects_settled, now.bytes_settled) == (len(SIZES), sum(SIZES))

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        status, settled = self.ledger.status(self.job_id), self.settled_places()
        done = [name for name in self.messages if name in self.accounted and name.startswith(PLAN)]
        inside = [found for name, found in self.inside.items() if name.startswith(PLAN)]

        assert status.batches_done == len(done)
        assert status.objects_settled == len(settled) + sum(objects for objects, _ in inside)
        assert status.bytes_settled == sum(SIZES[place] for place in settled) + sum(b for _, b in inside)
        assert status.copied + status.present + status.failed == len(settled)
        assert min(status.copied, status.present, status.failed) >= 0
        assert (status.healed, status.bytes_copied) == (self.healed, self.bytes_copied)
        assert status.failed == sum(self.ledger.failed_by_class(self.job_id).values()) == len(self.failed)
        for series in {name.partition(":")[0] for name in self.messages}:
            numbers = [
                int(name.partition(":")[2]) for name in self.accounted if name.startswith(f"{series}:")
            ]
            missing = self.ledger.unaccounted(self.job_id, series, range(len(PLANNED)))
            if series == PLAN or self.heals:
                assert missing == sorted(set(range(len(PLANNED))).difference(numbers))

    @invariant()
    def the_bitmaps_agree_with_the_counts(self) -> None:
        status, settled = self.ledger.status(self.job_id), self.settled_places()
        failed, copied = (
            set(set_bits(self.ledger.bitmap(self.job_id, part))) for part in ("failed", "copied")
        )

        assert failed == self.failed
        assert copied == self.found_missing
        # What is said of single objects goes when the job is tidied up; failures stay.
        if copied or not self.state.final:
            assert len(copied & settled) == status.copied

    @invariant()
    def the_end_stays_the_end(self) -> None:
        if self.final is not None:
            assert replace(self.ledger.status(self.job_id), workers=()) == self.final


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.mark.hypothesis
def test_the_record_of_a_job_is_right_whatever_happens_when_and_how_often(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lease runs out on its own here, however slow the machine is."""
    monkeypatch.setattr(leases, "LEASE_S", 3600)
    Job.client = client

    run_state_machine_as_test(Job, settings=settings(machine, stateful_step_count=50))
