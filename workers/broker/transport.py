"""
Kombu's Redis transport, with names of its own, and patient where kombu is not.

*own names*: several Celery applications may share a database. What kombu and Celery would share with them has names
of this project (`OPTIONS`, `NAMES`): the hash of unacknowledged messages, the control exchange, the events.
*outages*: a Redis that is full or read-only is not connected to, as if it were away; Celery tries again. A message
that was taken and could not be noted as taken goes back to its queue when Redis takes writes again.
*vetted*: what no worker can read is set aside (`snapferry.workers.broker.message_validation`) and reaches no consumer.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from typing import Any, Final

import kombu.transport
from kombu.transport import redis as untyped
from kombu.utils import json as untyped_json
from redis.exceptions import RedisError

from . import message_validation
from .connection import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, OUTAGE, PatientRedis

log = logging.getLogger(__name__)

# Kombu has types for some of its parts.
_kombu: Any = untyped
_dumps: Any = vars(untyped_json)["dumps"]

UNACKED: Final = "snapferry.unacked"
"""The hash of messages that were delivered and not acknowledged."""

OPTIONS: Final[dict[str, Any]] = {
    "unacked_key": UNACKED,
    "unacked_index_key": f"{UNACKED}_index",
    "unacked_mutex_key": f"{UNACKED}_mutex",
    # Kombu reads the exchange's name behind the first dot.
    "fanout_prefix": "/snapferry-{db}.",
    # Without these a publish on a connection that is half open waits for ever.
    "socket_timeout": ANSWER_TIMEOUT_S,
    "socket_connect_timeout": CONNECT_TIMEOUT_S,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
"""Options of the transport, for ``broker_transport_options``."""

NAMES: Final[dict[str, str]] = {
    "control_exchange": "snapferry",
    "event_exchange": "snapferry.events",
    "event_queue_prefix": "snapferry.events",
}
"""Settings of Celery: names that would be every Celery application's."""

MAILBOXES: Final = "_kombu.binding.snapferry.pidbox"
"""The key of the set of all nodes' mailboxes."""

_WRITABLE: Final = "snapferry:mark:writable"


def install() -> None:
    """Let every ``redis://`` connection of kombu in this process use this transport. May be called again."""
    for name in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[name] = "snapferry.workers.broker.transport:Transport"


class _Stranded:
    """Messages that were taken from a queue when Redis could not note that: to be put back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[tuple[str, str]] = []
        self._process = os.getpid()

    def add(self, key: str, message: str) -> None:
        with self._lock:
            if self._process != os.getpid():
                # A forked process: they are its parent's.
                self._messages, self._process = [], os.getpid()
            self._messages.append((key, message))

    def put_back(self, client: Any) -> None:
        with self._lock:
            if self._process != os.getpid():
                return
            while self._messages:
                client.rpush(*self._messages[-1])
                self._messages.pop()
                log.info("a message that was taken during an outage is back in its queue")


_stranded = _Stranded()


class _VettingRedis(PatientRedis):
    """Gives no answer to BRPOP that a consumer could not read."""

    def __init__(self, *arguments: Any, channel: Channel, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._vetting_channel = channel

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name != "BRPOP" or not answer:
            return answer
        key, raw = answer
        return answer if self._vetting_channel.vet(bytes(key).decode(errors="replace"), bytes(raw)) else None


class QoS(_kombu.QoS):
    """As kombu's, but a message that cannot be noted as taken is not lost."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note that *message* was taken."""
        try:
            super().append(message, delivery_tag)
        except OUTAGE:
            self.channel.strand(message)
            raise


class Channel(_kombu.Channel):
    """As kombu's, see this module."""

    QoS = QoS

    def _get_client(self) -> Any:
        super()._get_client()
        return partial(_VettingRedis, channel=self)

    def vet(self, key: str, raw: bytes) -> bool:
        """Say whether *raw*, from the list *key*, can be given to a consumer; if not, it is set aside."""
        queue = key.rsplit(self.sep, 1)[0]
        if not message_validation.is_task_queue(queue):
            return _is_reply(raw)
        fault = message_validation.fault_of(raw)
        if not fault and b'"redelivered": true' not in raw:
            return True
        with self.conn_or_acquire() as client:
            fault = fault or _fault_of_suspect(message_validation.Suspects(client), raw)
            if fault:
                message_validation.set_aside(client, queue, raw, fault)
        return not fault

    def quarantine(self, message: Any, reason: str) -> None:
        """Set *message* aside, which was delivered, and take it for acknowledged."""
        raw = _dumps(message._raw).encode()
        with self.conn_or_acquire() as client:
            message_validation.set_aside(client, str(message.delivery_info.get("routing_key")), raw, reason)

    def outlived(self, message: Any) -> None:
        """Note that *message* was handled and this process still runs."""
        with self.conn_or_acquire() as client:
            message_validation.Suspects(client).end(message._raw)

    def strand(self, message: Any) -> None:
        """Keep *message* until Redis takes writes again."""
        raw = message._raw
        queue = raw["properties"]["delivery_info"]["routing_key"]
        _stranded.add(self._q_for_pri(queue, self._get_message_priority(raw)), _dumps(raw))

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        # Control commands and events come from whoever can publish.
        try:
            return bool(super()._deliver_fanout_message(message, exchange))
        except (RedisError, OSError):
            raise
        except Exception:
            log.warning("a broadcast message that cannot be read is passed over", exc_info=True)
            return False


class Transport(_kombu.Transport):
    """As kombu's, see this module."""

    Channel = Channel

    def establish_connection(self) -> Any:
        """Connect; a Redis that takes no writes counts as away. Raises `redis.exceptions.ConnectionError`."""
        connection = super().establish_connection()
        channel = self._avail_channels[-1]
        try:
            with channel.conn_or_acquire() as client:
                with client.pipeline(transaction=False) as pipe:
                    pipe.set(_WRITABLE, "", ex=60)
                    pipe.delete(_WRITABLE)
                    pipe.execute()
                _stranded.put_back(client)
        except BaseException:
            self.close_connection(connection)
            raise
        return connection


def _fault_of_suspect(suspects: message_validation.Suspects, raw: bytes) -> str:
    try:
        crashes = suspects.begin(message_validation.read_json(raw))
    except RedisError:
        # What comes next needs Redis as well, and is made for an outage.
        return ""
    return f"it ended its worker {crashes} times" if crashes >= message_validation.MAX_CRASHES else ""


def _is_reply(raw: bytes) -> bool:
    try:
        found = message_validation.read_json(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("properties"), dict)
