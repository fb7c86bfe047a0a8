"""
Messages that no worker can read: found before Celery sees them, and set aside.

Celery trusts what comes from its queue: a message of the wrong form raises in the worker's main process, which
ends, puts the message back, starts again, and meets it again. Whoever can write to Redis can send such a message,
and a broken client does it by mistake.

*vetted*: `fault_of` accepts the form that Celery gives to the messages of this project, and nothing else. All known
fields have the right types, the body can be decoded, nothing is deep or huge.
*set aside*: a message with a fault is logged once and kept in the list `QUARANTINE`, at most `KEPT` of them.
*counted*: a message that was delivered before is noted while it is handled (`Suspects`). One that ended the process
`MAX_CRASHES` times in a row is set aside too, whatever it does.
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

from snapferry.stores.text.printable import printable
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

QUARANTINE: Final = "snapferry:quarantine"
"""The list of messages that were set aside, the latest first: JSON with queue, reason, time and the message."""

KEPT: Final = 100
_KEPT_BYTES: Final = 64 * 1024

LONGEST_MESSAGE: Final = 16 * 1024 * 1024
"""Bytes. The longest message of the project, a batch of 10,000 objects, has about 1.5 MiB."""

MAX_CRASHES: Final = 10
"""As often as a batch is begun without an end before its objects fail."""

DEEPEST: Final = 32
"""How deep lists and objects of a message may be nested. A chord's callback is 6 deep."""

# With fewer brackets than this nothing can be deep enough to harm, so that nothing needs to be walked through.
_FEW_BRACKETS: Final = 64

_SUSPECTS: Final = "snapferry:suspects"
_SUSPECTS_EXPIRE_S: Final = 86400

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


# A name's length, and that of what is shown to people.
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
    """Return what *raw* says. Raises ValueError for whatever is no JSON, and what is nested too deep or too huge."""
    if len(raw) > LONGEST_MESSAGE:
        raise ValueError(f"it has {len(raw)} bytes")
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
    """Return what is wrong with the message *raw* of a task queue, in words; "" if a worker can read it."""
    try:
        message = read_json(raw)
    except ValueError as error:
        return f"it is not JSON: {str(error)[:200]}"
    if not isinstance(message, dict):
        return f"it is {type(message).__name__} and not an object"
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
        return "its arguments are no list, or the named ones no object"
    if embedded is not None and not isinstance(embedded, dict):
        return "what follows it is no object"
    wrong = _wrong(embedded or {}, _EMBEDDED, ())
    return f"its field {wrong} is of the wrong type" if wrong else ""


def is_task_queue(queue: str) -> bool:
    """Say whether *queue* has tasks of this project, and not replies to control commands."""
    return queue in (PLAN_QUEUE, COPY_QUEUE) or queue.startswith(f"{COPY_QUEUE}.")


def set_aside(client: redis.Redis, queue: str, raw: bytes, reason: str) -> None:
    """Log a message that cannot be handled, and keep it in the quarantine. Never raises `RedisError`."""
    told = _told(raw)
    log.error(
        "message set aside: %s",
        printable(reason),
        extra=fields(queue=printable(queue), bytes=len(raw), quarantine=QUARANTINE, **told),
    )
    kept = raw[:_KEPT_BYTES].decode("utf-8", errors="backslashreplace")
    entry = {"at": time.time(), "queue": queue, "reason": reason, **told, "bytes": len(raw), "message": kept}
    try:
        with client.pipeline(transaction=False) as pipe:
            pipe.lpush(QUARANTINE, json.dumps(entry))
            pipe.ltrim(QUARANTINE, 0, KEPT - 1)
            pipe.execute()
    except RedisError as error:
        log.warning("the message cannot be kept in the quarantine: %s", error)


def _told(raw: bytes) -> dict[str, str]:
    """Return the task and the ids of a message, as far as they can be told."""
    try:
        headers = read_json(raw)["headers"]
        found = {"named": headers.get("task"), "task": headers.get("id"), "job": headers.get("root_id")}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {name: printable(value[:100]) for name, value in found.items() if isinstance(value, str)}


class Suspects:
    """Counts how often a message that was delivered before ended the process that handled it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def begin(self, message: Mapping[str, Any]) -> int:
        """Note that *message* is handled now; return how often that was noted and had no end before."""
        tag = _delivered_before(message)
        if not tag:
            return 0
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hincrby(_SUSPECTS, tag, 1)
            pipe.expire(_SUSPECTS, _SUSPECTS_EXPIRE_S)
            times, _ = pipe.execute()
        return int(times) - 1

    def end(self, message: Mapping[str, Any]) -> None:
        """Note that the process outlived *message*. Never raises `RedisError`."""
        tag = _delivered_before(message)
        if tag:
            try:
                self._client.hdel(_SUSPECTS, tag)
            except RedisError as error:
                log.warning("cannot note that a message was handled: %s", error)


def _delivered_before(message: Mapping[str, Any]) -> str:
    info = message["properties"].get("delivery_info") or {}
    again = message["headers"].get("redelivered") or info.get("redelivered")
    return str(message["properties"]["delivery_tag"]) if again else ""
