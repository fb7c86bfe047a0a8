"""Copies of one object in parts, by two workers of this process, and all that can go wrong with the parts."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Retry

from snapferry.orchestrator.planning.estimates.objects import ObjectRequests
from snapferry.stores.address import OBJECTS, Key, address_of
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.objects.in_parts.note import note_key
from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.pools.in_parts import DonePart
from snapferry.stores.pools.in_parts.record import seal, unseal
from snapferry.stores.requests import Requests
from snapferry.stores.runtime.liveness import identity
from snapferry.workers.copying.delivery import Skipped
from snapferry.workers.copying.parts import asking, joining, owner, sizes
from snapferry.workers.copying.parts.asking import Asking
from snapferry.workers.copying.parts.joining import NOTHING
from snapferry.workers.copying.parts.spending import JoinedSpending
from snapferry.workers.copying.requeue import MAX_RETRIES
from snapferry.workers.copying.transfer.interfaces import JobStopped
from snapferry.workers.ledger import State
from snapferry.workers.ledger.keys import BUDGET_FIELD
from snapferry.workers.ledger.steps import parts as claims_of_parts
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.messages import Action, BatchMessage, Budget, Price, StoreRef
from tests.counting import counting_proxy
from tests.integration.processes import until
from tests.opening import open_store
from tests.unit.bound_task import BoundTask

from .parts_world import ADDRESS, KEY, LARGE, PART, PARTS, World, kind_fixture, world_fixture  # noqa: F401 - pytest finds them here

pytestmark = pytest.mark.usefixtures("s3_environment")


def join_at_once(world: World, monkeypatch: pytest.MonkeyPatch, workers: int = 1) -> None:
    """Let other workers join as soon as they are asked, and be there before the first part is copied."""
    there = threading.Event()
    started: list[threading.Thread] = []

    def ask(self: Asking, address: str, *, parts: int, joined: int) -> None:
        if not started:
            for _ in range(workers):
                started.append(threading.Thread(target=world.join))
                started[-1].start()

    def before(part: int) -> None:
        # A thread of each worker has a part, so each copies at least one.
        if threading.current_thread().name.startswith("part-"):
            seen.add(threading.get_ident())
            if len(seen) > 4:
                there.set()
        there.wait(5)

    seen: set[int] = set()
    monkeypatch.setattr(Asking, "ask", ask)
    world.before = before


def test_two_workers_copy_the_parts_of_an_object(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    join_at_once(world, monkeypatch)
    assert world.run().startswith("1 copied, 0 present")

    world.assert_copied()
    assert sorted(world.copied) == list(range(PARTS))
    until(lambda: world.joined, "the other worker has left")
    (words,) = world.joined
    assert words.split()[0] != "0"


def in_budget(world: World, max_cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the job a budget, in which each request but those for the bucket itself costs 1."""
    names = (
        "GetObject", "HeadObject", "PutObject", "DeleteObject", "ListObjectsV2", "ListParts", "UploadPart",
        "CreateMultipartUpload", "CompleteMultipartUpload", "AbortMultipartUpload",
    )  # fmt: skip
    prices = (Price(store="s3://", requests=dict.fromkeys(names, 1000.0)),)
    found = Budget(max_cost=max_cost, currency="EUR", prices=prices).model_dump_json()
    world.ledger.client.hset("snapferry:job:job", BUDGET_FIELD, found)
    monkeypatch.setattr(joining, "WATCH_S", 0.05)


def test_the_requests_of_every_worker_count_for_the_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_budget(world, 1000, monkeypatch)
    join_at_once(world, monkeypatch, workers=2)
    with counting_proxy(world.server) as (proxy, received):
        refs = {"source": StoreRef(url=proxy.url(world.bucket, "a"))}
        if world.to.startswith("s3://"):
            refs["destination"] = StoreRef(url=proxy.url(world.bucket, "b"))
        world.batch = world.batch.model_copy(update=refs)

        assert world.run().startswith("1 copied")
        until(lambda: len(world.joined) == 2, "the other workers have left")

        sent = received.total() - received["HeadBucket"]
    assert int(world.ledger.field("job", "spent_cost")) == sent * 1_000_000
    assert not world.ledger.client.exists("snapferry:job:job:spent")


def test_a_worker_that_joined_stops_when_the_budget_is_exceeded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_budget(world, 1000, monkeypatch)
    stores = open_store(world.batch.source.url), open_store(world.to)
    watch = joining._Watch(world.ledger, "job", 600)
    watch.spending = JoinedSpending(world.ledger, world.message, *stores)

    for over, stops in (("", False), ("spent_objects", False), ("spent_cost", True)):
        world.ledger.client.hset("snapferry:job:job", "over", over)
        watch.beat()
        with pytest.raises(JobStopped) if stops else nullcontext():
            watch.check()


