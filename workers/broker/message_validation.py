"""
Find messages that no worker can read before Celery receives them, and quarantine them.

Celery trusts the messages in its queues. A malformed message raises in the main process of a worker: the process ends,
the message returns to the queue, the process restarts, and receives the message again. Any client that can write to
Redis can send such a message, by intent or by mistake.

*validated*: `fault_of` accepts only the form that Celery gives to the messages of this project. All known fields have
the right types, the body can be decoded, and nothing is deeply nested or huge.
*quarantined*: a message with a fault is logged once and kept in the list `QUARANTINE`, which holds at most `KEPT`.
*counted*: while a message that was delivered before is handled, it is counted (`CrashCounter`). A message that ended
the process `MAX_CRASHES` times in a row is quarantined too.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

QUARANTINE: Final = "snapferry:quarantine"
"""The list of quarantined messages, the latest first: JSON with queue, reason, time and the message."""

KEPT: Final = 100
_KEPT_BYTES: Final = 64 * 1024

LONGEST_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes. The longest message of the project, a batch of 10,000 objects, has about 1.5 MiB."""

MAX_CRASHES: Final = 10
"""The same number as starts of a batch without a known end before its objects fail."""

DEEPEST: Final = 32
"""The deepest nesting of lists and objects in a message. The callback of a chord is 6 deep."""

# A message with fewer brackets cannot be nested too deep, so its depth is not measured.
_FEW_BRACKETS: Final = 64

_CRASHES: Final = "snapferry:suspects"
_CRASHES_EXPIRE_S: Final = 86400

_Test = Callable[[Any], bool]


def _text(longest: int) -> _Test:
    return lambda found: isinstance(found, str) and len(found) <= longest


def _or_none(test: _Test) -> _Test:
    return lambda found: found is None or test(found)


def _is_int(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**53


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < 2**53


def _is_bool(found: Any) -> bool:
    return isinstance(found, bool)


def _is_dict(found: Any) -> bool:
    return isinstance(found, dict)


def _is_pair_of_numbers(found: Any) -> bool:
    return isinstance(found, list) and len(found) == 2 and all(map(_or_none(_is_number), found))


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(map(_text(255), found))


def _are_dicts(found: Any) -> bool:
    return isinstance(found, list) and all(map(_is_dict, found))


# The lengths of names, and of texts for people.
_NAME: Final = _text(512)
_WORDS: Final = _text(64 * 1024)

_HEADERS: Final[Mapping[str, _Test]] = {
    "task": _NAME,
    "id": _NAME,
    "lang": _or_none(_NAME),
    "root_id": _or_none(_NAME),
    "parent_id": _or_none(_NAME),
    "group": _or_none(_NAME),
    "origin": _or_none(_NAME),
    "shadow": _or_none(_NAME),
    "eta": _or_none(_NAME),
    "expires": _or_none(_NAME),
    "meth": _or_none(_NAME),
    "argsrepr": _or_none(_WORDS),
    "kwargsrepr": _or_none(_WORDS),
    "retries": _or_none(_is_int),
    "group_index": _or_none(_is_int),
    "replaced_task_nesting": _or_none(_is_int),
    "timelimit": _or_none(_is_pair_of_numbers),
    "ignore_result": _or_none(_is_bool),
    "redelivered": _or_none(_is_bool),
    "stamped_headers": _or_none(_are_texts),
    "stamps": _or_none(_is_dict),
    "compression": lambda found: found is None,
    "snapferry_sent_at": _or_none(_is_number),
}

_PROPERTIES: Final[Mapping[str, _Test]] = {
    "correlation_id": _or_none(_NAME),
    "reply_to": _or_none(_NAME),
    "delivery_tag": _NAME,
    "delivery_info": lambda found: (
        isinstance(found, dict)
        and _NAME(found.get("exchange"))
        and _NAME(found.get("routing_key"))
        and _or_none(_is_bool)(found.get("redelivered"))
    ),
    "priority": _or_none(_is_int),
    "delivery_mode": _or_none(_is_int),
    "body_encoding": lambda found: found == "base64",
    "argsrepr": _or_none(_WORDS),
    "kwargsrepr": _or_none(_WORDS),
    "headers": _or_none(_is_dict),
}

_EMBEDDED: Final[Mapping[str, _Test]] = {
    "callbacks": _or_none(_are_dicts),
    "errbacks": _or_none(_are_dicts),
    "chain": _or_none(_are_dicts),
    "chord": _or_none(_is_dict),
}


def read_json(raw: bytes | str) -> Any:
    """Return the value of the JSON text *raw*. Raises ValueError if it is not JSON, too large or nested too deep."""
    if len(raw) > LONGEST_MESSAGE:
        raise ValueError(f"it has {counted(len(raw), 'byte')}")
    text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if text.count("[") + text.count("{") > _FEW_BRACKETS and _deep(found):
        raise ValueError("it is nested too deep")
    return found


def _deep(found: Any) -> bool:
    level = [found]
    for _ in range(DEEPEST):
        level = [
            inside
            for one in level
            if isinstance(one, dict | list)
            for inside in (one.values() if isinstance(one, dict) else one)
            if isinstance(inside, dict | list)
        ]
        if not level:
            return False
    return True


def fault_of(raw: bytes) -> str:
    """Return why a worker cannot read the message *raw* of a task queue, "" if it can."""
    try:
        message = read_json(raw)
    except ValueError as error:
        return f"it is not JSON: {str(error)[:200]}"
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}, not an object"
    headers, properties = message.get("headers"), message.get("properties")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        return "it has no headers or no properties"
    if message.get("content-type") != "application/json" or message.get("content-encoding") != "utf-8":
        return "its content is not JSON in UTF-8"
    wrong = _wrong(headers, _HEADERS, ("task", "id")) or _wrong(
        properties, _PROPERTIES, ("delivery_tag", "delivery_info", "body_encoding")
    )
    if wrong:
        return f"its field {wrong} is absent or of the wrong type"
    return _fault_of_body(message.get("body"))


