"""
Kombu's Redis transport with its own key names, which waits through outages and validates messages.

*own names*: several Celery applications may share a database. The keys that kombu and Celery would share with them
have names of this project (`OPTIONS`, `NAMES`): the hash of unacknowledged messages, the control exchange, the events.
*outages*: a Redis that is full or read-only counts as away: connecting fails, and Celery tries again. A message that
was taken from its queue but could not be recorded as unacknowledged returns to the queue when Redis accepts writes.
*validation*: a message that no worker can read is quarantined (`snapferry.workers.broker.message_validation`) and
reaches no consumer.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from typing import Any, Final

from kombu.connection import resolve_aliases
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as untyped
from kombu.utils import json as untyped_json
from redis.exceptions import RedisError

from snapferry.stores.text.format import counted
from snapferry.workers.settings.broker_url import BrokerURL

from . import message_validation
from .connecting.pool import HEALTH_S, connection_pool
from .connection import OUTAGE, PatientRedis

log = logging.getLogger(__name__)

# Kombu has type hints for some of its modules only.
_kombu: Any = untyped
_dumps: Any = vars(untyped_json)["dumps"]

UNACKED: Final = "snapferry.unacked"
"""The hash of messages that were delivered and not acknowledged."""

OPTIONS: Final[dict[str, Any]] = {
    "unacked_key": UNACKED,
    "unacked_index_key": f"{UNACKED}_index",
    "unacked_mutex_key": f"{UNACKED}_mutex",
    # The lock of the process that puts back what dead workers have taken. If that process dies or loses Redis, the lock
    # stays until it expires, and nothing is put back: by default for 5 minutes. Two processes at the same time do no
    # harm, because each message is put back in a transaction.
    "unacked_mutex_expire": 20,
    # Kombu takes the text after the first dot as the name of the exchange.
    "fanout_prefix": "/snapferry-{db}.",
    # Kombu looks as often for connections that only listen and whose other side is gone.
    "health_check_interval": HEALTH_S,
}
"""Options of the transport, for ``broker_transport_options``."""

BROKER: Final = "snapferry_broker"
"""The option with the `BrokerURL`. The URL that Celery knows holds no password, and is only shown."""

NAMES: Final[dict[str, str]] = {
    "control_exchange": "snapferry",
    "event_exchange": "snapferry.events",
    "event_queue_prefix": "snapferry.events",
}
"""Settings of Celery whose defaults all Celery applications share."""

MAILBOXES: Final = "_kombu.binding.snapferry.pidbox"
"""The key of the set of the mailboxes of all nodes."""

_WRITABLE: Final = "snapferry:mark:writable"


_SCHEMES: Final = ("redis", "rediss", "sentinel", "sentinels")

# Kombu finds a transport by the scheme of a URL, in a table of the whole process. Another Celery application of this
# process needs kombu's own Redis transport, so this one has schemes of its own.
_OWN: Final = "snapferry-"


def install() -> None:
    """Let kombu find this transport by the URLs of `own_url`, and show them without the prefix. May be repeated."""
    for scheme in _SCHEMES:
        TRANSPORT_ALIASES[_OWN + scheme] = f"{__name__}:Transport"
        resolve_aliases[_OWN + scheme] = scheme


def own_url(url: str) -> str:
    """Return the URL by which kombu connects to *url* through this transport; *url* itself if it is not of Redis."""
    # A socket has the scheme redis+socket.
    scheme = url.partition(":")[0].partition("+")[0]
    return _OWN + url if scheme in _SCHEMES else url


class _UnrecordedMessages:
    """Messages that were taken from a queue while Redis could not record that. They must return to the queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: list[tuple[str, str]] = []
        self._process = os.getpid()

    def add(self, key: str, message: str) -> None:
        with self._lock:
            if self._process != os.getpid():
                # In a forked process they belong to the parent.
                self._messages, self._process = [], os.getpid()
            self._messages.append((key, message))

    def requeue(self, client: Any) -> None:
        with self._lock:
            if self._process != os.getpid():
                return
            while self._messages:
                client.rpush(*self._messages[-1])
                self._messages.pop()
                log.info("message requeued after an outage")


_unrecorded = _UnrecordedMessages()


