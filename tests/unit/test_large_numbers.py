"""Numbers in Redis that no float holds, and no integer: another program may have written them."""

from __future__ import annotations

import json

import pytest

from snapferry.orchestrator.notify.records import NotificationLedger
from snapferry.orchestrator.reporting.fleet_metrics import _age
from snapferry.workers.app import SENT_AT
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger.keys import OUTBOX
from snapferry.workers.ledger.state import waiting_of

LARGE = 10**400


def test_a_wait_since_no_moment_is_no_wait() -> None:
    assert waiting_of(json.dumps({"store": "s3://b", "reason": "no answer", "since": LARGE})) is None


def test_a_message_that_was_sent_at_no_moment_has_no_age() -> None:
    assert _age(json.dumps({"headers": {SENT_AT: LARGE}}), 1.0) == 0.0


@pytest.mark.parametrize("tries", ["1e999", "Infinity"])
def test_a_notification_that_was_tried_without_end_costs_that_one(redis_url: str, tries: str) -> None:
    text = '{"title":"t","body":"b","kind":"k","made_at":1,"left":{"mail":{"tries":%s,"next_at":1}}}'
    with client(redis_url) as server:
        server.hset(OUTBOX, mapping={"damaged": text % tries, "whole": text % 1})
        assert [message.id for message in NotificationLedger(server).waiting()] == ["whole"]