def test_a_run_without_others_copies_all_parts(world: World) -> None:
    assert world.run().startswith("1 copied")
    world.assert_copied()
    assert sorted(world.copied) == list(range(PARTS))


def test_a_copy_in_parts_sends_what_an_estimate_predicts(world: World) -> None:
    with counting_proxy(world.server) as (proxy, received):
        refs = {"source": StoreRef(url=proxy.url(world.bucket, "a"))}
        if world.to.startswith("s3://"):
            refs["destination"] = StoreRef(url=proxy.url(world.bucket, "b"))
        world.batch = world.batch.model_copy(update=refs)
        stores = open_store(world.batch.source.url), open_store(world.to)
        requests = ObjectRequests(world.ledger.spec("job"), *stores)
        read, written = requests.of(len(LARGE))
        to_survey = stores[1].accounting.to_survey(1, 0)

        assert world.run().startswith("1 copied")

        # It asks for the buckets, too.
        assert received - Requests(HeadBucket=received["HeadBucket"]) == read + written + to_survey
        assert received["GetObject"] == PARTS + (2 if written else 0)
        # Workers that join ask as well.
        assert not requests.exact
        world.assert_copied()


def test_the_next_run_keeps_the_parts_that_are_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker shuts down, and loses one of its parts."""
    world.before = lambda _: monkeypatch.setattr(shutdown, "must_requeue", lambda: len(world.copied) >= 6)
    with pytest.raises(Retry):
        world.run()
    kept = set(world.copied)
    assert 6 <= len(kept) < PARTS
    assert not open_store(world.to).has_object(ADDRESS)
    assert world.left_over() != []

    monkeypatch.setattr(shutdown, "must_requeue", lambda: False)
    world.before = lambda _: None
    world.copied.clear()
    assert world.run().startswith("1 copied")
    world.assert_copied()
    assert set(world.copied) == set(range(PARTS)) - kept


def test_a_source_that_is_wrong_gives_the_error_of_every_object(world: World) -> None:
    world.replace_source(LARGE[:-1] + bytes([LARGE[-1] ^ 1]))
    said = world.run()
    assert "IntegrityError" in said
    assert "corrupt" in said
    world.assert_nothing()
    assert world.ledger.status("job").failed == 1


def test_a_source_that_is_replaced_meanwhile_is_never_mixed(world: World) -> None:
    """By right bytes of another version: the object is copied whole. By wrong ones: it fails."""
    wrong = bytes(len(LARGE))

    def replace(part: int) -> None:
        if part == 5:
            world.replace_source(wrong)

    world.before = replace
    said = world.run()
    # rclone's server gives an object the same ETag for the same bytes, and other bytes another one.
    assert "IntegrityError" in said
    world.assert_nothing()


def test_an_upload_that_is_gone_is_copied_whole(world: World) -> None:
    def remove(part: int) -> None:
        if part == 5:
            with world.attached() as copy:
                copy.abort()

    world.before = remove
    assert world.run().startswith("1 copied")
    world.assert_copied()


def forged(world: World, **changes: Any) -> list[str]:
    """Return records of all parts that a stranger can make, who knows the object but not the secret."""
    found = []
    for part in range(PARTS):
        done = DonePart(part, json.dumps(["etag", "", "etag", PART, "0" * 32]), bytes(32))
        record = json.loads(seal(b"another secret", world.of().upload, done))
        found.append(json.dumps([changes.get(str(at), value) for at, value in enumerate(record)]))
    return found


def test_forged_records_publish_nothing_wrong(world: World, caplog: pytest.LogCaptureFixture) -> None:
    texts = [
        "",
        "[]",
        "null",
        "{",
        "[" * 5000,
        json.dumps([0, "", "", ""]),
        "é" * 9000,
        json.dumps([[], {}, 1, 2]),
    ]

    def forge(part: int) -> None:
        if part == 3:
            todo, holders, done = world.of().keys
            world.ledger.client.rpush(done, *forged(world), *texts)
            # Parts that are to be forgotten, and claims of nobody.
            world.ledger.client.zrem(todo, "00009", "00010")
            world.ledger.client.hset(holders, mapping={"00009": "nobody", "x": "y", "99999": "z"})
            world.ledger.client.zadd(todo, {"x": 0, "!": 0, "99999": 0, "00012": 1e18, "00011": 1e18})

    world.before = forge
    assert world.run().startswith("1 copied")
    world.assert_copied()
    assert "copied whole" not in caplog.text
    # A part whose claim was taken away is copied again.
    assert set(world.copied) == set(range(PARTS))


def test_a_flood_of_records_is_given_up(world: World) -> None:
    def flood(part: int) -> None:
        if part == 3:
            world.ledger.client.rpush(world.of().keys[2], *["x"] * 3000)

    world.before = flood
    assert world.run().startswith("1 copied")
    world.assert_copied()


@pytest.mark.parametrize("which", [0, 1, 2], ids=["todo", "holders", "done"])
@pytest.mark.parametrize("odd", [False, True], ids=["another type", "no text"])
def test_damaged_keys_are_given_up(world: World, which: int, odd: bool) -> None:
    def damage(part: int) -> None:
        if part == 3:
            client, key = world.ledger.client, world.of().keys[which]
            if odd and which == 2:
                client.rpush(key, b"\xff\xfe")
            elif odd:
                client.zadd(key, {b"!\xff": 0}) if which == 0 else client.hset(key, b"\xff", b"\xff")
            else:
                client.delete(key)
                client.set(key, "damaged")

    world.before = damage
    assert world.run().startswith("1 copied")
    world.assert_copied()


def test_a_lost_record_costs_only_time(world: World) -> None:
    def lose(part: int) -> None:
        if part == 6:
            world.ledger.client.delete(*world.of().keys)

    world.before = lose
    assert world.run().startswith("1 copied")
    world.assert_copied()


def test_messages_of_strangers_and_late_ones_do_nothing(world: World) -> None:
    assert world.join() == NOTHING
    unknown = world.message.model_copy(update={"job_id": "unknown"})
    assert world.join(unknown).startswith("stopped")
    for update in ({"action": Action.VERIFY}, {"addresses": "", "sizes": (), "positions": (0,)}):
        assert world.join(world.message.model_copy(update=update)) == NOTHING
    assert world.run().startswith("1 copied")
    assert world.join() == NOTHING
    assert sorted(world.copied) == list(range(PARTS))
    world.assert_copied()


def test_a_message_with_another_source_copies_nothing(world: World) -> None:
    """Such a worker would write other bytes into the upload: then the object would only be copied whole."""
    elsewhere = world.server.url(world.bucket, "elsewhere")
    open_store(elsewhere).put_object(ADDRESS, LARGE)
    other = world.message.model_copy(update={"source": StoreRef(url=elsewhere)})
    found: list[str] = []

    def join(part: int) -> None:
        if not found:
            found.append("")
            found.append(world.join(other))

    world.before = join
    assert world.run().startswith("1 copied")
    assert found[1].startswith(NOTHING)
    world.assert_copied()


def test_a_message_whose_worker_died_is_not_taken_up_again(world: World) -> None:
    joined: list[str] = []

    def join(part: int) -> None:
        if part == 3 and not joined:
            joined.append(world.join(redelivered=True))

    world.before = join
    assert world.run().startswith("1 copied")
    assert joined == [NOTHING]
    world.assert_copied()


def test_a_worker_that_shuts_down_begins_no_further_part(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str] = []

    def join(part: int) -> None:
        if part == 3 and not joined:
            joined.append("")
            monkeypatch.setattr(shutdown, "requeues_in_s", lambda: 100.0)
            joined.append(world.join())
            monkeypatch.setattr(shutdown, "requeues_in_s", lambda: None)

    world.before = join
    assert world.run().startswith("1 copied")
    assert joined[1] == NOTHING
    world.assert_copied()


def test_a_cancel_in_the_middle_leaves_nothing(world: World) -> None:
    def cancel(part: int) -> None:
        if part == 4:
            world.ledger.cancel("job")

    world.before = cancel
    assert world.run() == Skipped.STOPPED
    world.assert_nothing()


def test_a_pause_keeps_the_parts_and_a_cancel_then_removes_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few that some are left after each pause.
    monkeypatch.setattr(sizes, "PARTS_IN_FLIGHT", 2)

    def pause(part: int) -> None:
        if part not in kept:
            world.ledger.pause("job", paused=True)

    kept: set[int] = set()
    world.before = pause
    assert world.run() == Skipped.PAUSED
    kept |= set(world.copied)
    assert kept
    # A worker that joins now begins no part.
    assert world.join() == "0 parts copied"

    world.ledger.pause("job", paused=False)
    assert world.run() == Skipped.PAUSED
    assert len(world.copied) > len(kept)
    assert sorted(world.copied) == sorted(set(world.copied))
    assert not open_store(world.to).has_object(ADDRESS)

    world.ledger.cancel("job")
    world.ledger.advance("job", State.CANCELLED)
    (text,) = world.ledger.begun_parts("job")
    assert "nothing is left" in world.join(BatchMessage.model_validate_json(text))
    world.assert_nothing()


def test_a_store_that_is_away_keeps_the_parts_until_the_last_retry(world: World) -> None:
    def fail(part: int) -> None:
        if part == 8:
            raise StoreUnavailable("a store", "", "does not answer")

    world.before = fail
    with suppress(Retry):
        world.run()
    kept = set(world.copied)
    assert kept
    world.copied.clear()
    assert world.run(retries=MAX_RETRIES).startswith("1 copied")
    assert not kept & set(world.copied)
    world.assert_copied()


def test_a_worker_that_dies_while_it_has_a_part_is_replaced(world: World) -> None:
    def claim(part: int) -> None:
        if part == 2:
            of = world.of()
            here = identity().split("-")[0]
            dead = f"{here}-{2**22 - 3}-000000000000#parts0@dead"
            assert world.ledger.claim_part(of, dead, PARTS) is not None

    world.before = claim
    assert world.run().startswith("1 copied")
    world.assert_copied()


def test_parts_of_a_worker_that_hangs_are_taken_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_of_parts, "CLAIM_S", 1000)
    monkeypatch.setattr(owner, "TAKE_OVER_S", 0.3)

    def claim(part: int) -> None:
        if part == 2:
            # This process is alive.
            assert world.ledger.claim_part(world.of(), f"{identity()}#parts999@another", PARTS) is not None

    world.before = claim
    assert world.run().startswith("1 copied")
    world.assert_copied()


@pytest.mark.parametrize("kind", ["s3"])
def test_small_objects_and_odd_sizes_are_copied_whole(world: World) -> None:
    batch = world.batch
    world.batch = batch.model_copy(update={"sizes": (len(LARGE) - 1,)})
    assert world.run().startswith("1 copied")
    assert world.copied == []
    assert world.left_over() == []


@pytest.mark.parametrize("kind", ["s3"])
def test_the_request_counts_of_a_confirmed_object(world: World) -> None:
    store = open_store(world.to)
    assert isinstance(store.objects, S3Backend)
    world.run()
    # Confirmed as every object in parts, and once.
    confirmed: Any = world.ledger.client.hgetall("snapferry:job:job")
    assert sum(int(value) for name, value in confirmed.items() if name.startswith("confirmed")) == 1


def test_a_record_is_of_one_upload_and_one_secret() -> None:
    done = DonePart(3, "receipt", bytes(range(32)))
    record = seal(b"secret", "upload", done)
    assert unseal(b"secret", "upload", record) == done
    assert unseal(b"secret", "another", record) is None
    assert unseal(b"another", "upload", record) is None
    fields = json.loads(record)
    for at, other in ((0, 4), (1, "another"), (2, "00" * 32), (3, "00" * 32), (3, None), (3, "é")):
        changed = [*fields[:at], other, *fields[at + 1 :]]
        assert unseal(b"secret", "upload", json.dumps(changed)) is None


class Roster:
    """Five processes, of which one asks."""

    def __init__(self, _: object) -> None:
        return None

    def processes(self, _: str) -> int:
        return 5


class Queue:
    """What `Asking` needs of a ledger: a client, and whether messages wait."""

    client = None
    empty = False

    def is_queue_empty(self, _: str) -> bool:
        return self.empty


def test_workers_are_asked_once_and_as_many_as_there_are_parts_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(asking, "WorkerRoster", Roster)
    monkeypatch.setattr(Asking, "_send", lambda *sends: sent.append(sends))
    monkeypatch.setattr(asking, "message_for", lambda *_: None)
    task: Any = BoundTask()
    queue: Any = Queue()
    batch: Any = SimpleNamespace(concurrency=None)
    asks = Asking(task, batch, queue)
    asks.ask(ADDRESS, parts=8, joined=0)
    assert len(sent) == 2
    asks.ask(ADDRESS, parts=800, joined=0)
    assert len(sent) == 2
    monkeypatch.setattr(asking, "ASK_AGAIN_S", -1.0)
    asks.ask(ADDRESS, parts=800, joined=0)
    assert len(sent) == 2, "messages still wait"
    queue.empty = True
    asks.ask(ADDRESS, parts=800, joined=1)
    assert len(sent) == 5
    batch.concurrency = 2
    asks.ask(ADDRESS, parts=800, joined=0)
    assert len(sent) == 6, "two objects may be in flight in all"


def test_no_key_of_a_note_can_be_that_of_an_object() -> None:
    assert address_of(note_key(Key(KEY), "job"), OBJECTS) is None