class _ValidatingRedis(PatientRedis):
    """Returns no reply to BRPOP that a consumer could not read."""

    def __init__(self, *arguments: Any, channel: Channel, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._validating_channel = channel

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        answer = super().parse_response(connection, command_name, **options)
        if command_name != "BRPOP" or not answer:
            return answer
        key, raw = bytes(answer[0]).decode(errors="replace"), bytes(answer[1])
        return answer if self._validating_channel.is_readable(key, raw) else None


class QoS(_kombu.QoS):
    """As kombu's, but a message that cannot be recorded as taken is not lost."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record that *message* was taken."""
        try:
            super().append(message, delivery_tag)
        except OUTAGE:
            self.channel.requeue_later(message)
            raise


class Channel(_kombu.Channel):
    """As kombu's, with the changes that the module describes."""

    QoS = QoS

    # Kombu sets it from the options of the transport.
    snapferry_broker: BrokerURL
    keyprefix_fanout: str
    _shared_client: Any = None
    from_transport_options = (*_kombu.Channel.from_transport_options, BROKER)

    def _get_pool(self, asynchronous: bool = False) -> Any:
        broker = self.snapferry_broker
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=broker.database)
        return connection_pool(
            broker,
            changed=self._polled if asynchronous else None,
            max_connections=self.max_connections,
            client_name=self.client_name,
        )

    def _polled(self, kind: type[Any]) -> type[Any]:
        """Return *kind* for a connection that an event loop waits for."""
        channel = self

        class Polled(kind):
            def disconnect(self, *arguments: Any, **options: Any) -> None:
                super().disconnect(*arguments, **options)
                # Kombu does the same. A channel that is not registered yet has nothing to forget.
                if channel._registered:
                    channel._on_connection_disconnect(self)

        return Polled

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        # Kombu makes a client for each command, which takes half as long as the command. It has no state but its pool.
        if self._shared_client is None or self._shared_client.connection_pool is not self.pool:
            self._shared_client = super()._create_client()
        return self._shared_client

    def _get_client(self) -> Any:
        super()._get_client()
        return partial(_ValidatingRedis, channel=self)

    def is_readable(self, key: str, raw: bytes) -> bool:
        """Return whether a consumer can read *raw*, from the list *key*; if not, quarantine it."""
        queue = key.rsplit(self.sep, 1)[0]
        if not message_validation.is_task_queue(queue):
            return _is_reply(raw)
        fault = message_validation.fault_of(raw)
        if not fault and b'"redelivered": true' not in raw:
            return True
        with self.conn_or_acquire() as client:
            fault = fault or _crash_fault(message_validation.CrashCounter(client), raw)
            if fault:
                message_validation.quarantine(client, queue, raw, fault)
        return not fault

    def quarantine(self, message: Any, reason: str) -> None:
        """Keep the delivered *message* in the quarantine."""
        raw = _dumps(message._raw).encode()
        with self.conn_or_acquire() as client:
            message_validation.quarantine(client, str(message.delivery_info.get("routing_key")), raw, reason)

    def note_handled(self, message: Any) -> None:
        """Record that *message* was handled and this process survived it."""
        with self.conn_or_acquire() as client:
            message_validation.CrashCounter(client).end(message._raw)

    def requeue_later(self, message: Any) -> None:
        """Keep *message* until Redis accepts writes again, then return it to its queue."""
        raw = message._raw
        queue = raw["properties"]["delivery_info"]["routing_key"]
        _unrecorded.add(self._q_for_pri(queue, self._get_message_priority(raw)), _dumps(raw))

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        # Any client of Redis can publish control commands and events.
        try:
            return bool(super()._deliver_fanout_message(message, exchange))
        except (RedisError, OSError):
            raise
        except Exception:
            log.warning("unreadable broadcast message ignored", exc_info=True)
            return False


class Transport(_kombu.Transport):
    """As kombu's, with the changes that the module describes."""

    Channel = Channel

    def establish_connection(self) -> Any:
        """Connect. A Redis that accepts no writes counts as away. Raises `redis.exceptions.ConnectionError`."""
        connection = super().establish_connection()
        channel = self._avail_channels[-1]
        try:
            with channel.conn_or_acquire() as client:
                with client.pipeline(transaction=False) as pipe:
                    pipe.set(_WRITABLE, "", ex=60)
                    pipe.delete(_WRITABLE)
                    pipe.execute()
                _unrecorded.requeue(client)
        except BaseException:
            self.close_connection(connection)
            raise
        return connection


def _crash_fault(counter: message_validation.CrashCounter, raw: bytes) -> str:
    try:
        crashes = counter.begin(message_validation.read_json(raw))
    except RedisError:
        # The next steps need Redis as well, and handle an outage.
        return ""
    return (
        f"it ended its worker {counted(crashes, 'time')}" if crashes >= message_validation.MAX_CRASHES else ""
    )


def _is_reply(raw: bytes) -> bool:
    try:
        found = message_validation.read_json(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("properties"), dict)