def _wrong(found: Mapping[str, Any], tests: Mapping[str, _Test], needed: Iterable[str]) -> str:
    for name in needed:
        if name not in found:
            return name
    return next((name for name, test in tests.items() if name in found and not test(found[name])), "")


def _fault_of_body(body: Any) -> str:
    if not isinstance(body, str) or not body:
        return "it has no body"
    try:
        found = read_json(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError) as error:
        return f"its body is not JSON in base64: {str(error)[:200]}"
    if not isinstance(found, list) or len(found) != 3:  # Celery's protocol 2
        return "its body is not a list of three"
    arguments, named, embedded = found
    if not isinstance(arguments, list) or not isinstance(named, dict):
        return "its arguments are not a list, or its named arguments not an object"
    if embedded is not None and not isinstance(embedded, dict):
        return "its options are not an object"
    wrong = _wrong(embedded or {}, _EMBEDDED, ())
    return f"its field {wrong} is of the wrong type" if wrong else ""


def is_task_queue(queue: str) -> bool:
    """Return whether *queue* holds tasks of this project, not replies to control commands."""
    return queue in (PLAN_QUEUE, COPY_QUEUE) or queue.startswith(f"{COPY_QUEUE}.")


def quarantine(client: redis.Redis, queue: str, raw: bytes, reason: str) -> None:
    """Log a message that cannot be handled, and keep it in `QUARANTINE`. Never raises `RedisError`."""
    ids = _ids_of(raw)
    log.error(
        "message quarantined: %s",
        printable(reason),
        extra=fields(queue=printable(queue), bytes=len(raw), quarantine=QUARANTINE, **ids),
    )
    kept = raw[:_KEPT_BYTES].decode("utf-8", errors="backslashreplace")
    entry = {"at": time.time(), "queue": queue, "reason": reason, **ids, "bytes": len(raw), "message": kept}
    try:
        with client.pipeline(transaction=False) as pipe:
            pipe.lpush(QUARANTINE, json.dumps(entry))
            pipe.ltrim(QUARANTINE, 0, KEPT - 1)
            pipe.execute()
    except RedisError as error:
        log.warning("cannot keep a quarantined message: %s", error)


def _ids_of(raw: bytes) -> dict[str, str]:
    """Return the name and the ids of the task in a message, as far as they can be read."""
    try:
        headers = read_json(raw)["headers"]
        found = {"named": headers.get("task"), "task": headers.get("id"), "job": headers.get("root_id")}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {name: printable(value[:100]) for name, value in found.items() if isinstance(value, str)}


class CrashCounter:
    """Counts how often a redelivered message ended the process that handled it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def begin(self, message: Mapping[str, Any]) -> int:
        """Record that *message* is handled now; return how often this was recorded without an end before."""
        tag = _delivered_before(message)
        if not tag:
            return 0
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hincrby(_CRASHES, tag, 1)
            pipe.expire(_CRASHES, _CRASHES_EXPIRE_S)
            times, _ = pipe.execute()
        return int(times) - 1

    def end(self, message: Mapping[str, Any]) -> None:
        """Record that the process survived *message*. Never raises `RedisError`."""
        tag = _delivered_before(message)
        if tag:
            try:
                self._client.hdel(_CRASHES, tag)
            except RedisError as error:
                log.warning("cannot record that a message was handled: %s", error)


def _delivered_before(message: Mapping[str, Any]) -> str:
    info = message["properties"].get("delivery_info") or {}
    again = message["headers"].get("redelivered") or info.get("redelivered")
    return str(message["properties"]["delivery_tag"]) if again else ""
