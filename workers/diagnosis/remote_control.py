"""
The remote control commands of Celery that a worker answers for `doctor`.

A worker answers ``snapferry_facts`` at once. For ``snapferry_look`` it starts a process that checks the stores of a
copy, and continues its work. When the process has ended, the worker writes the findings to Redis.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import secrets
import socket
import threading
import time
from importlib.metadata import version
from typing import Any, Final
from weakref import WeakKeyDictionary

import celery
from celery import Celery, signals

from snapferry.stores.access import AccessPolicy
from snapferry.workers.broker.connection import client
from snapferry.workers.messages import VERSION
from snapferry.workers.settings.environment import Settings

from .store_check import Check, CheckProcess, to_document

log = logging.getLogger(__name__)

FACTS: Final = "snapferry_facts"
LOOK: Final = "snapferry_look"

# The settings that must be the same on all machines of a fleet.
FLEET_WIDE: Final = ("visibility_timeout", "job_expires")

# Seconds after which an unread answer expires.
ANSWER_EXPIRES_S: Final = 120

_is_answer_key = re.compile(r"snapferry:doctor:[0-9a-f]{32}").fullmatch

# Containers may share the name of their machine as well as the number of their process.
_INSTANCE: Final = secrets.token_hex(8)

_settings: WeakKeyDictionary[Celery, tuple[Settings, AccessPolicy]] = WeakKeyDictionary()
_checking = threading.Lock()


def versions() -> dict[str, str]:
    """Return the versions of snapferry, its messages, Celery and Python."""
    return {
        "snapferry": version("snapferry"),
        "messages": str(VERSION),
        "celery": celery.__version__,
        "python": platform.python_version(),
    }


def fleet_wide(settings: Settings) -> dict[str, int]:
    """Return the settings that must be the same on all machines."""
    return {name: getattr(settings, name) for name in FLEET_WIDE}


def register(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Let workers of *app* answer, and check the stores that *access* allows. Connects to nothing."""
    _settings[app] = settings, access

    def answer(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            # Clients of the fleet register, too, and do without Celery's worker.
            from celery.worker.control import inspect_command

            # Celery keeps commands by name, for the whole process. Registering them again changes nothing.
            inspect_command(name=FACTS, visible=True)(facts)
            inspect_command(name=LOOK, visible=False)(check_stores)

    signals.worker_init.connect(answer, weak=False)


def facts(state: Any, **_: Any) -> dict[str, Any]:
    """
    Return the versions, queues, fleet-wide settings and the time of this worker.

    ``unlimited`` has the rights that the worker allows at every store. ``process`` tells apart processes that share the
    name of a node.
    """
    settings, access = _settings[state.app]
    consumer = state.consumer.task_consumer
    return {
        "versions": versions(),
        "settings": fleet_wide(settings),
        "queues": sorted(queue.name for queue in consumer.queues) if consumer else [],
        "unlimited": list(access.unlimited),
        "process": {"instance": _INSTANCE, "machine": socket.gethostname(), "pid": os.getpid()},
        "time": time.time(),
    }


def check_stores(state: Any, check: str, answer_to: str, **_: Any) -> dict[str, str]:
    """
    Start a check of stores. The answer goes to the list *answer_to* in Redis. Only one check runs at a time.

    *check* is a `Check` as JSON.
    """
    if not _is_answer_key(answer_to):
        return {"error": "not a key for an answer", "instance": _INSTANCE}
    if not _checking.acquire(blocking=False):
        return {"error": "it is checking stores for another command", "instance": _INSTANCE}
    try:
        settings, access = _settings[state.app]
        process = CheckProcess(Check.read(check), access)
        broker_url = settings.broker_url or ""
        arguments = (process, state.hostname, broker_url, answer_to)
        threading.Thread(target=_answer, args=arguments, name="check-stores", daemon=True).start()
    except BaseException:
        _checking.release()
        raise
    return {"ok": "looking", "instance": _INSTANCE}


def _answer(process: CheckProcess, node: str, broker_url: str, answer_to: str) -> None:
    try:
        document = {
            "node": node,
            "instance": _INSTANCE,
            "found": [to_document(found) for found in process.end()],
        }
        with client(broker_url).pipeline(transaction=True) as pipe:
            pipe.rpush(answer_to, json.dumps(document))
            pipe.expire(answer_to, ANSWER_EXPIRES_S)
            pipe.execute()
    except Exception:
        log.exception("store check not reported")
    finally:
        _checking.release()
