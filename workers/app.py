"""
The Celery app: every setting with its reason.

Importing this module connects to nothing and reads nothing. `snapferry.worker` makes the app from the environment.
"""

from __future__ import annotations

import gc
import logging
import time
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

import celery
from celery import Celery, signals
from celery.utils.log import mlevel
from celery.utils.nodenames import node_format

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.runtime.bounds import set_bounds

from .broker import transport, upgrade
from .broker.connection import (
    ANSWER_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    BrokerUnavailable,
    shown,
    wait_for_broker,
)
from .broker.open_ledger import open_ledger
from .copying import tasks
from .diagnosis import remote_control
from .lifecycle import process_setup, rate_limited_tasks, shutdown
from .queues import COPY_QUEUE, PLAN_QUEUE, STEPS
from .reachability import parking
from .settings.directory_rules import apply_to_directories
from .settings.environment import InvalidSettings, Settings
from .telemetry import logs

log = logging.getLogger(__name__)

# The header of a message that says when it was queued, in seconds since the epoch.
SENT_AT: Final = "snapferry_sent_at"

OLDEST_CELERY: Final = (5, 7)

_BACKEND: Final = "snapferry.workers.broker.result_backend:PatientRedisBackend"


def make_app(settings: Settings, access: AccessPolicy = STRICT) -> Celery:
    """
    Return a Celery app for *settings*, with the worker's tasks, which open what *access* allows. Connects to nothing.

    Raises `InvalidSettings` without a broker, and with a Celery that can call
    a chord back before all of its parts are done (anything before 5.7).
    """
    found = tuple(int(part) for part in celery.__version__.split(".")[:2])
    if found < OLDEST_CELERY:
        raise InvalidSettings(
            f"Celery {celery.__version__} can call a chord back before all its parts are done; 5.7 or later is needed"
        )
    if settings.broker_url is None:
        raise InvalidSettings(
            "no broker: set SNAPFERRY_BROKER_URL, or give --broker, as in redis://host:6379/0"
        )
    process_setup.set_up_process()
    transport.install()
    set_bounds(settings.bounds)
    apply_to_directories(settings)
    app = Celery("snapferry", set_as_current=False)
    app.conf.update(_configuration(settings, settings.broker_url))
    app.Task.Request = "snapferry.workers.broker.task_request:OfAJob"
    tasks.register(app, settings, access)
    rate_limited_tasks.attach(app, settings)
    parking.attach(app, settings, access)
    remote_control.register(app, settings, access)
    signals.before_task_publish.connect(_say_when, dispatch_uid=SENT_AT)
    _log_as_set(app, settings, settings.broker_url, access)
    _wait_for_broker(app, settings.broker_url)
    upgrade.attach(app, settings)
    _attach_shutdown(app, settings)
    signals.worker_before_create_process.connect(_share_memory, weak=False)
    return app


