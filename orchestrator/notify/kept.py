"""What notifications know of a mirror or scrub, as a document: for a machine whose server ends with each run."""

from __future__ import annotations

import json
from typing import Any, Final

import redis

from snapferry.workers.ledger.keys import OUTBOX, PROBLEMS

# More than a run can leave behind.
_MOST: Final = 1000
_LONGEST: Final = 64 * 1024


def export_notifications(client: redis.Redis, subject: str) -> dict[str, dict[str, str]]:
    """Return what was told of *subject*, such as "mirror:nightly", and the messages that wait."""
    told = client.hget(PROBLEMS, subject)
    waiting: dict[Any, Any] = client.hgetall(OUTBOX)
    return {
        "problems": {} if told is None else {subject: str(told)},
        "outbox": {str(name): str(text) for name, text in waiting.items()},
    }


def restore_notifications(client: redis.Redis, subject: str, document: object) -> None:
    """
    Write a document of `export_notifications` into a server that has none. What is damaged is left out.

    Messages that wait are due now: the pause before the next try is over when another run begins.
    """
    parts = document if isinstance(document, dict) else {}
    for part, key in (("problems", PROBLEMS), ("outbox", OUTBOX)):
        found = parts.get(part)
        if not isinstance(found, dict) or len(found) > _MOST:
            continue
        usable: dict[Any, Any] = {}
        for name, text in found.items():
            if isinstance(text, str) and len(text) <= _LONGEST and (part == "outbox" or name == subject):
                usable[name] = _due_now(text) if part == "outbox" else text
        if usable:
            client.hset(key, mapping=usable)


def _due_now(text: str) -> str:
    try:
        record = json.loads(text)
        for delivery in record["left"].values():
            delivery["next_at"] = 0.0
        return json.dumps(record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return text
