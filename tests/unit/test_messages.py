"""Messages: small, versioned, and refused when anything about them is not as it should be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from stores.address import parse_address
from stores.hashing import digest
from workers.messages import VERSION, BatchMessage, JobRequest, StoreRef

A, B = digest(b"a"), digest(b"b")


def batch(**changes: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "job_id": "job",
        "series": "plan",
        "number": 0,
        "source": {"url": "/a"},
        "destination": {"url": "/b"},
        "addresses": A + B,
        "sizes": [1, 2],
        **changes,
    }


def request(**changes: Any) -> dict[str, Any]:
    return {
        "version": VERSION,
        "job_id": "job",
        "snapshot_id": A,
        "source": {"url": "/a"},
        "destination": {"url": "/b"},
        "batch_objects": 10,
        "batch_bytes": 100,
        **changes,
    }


def test_messages_survive_the_broker() -> None:
    """Celery sends JSON: tuples become lists, and nothing else may happen."""
    sent = BatchMessage.model_validate(batch(concurrency=4))
    asked = JobRequest.model_validate(request(dry_run=True))

    assert BatchMessage.model_validate(json.loads(json.dumps(sent.model_dump()))) == sent
    assert JobRequest.model_validate_json(asked.model_dump_json()) == asked
    assert sent.objects() == {A: 1, B: 2}


@pytest.mark.parametrize("version", [0, 2, "1.1", None, "x"])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(ValidationError, match="version"):
        BatchMessage.model_validate(batch(version=version))
    with pytest.raises(ValidationError, match="version"):
        JobRequest.model_validate(request(version=version))


@pytest.mark.parametrize("changes", [{"extra": 1}, {"source": {"url": "/a", "password": "hunter2"}}])
def test_a_field_that_this_version_does_not_know_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchMessage.model_validate(batch(**changes))
    with pytest.raises(ValidationError):
        JobRequest.model_validate(request(**changes))


@pytest.mark.parametrize(
    "name", ["job_id", "series", "number", "source", "destination", "addresses", "sizes"]
)
def test_a_batch_without_one_of_its_fields_is_refused(name: str) -> None:
    message = batch()
    del message[name]

    with pytest.raises(ValidationError, match=name):
        BatchMessage.model_validate(message)


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": A},
        {"addresses": A + B + A},
        {"addresses": (A + B)[:-1]},
        {"sizes": []},
        {"sizes": [1, 2, 3]},
    ],
)
def test_addresses_and_sizes_must_match(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="addresses and sizes do not match"):
        BatchMessage.model_validate(batch(**changes))


@pytest.mark.parametrize(
    "hostile",
    [
        "../" * 21 + "x",
        "/etc/passwd".ljust(64, "/"),
        A[:-1] + "\n",
        A.upper(),
        A[:-1] + "\0",
        "\u0661" * 64,
        "g" * 64,
        " " * 64,
    ],
)
def test_a_text_shaped_like_a_path_never_becomes_an_address(hostile: str) -> None:
    for addresses in (A + hostile, hostile + A):
        with pytest.raises(ValidationError, match="addresses are not lowercase hex"):
            BatchMessage.model_validate(batch(addresses=addresses))


def test_every_address_of_a_message_that_was_read_is_one() -> None:
    message = BatchMessage.model_validate(batch(addresses=B + A, sizes=[0, 2**64 - 1]))

    assert message.objects() == {B: 0, A: 2**64 - 1}
    assert all(parse_address(address) == address for address in message.objects())


@pytest.mark.parametrize(
    "changes",
    [{"number": -1}, {"number": "one"}, {"sizes": ["many", 1]}, {"source": "/a"}, {"concurrency": "all"}],
)
def test_a_batch_with_a_value_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BatchMessage.model_validate(batch(**changes))


@pytest.mark.parametrize(
    "changes", [{"batch_objects": 0}, {"batch_bytes": 0}, {"concurrency": 0}, {"concurrency": 1025}]
)
def test_a_request_with_limits_that_cannot_be_kept_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        JobRequest.model_validate(request(**changes))


def test_a_batch_costs_little_more_than_its_addresses() -> None:
    """Redis holds a window of these; 64 characters and a size an object is what there is to say."""
    addresses = [digest(b"%d" % number) for number in range(1000)]
    message = batch(addresses="".join(addresses), sizes=[100_000] * 1000)

    assert len(json.dumps(BatchMessage.model_validate(message).model_dump())) < 1000 * 75


def test_messages_do_not_change() -> None:
    with pytest.raises(ValidationError):
        StoreRef(url="/a").url = "/b"