def _configuration(settings: Settings, url: str) -> dict[str, Any]:
    return {
        "broker_url": _celery_url(url),
        "result_backend": f"{_BACKEND}+{_celery_url(url).removeprefix('redis+')}",
        # A worker that is killed must not take its batch with it: acknowledge after the work, and hand
        # the batch out again when a child process of the worker dies.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # The ledger is the record. Not storing results also closes a gap in which a killed child's part
        # is acknowledged but never counted, and the chord waits for ever.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": True,
        # With deduplication a redelivered part is skipped without being counted: the chord waits for ever.
        "worker_deduplicate_successful_tasks": False,
        # The visibility timeout runs from delivery, so a worker must not sit on messages it has not begun.
        "worker_prefetch_multiplier": 1,
        "broker_transport_options": {
            # Every worker applies its own value to all messages: one value for the whole fleet.
            "visibility_timeout": settings.visibility_timeout,
            # Look for messages of dead workers every 10 s; the default comes to 100 s.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "priority_steps": list(STEPS),
            **transport.OPTIONS,
        },
        # Several Celery applications may share a database: none of them shuts down the workers of another.
        **transport.NAMES,
        # No message can end the consumer.
        "worker_consumer": "snapferry.workers.broker.consumer:GuardedConsumer",
        "redis_socket_timeout": ANSWER_TIMEOUT_S,
        "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
        "redis_backend_health_check_interval": 25,
        # A chord whose keys expire while a part of it runs or waits in the queue is never called back.
        "result_expires": 7 * 86400,
        "result_chord_expires": 30 * 86400,
        # A broker that is away is waited for, at start and later; the default gives up after 100 tries.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A refusal of Redis is no reason to end the process either.
        "broker_channel_error_retry": True,
        # Whoever can write to the queue must not be able to run code by it.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # Flower lives on events, and sees waiting tasks only if they were announced.
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        # Queueing a job's batches waits for a broker that is away, about two minutes for each message.
        "task_publish_retry_policy": {
            "max_retries": 30,
            "interval_start": 0.2,
            "interval_step": 0.5,
            "interval_max": 5,
        },
        "worker_hijack_root_logger": True,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "task_default_queue": COPY_QUEUE,
        "task_routes": {
            "snapferry.copy_batch": {"queue": COPY_QUEUE},
            "snapferry.plan_job": {"queue": PLAN_QUEUE},
            "snapferry.commit_snapshots": {"queue": PLAN_QUEUE},
            "snapferry.look_after_job": {"queue": PLAN_QUEUE},
            "snapferry.run_mirror": {"queue": PLAN_QUEUE},
        },
        "enable_utc": True,
        "timezone": "UTC",
    }


def _celery_url(url: str) -> str:
    """Return *url* as Celery spells it: a unix socket is ``redis+socket://path?virtual_host=N``."""
    if not url.startswith("unix://"):
        return url
    parts = urlsplit(url)
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{quote(unquote(parts.path))}?virtual_host={database}"


def _say_when(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is not None:
        headers[SENT_AT] = time.time()


def _log_as_set(app: Celery, settings: Settings, url: str, access: AccessPolicy) -> None:
    """Let workers of *app* write their log in one form, and nothing beside it."""

    def begin(
        sender: Any = None, instance: Any = None, options: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if instance.app is not app:
            return
        # The line below says what Celery's banner does, in the form of the log.
        instance.quiet = True

        def configure(loglevel: int | str | None, logfile: str | None = None, **_: Any) -> None:
            logs.configure(
                settings,
                level=mlevel(loglevel) or logging.WARNING,
                worker=instance.hostname,
                path=node_format(logfile, instance.hostname) if logfile else None,
            )

        signals.setup_logging.connect(configure, weak=False, dispatch_uid=id(app))
        # Celery has things to say before it asks for that.
        configure((options or {}).get("loglevel"), (options or {}).get("logfile"))

    def started(sender: Any = None, instance: Any = None, **_: Any) -> None:
        if instance.app is app:
            log.info(
                "%s starts",
                instance.hostname,
                extra=logs.fields(
                    version=version("snapferry"),
                    celery=celery.__version__,
                    broker=shown(url),
                    queues=sorted(app.amqp.queues.consume_from),
                    concurrency=instance.concurrency,
                    grace_s=settings.grace,
                ),
            )
            if access.unlimited and not access.trusts_urls:
                log.warning(
                    "no allow-list of stores: whoever can submit a job chooses where this node reads and writes;"
                    " set read and write of [access], see docs/security.md",
                    extra=logs.fields(unlimited=list(access.unlimited)),
                )

    signals.celeryd_init.connect(begin, weak=False)
    signals.celeryd_after_setup.connect(started, weak=False)


def _share_memory(**_: Any) -> None:
    # Else the collector goes through all that a forked process shares with this one, and copies it on the way.
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def _attach_shutdown(app: Celery, settings: Settings) -> None:
    def revoke_lease(job_id: str, name: str, worker: str) -> None:
        open_ledger(settings, retries=0).revoke_lease(job_id, name, worker)

    shutdown.attach(app, settings.grace, revoke_lease)


def _wait_for_broker(app: Celery, url: str) -> None:
    """Let workers of *app* wait for a broker that is away when they start, and end where it must not be used."""

    def wait(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            try:
                wait_for_broker(url, log.warning)
            except BrokerUnavailable as error:
                raise SystemExit(f"snapferry: {error}") from None

    signals.worker_init.connect(wait, weak=False)
