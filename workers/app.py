"""
The Celery app: every setting with its reason.

Importing this module connects to nothing and reads nothing. `snapferry.worker` makes the app from the environment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote, urlsplit

import celery
from celery import Celery, signals
from celery.utils.log import mlevel
from celery.utils.nodenames import node_format

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.runtime.bounds import set_bounds

from .broker import transport, upgrade
from .broker.connection import BrokerUnavailable, wait_for_broker
from .broker.job_celery import JobCelery
from .broker.open_ledger import open_ledger
from .copying import tasks
from .diagnosis import remote_control
from .lifecycle import garbage, process_setup, rate_limited_tasks, shutdown
from .queues import COPY_QUEUE, PLAN_QUEUE, STEPS
from .reachability import parking_thread
from .settings.access import access_policy
from .settings.broker_url import BrokerURL, parse, shown
from .settings.directory_rules import apply_to_directories
from .settings.environment import InvalidSettings, Settings
from .telemetry import logs

log = logging.getLogger(__name__)

# The header of a message with the time when it was queued, in seconds since the epoch.
SENT_AT: Final = "snapferry_sent_at"

OLDEST_CELERY: Final = (5, 7)

_BACKEND: Final = "snapferry.workers.broker.result_backend:PatientRedisBackend"


def make_app(settings: Settings, access: AccessPolicy = STRICT, *, serves: bool = True) -> Celery:
    """
    Return a Celery app with the worker's tasks, which open the stores that *access* allows. Connects to nothing.

    An app that does not *serve* only queues tasks. It may be made any number of times, and in a process in which
    another Celery application runs. Raises `InvalidSettings` without a broker, and with a Celery before 5.7, which can
    call a chord back before all of its parts have finished.
    """
    installed = tuple(int(part) for part in celery.__version__.split(".")[:2])
    if installed < OLDEST_CELERY:
        raise InvalidSettings(
            f"Celery {celery.__version__} can call a chord back before all its parts have finished;"
            " install Celery 5.7 or later"
        )
    if settings.broker_url is None:
        raise InvalidSettings(
            "no broker: set SNAPFERRY_BROKER_URL or --broker, for example to redis://host:6379/0"
        )
    process_setup.set_up_process()
    transport.install()
    set_bounds(settings.bounds)
    apply_to_directories(settings)
    app = JobCelery("snapferry", set_as_current=False)
    app.conf.update(_configuration(settings, settings.broker_url))
    app.Task.Request = "snapferry.workers.broker.task_request:JobRequest"
    tasks.register(app, settings, access)
    signals.before_task_publish.connect(_add_sent_at, dispatch_uid=SENT_AT)
    if serves:
        _serve(app, settings, access)
    return app


def _serve(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Let workers of *app* run the tasks. Signals of Celery are those of the process, and keep their receivers."""
    assert settings.broker_url is not None
    rate_limited_tasks.attach(app, settings)
    parking_thread.attach(app, settings, access)
    remote_control.register(app, settings, access)
    _attach_logging(app, settings, settings.broker_url, access)
    _attach_broker_wait(app, settings.broker_url)
    _attach_result_backend(app)
    upgrade.attach(app, settings)
    _attach_shutdown(app, settings)
    garbage.attach()


def app_from_environment(make: Callable[[Settings, AccessPolicy], Celery], role: str) -> Celery:
    """Return the app that *make* builds from the environment of *role*. Ends the process if a setting is invalid."""
    try:
        settings = Settings.from_environment()
        return make(settings, access_policy(settings, role))
    except InvalidSettings as error:
        raise SystemExit(f"snapferry: {error}") from None


