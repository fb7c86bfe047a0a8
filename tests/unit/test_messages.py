"""Messages: small, versioned, and refused when anything about them is not as it should be."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from snapferry.stores.address import parse_address
from snapferry.stores.hashing import digest
from snapferry.workers.copying.requeue import STEP_ASIDE_S, UNREADABLE_S
from snapferry.workers.messages import (
    VERSION,
    BatchMessage,
    Budget,
    JobSpec,
    MirrorMessage,
    Order,
    Price,
    Prune,
    StoreRef,
    decode_addresses,
    encode_addresses,
)
from tests.property.strategies import addresses, thorough

A, B = digest(b"a"), digest(b"b")


def batch(**changes: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "job_id": "job",
        "series": "plan",
        "number": 0,
        "source": {"url": "/a"},
        "destination": {"url": "/b"},
        "addresses": encode_addresses([A, B]),
        "sizes": [1, 2],
        "positions": [7],
        **changes,
    }


def request(**changes: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "job_id": "job",
        "snapshots": encode_addresses([A, B]),
        "source": {"url": "/a"},
        "destination": {"url": "/b"},
        "batch_objects": 10,
        "batch_bytes": 100,
        **changes,
    }


def test_messages_survive_the_broker() -> None:
    """Celery sends JSON: tuples become lists, and nothing else may happen."""
    sent = BatchMessage.model_validate(batch(concurrency=4))
    asked = JobSpec.model_validate(
        request(
            dry_run=True,
            order=Order.SMALLEST,
            prune=Prune(max_delete=3),
            budget=Budget(
                max_cost=1.5, currency="EUR", prices=(Price(store="s3://a", requests={"Get": 0.4}),)
            ),
        )
    )

    assert BatchMessage.model_validate(json.loads(json.dumps(sent.model_dump()))) == sent
    assert JobSpec.model_validate_json(asked.model_dump_json()) == asked
    assert sent.objects() == {A: 1, B: 2}
    assert asked.snapshot_ids == [A, B]


@pytest.mark.parametrize("version", [0, 1, 2, 4, "3.1", None, "x"])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(ValidationError, match="version"):
        BatchMessage.model_validate(batch(version=version))
    with pytest.raises(ValidationError, match="version"):
        JobSpec.model_validate(request(version=version))


@pytest.mark.parametrize("changes", [{"extra": 1}, {"source": {"url": "/a", "password": "hunter2"}}])
def test_a_field_that_this_version_does_not_know_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchMessage.model_validate(batch(**changes))
    with pytest.raises(ValidationError):
        JobSpec.model_validate(request(**changes))


@pytest.mark.parametrize(
    "name", ["job_id", "series", "number", "source", "destination", "addresses", "sizes", "positions"]
)
def test_a_batch_without_one_of_its_fields_is_refused(name: str) -> None:
    message = batch()
    del message[name]

    with pytest.raises(ValidationError, match=name):
        BatchMessage.model_validate(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": encode_addresses([A])},
        {"addresses": encode_addresses([A, B, A])},
        {"addresses": ""},
        {"sizes": []},
        {"sizes": [1, 2, 3]},
    ],
)
def test_addresses_and_sizes_must_match(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="addresses and sizes do not match"):
        BatchMessage.model_validate(batch(**changes))


@pytest.mark.parametrize("positions", [[], [1, 2, 3]])
def test_positions_and_sizes_must_match(positions: list[int]) -> None:
    with pytest.raises(ValidationError, match="positions and sizes do not match"):
        BatchMessage.model_validate(batch(positions=positions))


def test_places_are_counted_from_the_first_or_told_one_by_one() -> None:
    assert BatchMessage.model_validate(batch(positions=[7])).positions_by_address() == {A: 7, B: 8}
    assert BatchMessage.model_validate(batch(positions=[9, 2])).positions_by_address() == {A: 9, B: 2}
    alone = BatchMessage.model_validate(batch(addresses=encode_addresses([B]), sizes=[1], positions=[5]))
    assert alone.positions_by_address() == {B: 5}


@thorough
@given(st.lists(addresses, max_size=20))
def test_encoded_addresses_are_decoded(found: list[str]) -> None:
    assert decode_addresses(encode_addresses(found)) == found


HOSTILE = [
    "../" * 21 + "x",
    "/etc/passwd".ljust(64, "/"),
    A,
    encode_addresses([A]) + "\n",
    " " + encode_addresses([A]),
    encode_addresses([A])[:-1],
    encode_addresses([A])[:-4],
    encode_addresses([A])[:-1] + "!",
    encode_addresses([A]) + "AAAA",
    "\u0661" * 64,
    "\0" * 44,
    "AAAA",
    "=",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_text_that_is_not_encoded_never_becomes_an_address(hostile: str) -> None:
    with pytest.raises(ValueError, match=r"encoded|ASCII"):
        decode_addresses(hostile)
    with pytest.raises(ValidationError):
        BatchMessage.model_validate(batch(addresses=hostile))
    with pytest.raises(ValidationError):
        JobSpec.model_validate(request(snapshots=hostile))


@thorough
@given(st.one_of(st.text(max_size=100), st.binary(max_size=100).map(lambda raw: b64encode(raw).decode())))
def test_decoded_text_is_addresses(packed: str) -> None:
    try:
        found = decode_addresses(packed)
    except ValueError:
        return
    assert [parse_address(address) for address in found] == found


def test_every_address_of_a_message_that_was_read_is_one() -> None:
    message = BatchMessage.model_validate(batch(addresses=encode_addresses([B, A]), sizes=[0, 2**64 - 1]))

    assert message.objects() == {B: 0, A: 2**64 - 1}
    assert all(parse_address(address) == address for address in message.objects())


@pytest.mark.parametrize(
    "changes",
    [
        {"number": -1},
        {"number": "one"},
        {"sizes": ["many", 1]},
        {"source": "/a"},
        {"concurrency": "all"},
        {"positions": ["x"]},
    ],
)
def test_a_batch_with_a_value_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchMessage.model_validate(batch(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_objects": 0},
        {"batch_bytes": 0},
        {"window_batches": 0},
        {"concurrency": 0},
        {"concurrency": 1025},
        {"prune": {"max_delete": -1}},
        {"budget": {"max_bytes": -1}},
        {"order": "largest"},
    ],
)
def test_a_request_with_limits_that_cannot_be_kept_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        JobSpec.model_validate(request(**changes))


def test_a_request_says_nothing_that_was_not_asked_for() -> None:
    asked = JobSpec.model_validate(request())

    assert (asked.everything, asked.order, asked.prune, asked.dry_run) == (False, Order.GIVEN, None, False)
    assert (asked.resumes, asked.retries, asked.trust_manifest) == ("", "", False)
    assert not asked.budget.limited


def test_a_patience_by_default_is_as_in_the_version_before_which_refuses_the_field() -> None:
    plain = JobSpec.model_validate(request())
    patient = JobSpec.model_validate(request(patience=60.0, waits_at_start=True))

    assert (plain.patience, plain.waits_at_start) == (1800, False)
    assert (
        not {"patience", "waits_at_start"}
        & json.loads(plain.model_dump_json(exclude=plain.new_defaults())).keys()
    )
    assert JobSpec.model_validate_json(patient.model_dump_json(exclude=patient.new_defaults())) == patient


# The fields of the version before, which refuses all others.
FIELDS_BEFORE = {
    JobSpec: {
        "version", "job_id", "snapshots", "everything", "source", "destination", "order", "trust_manifest", "prune",
        "budget", "dry_run", "resumes", "retries", "concurrency", "priority", "queue", "limits", "batch_objects",
        "batch_bytes", "window_batches",
    },
    MirrorMessage: {
        "version", "name", "source", "destination", "trust_manifest", "prune", "priority", "queue", "limits",
    },
    BatchMessage: {
        "version", "job_id", "series", "number", "source", "destination", "addresses", "sizes", "positions",
        "concurrency",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", FIELDS_BEFORE)
def test_a_message_that_asks_for_nothing_new_has_no_field_that_the_version_before_refuses(
    kind: type[JobSpec | MirrorMessage | BatchMessage],
) -> None:
    given = {
        JobSpec: request(),
        MirrorMessage: {"name": "nightly", "source": {"url": "/a"}, "destination": {"url": "/b"}},
        BatchMessage: {
            "job_id": "j", "series": "plan", "number": 0, "source": {"url": "/a"}, "destination": {"url": "/b"},
            "addresses": "", "sizes": [], "positions": [0],
        },
    }[kind]  # fmt: skip
    message = kind.model_validate(given)

    said = message.model_dump(mode="json", exclude=message.new_defaults())

    assert said.keys() == FIELDS_BEFORE[kind]
    assert kind.model_validate(said) == message


SCOPES: list[dict[str, Any]] = [
    {"first": "A"},
    {"first": "0" * 65},
    {"last": "../"},
    {"of": 0},
    {"of": 3, "share": 3},
    {"share": -1},
]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_part_of_the_address_space_that_does_not_exist_is_refused(scope: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate(request(scope=scope))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "burn"},
        {"more_sources": [{"url": "/c"}] * 17},
        {"tree": {"exclude": ["x" * 5000]}},
        {"tree": {"exclude": ["x"] * 1001}},
        {"verify": {"max_bytes": -1}},
    ],
)
def test_an_action_with_options_beyond_their_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        JobSpec.model_validate(request(**changes))


def test_the_options_of_an_action_come_through() -> None:
    asked = request(
        action="verify", verify={"fast": True}, scope={"first": "ab"}, tree={"exclude": ["*.tmp"]},
        more_sources=[{"url": "/c"}], checksum=True, names=True,
    )  # fmt: skip
    spec = JobSpec.model_validate(asked)

    said = spec.model_dump_json(exclude=spec.new_defaults())

    assert JobSpec.model_validate_json(said) == spec
    assert asked.keys() - {"source", "destination"} <= json.loads(said).keys()


@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf"), 31 * 86400, "soon"])
def test_a_patience_that_is_none_is_refused(patience: object) -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate(request(patience=patience))


@pytest.mark.parametrize("name", ["max_objects", "max_bytes", "max_cost"])
def test_a_budget_of_nothing_is_a_limit(name: str) -> None:
    assert Budget.model_validate({name: 0}).limited


def test_a_batch_costs_little_more_than_its_addresses() -> None:
    """Redis holds a window of these; 43 characters and a size an object is what there is to say."""
    names = [digest(b"%d" % number) for number in range(1000)]
    message = batch(addresses=encode_addresses(names), sizes=[100_000] * 1000)

    assert len(json.dumps(BatchMessage.model_validate(message).model_dump())) < 1000 * 53


def test_messages_do_not_change() -> None:
    with pytest.raises(ValidationError):
        StoreRef(url="/a").url = "/b"  # type: ignore[misc]  # it is read-only: that is what is tested


def test_the_page_on_upgrades_names_the_version_of_messages() -> None:
    page = (Path(__file__).parents[2] / "docs/upgrade.md").read_text()
    table, section = (
        page.partition("| **messages and records in Redis** |")[2].partition("\n")[0],
        page.partition("\n### Message version\n")[2],
    )

    for text in (table, section):
        named = re.findall(r"(?i)message version\]?(?:\(#message-version\))?(?: is)? (\d+)", text)
        assert set(named) == {str(VERSION)}
    # The times are those of the code.
    assert f"every {STEP_ASIDE_S} seconds" in section
    assert f"for {UNREADABLE_S // 60} minutes" in section