def _configuration(settings: Settings, url: str) -> dict[str, Any]:
    broker = parse(url)
    return {
        # The transport and the result backend connect by the `BrokerURL` in the options. Celery shows these.
        "broker_url": _shown_url(broker),
        "result_backend": f"{_BACKEND}+redis://{urlsplit(_shown_url(broker)).netloc or 'socket'}/{broker.database}",
        # A killed worker must not lose its batch: acknowledge after the work, and requeue the batch when a child
        # process of the worker dies.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # The ledger is the record. Storing results would also leave a gap in which the part of a killed child is
        # acknowledged but never counted, and the chord waits forever.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": True,
        # With deduplication, a redelivered part is skipped without being counted, and the chord waits forever.
        "worker_deduplicate_successful_tasks": False,
        # The visibility timeout runs from delivery, so a worker must not reserve messages that it cannot start.
        "worker_prefetch_multiplier": 1,
        "broker_transport_options": {
            # Every worker applies its own value to all messages, so the whole fleet needs the same value.
            "visibility_timeout": settings.visibility_timeout,
            # Look for messages of dead workers every 10 s; with the defaults it is every 100 s.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "priority_steps": list(STEPS),
            **transport.OPTIONS,
            transport.BROKER: broker,
        },
        # Several Celery applications may share a database; none may shut down the workers of another.
        **transport.NAMES,
        # With Celery's own consumer, a malformed message ends the process.
        "worker_consumer": "snapferry.workers.broker.consumer:GuardedConsumer",
        # A chord whose keys expire while one of its parts runs or is queued never calls back.
        "result_expires": 7 * 86400,
        "result_chord_expires": 30 * 86400,
        # Wait for a broker that is away, at the start and later. The default gives up after 100 tries.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A Redis that refuses commands for a while must not end the process.
        "broker_channel_error_retry": True,
        # A client that can write to the queue must not be able to run code: no pickle.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # Flower needs events, and shows queued tasks only with sent events.
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        # While the broker is away, publishing waits about two minutes for each message.
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
            "snapferry.copy_parts": {"queue": COPY_QUEUE},
            "snapferry.plan_job": {"queue": PLAN_QUEUE},
            "snapferry.commit_snapshots": {"queue": PLAN_QUEUE},
            "snapferry.look_after_job": {"queue": PLAN_QUEUE},
            "snapferry.run_mirror": {"queue": PLAN_QUEUE},
            "snapferry.run_scrub": {"queue": PLAN_QUEUE},
        },
        "enable_utc": True,
        "timezone": "UTC",
    }


def _shown_url(broker: BrokerURL) -> str:
    """Return a URL for Celery's log lines, in its own form, without secrets. Of several sentinels it has the first."""
    if broker.scheme == "unix":
        return f"redis+socket://{quote(broker.path)}?virtual_host={broker.database}"
    host, port = broker.hosts[0]
    return f"{broker.scheme}://{f'[{host}]' if ':' in host else host}:{port}/{broker.database}"


def _add_sent_at(sender: object = None, headers: dict[str, Any] | None = None, **_: Any) -> None:
    # Another Celery application of this process has other names.
    if headers is not None and str(sender).startswith("snapferry."):
        headers[SENT_AT] = time.time()


def _attach_logging(app: Celery, settings: Settings, url: str, access: AccessPolicy) -> None:
    """Let workers of *app* write their log in the format of the settings, and nothing else."""

    def begin(
        sender: Any = None, instance: Any = None, options: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if instance.app is not app:
            return
        # The line logged below replaces Celery's banner.
        instance.quiet = True

        def configure(loglevel: int | str | None, logfile: str | None = None, **_: Any) -> None:
            logs.configure(
                settings,
                level=mlevel(loglevel) or logging.WARNING,
                worker=instance.hostname,
                path=node_format(logfile, instance.hostname) if logfile else None,
            )

        signals.setup_logging.connect(configure, weak=False, dispatch_uid=id(app))
        # Celery logs before it sends that signal.
        configure((options or {}).get("loglevel"), (options or {}).get("logfile"))

    def started(sender: Any = None, instance: Any = None, **_: Any) -> None:
        # Reading the version imports `importlib.metadata`.
        if instance.app is app and log.isEnabledFor(logging.INFO):
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
                    "no allow-list of stores: anyone who can submit a job decides where this node reads and writes;"
                    " set read and write in [access], see docs/security.md",
                    extra=logs.fields(unlimited=list(access.unlimited)),
                )

    signals.celeryd_init.connect(begin, weak=False)
    signals.celeryd_after_setup.connect(started, weak=False)


def _attach_shutdown(app: Celery, settings: Settings) -> None:
    def revoke_lease(job_id: str, name: str, worker: str) -> None:
        open_ledger(settings, retries=0).revoke_lease(job_id, name, worker)

    shutdown.attach(app, settings.grace, revoke_lease)


def _attach_result_backend(app: Celery) -> None:
    """Let workers of *app* import the result backend before they fork processes and start threads."""

    def load(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            # Celery imports it by name where it is first needed. While a thread does so, a process that is forked
            # inherits the lock of that import, and waits for it for ever. Clients do without it.
            from snapferry.workers.broker import result_backend  # noqa: F401

    signals.worker_init.connect(load, weak=False)


def _attach_broker_wait(app: Celery, url: str) -> None:
    """Let workers of *app* wait at the start for a broker that is away, and end if it must not be used."""

    def wait(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            try:
                wait_for_broker(url, log.warning)
            except BrokerUnavailable as error:
                raise SystemExit(f"snapferry: {error}") from None

    signals.worker_init.connect(wait, weak=False)
