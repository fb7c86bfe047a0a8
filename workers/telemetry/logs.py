"""
The logs of workers and orchestrators: one line for each event, as JSON or as text.

*one format*: Celery's own lines have the same format as ours. Lines of Celery that repeat ours are left out.
*context*: a line about a job has the job's id as a field, and its batch, task and worker if there are any, also in
threads and in libraries.
*no secrets*: each text passes through `snapferry.workers.telemetry.redaction`.
*one event is one line*: control characters in texts from manifests or servers are escaped, and a line is short enough
to be written in one piece.

A JSON line is an object with ``time`` (UTC, ISO 8601), ``level``, ``message``, ``logger``, ``worker``, ``process``,
then the fields, then ``traceback``.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from types import MappingProxyType
from typing import Any, Final

from celery import current_task
from celery.utils.log import get_multiprocessing_logger
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from snapferry.stores.text.printable import printable
from snapferry.workers.settings.environment import Settings, secrets

from .redaction import Redaction

log = logging.getLogger(__name__)

# A pipe takes this many bytes in one piece, so the lines of several processes never mix.
LONGEST: Final = 4096

# A longer field is cut. A message and a traceback may fill the line.
_LONGEST_CHAIN: Final = 20
_LONGEST_FIELD: Final = 300

# INFO lines of these loggers are dropped: our own lines have more facts, or operators do not need them.
_QUIET: Final = (
    "celery.app.trace",
    "celery.worker.strategy",
    "celery.worker.consumer.mingle",
    "celery.worker.consumer.gossip",
)
# The DEBUG lines of these loggers hold the headers of signed requests.
_NEVER_BELOW_WARNING: Final = ("boto3", "botocore", "s3transfer", "urllib3")

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=_NOTHING)


def fields(**found: object) -> dict[str, object]:
    """Return the *extra* of a logging call whose line has these fields."""
    return {"fields": found}


@contextmanager
def about(**found: object) -> Iterator[None]:
    """Add these fields to every line of the block. A thread has them if it runs in a copy of the context."""
    token = _about.set({**_about.get(), **found})
    try:
        yield
    finally:
        _about.reset(token)


def configure(
    settings: Settings, *, level: int | str = logging.INFO, worker: str = "", path: str | None = None
) -> None:
    """
    Write this process's log to standard error, or to the file *path*, in the format of *settings*.

    *worker* is the name of this process in the fleet. *level* is the level if the settings have none. Handlers that
    were configured before are removed. May be repeated.
    """
    handler: logging.Handler = WatchedFileHandler(path, encoding="utf-8") if path else logging.StreamHandler()
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and (path is not None or not sys.stderr.isatty())
    )
    handler.setFormatter((JsonLines if as_json else TextLines)(worker, Redaction(secrets(settings))))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    wanted = settings.log_level.upper() if settings.log_level else level
    root.setLevel(wanted)
    for name in ("celery", "celery.task", "celery.redirected"):
        logging.getLogger(name).handlers.clear()
    # billiard's logger does not propagate.
    processes = get_multiprocessing_logger()
    processes.handlers[:] = [handler]
    processes.setLevel(max(root.level, logging.ERROR))
    for name in _QUIET:
        logging.getLogger(name).setLevel(
            max(root.level, logging.WARNING if root.level >= logging.INFO else 0)
        )
    for name in _NEVER_BELOW_WARNING:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
    logging.getLogger("celery.backends.redis").filters[:] = [_is_news]
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for Celery's traceback of a failed batch of a chord: the batch has logged its failure itself."""
    error = record.exc_info[1] if record.exc_info else None
    return type(getattr(error, "__cause__", None)).__name__ != "ObjectsFailed"


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is not SystemExit and found.exc_value is not None:
        name = found.thread.name if found.thread is not None else "?"
        log.error(
            "uncaught exception in thread %s",
            name,
            exc_info=(found.exc_type, found.exc_value, found.exc_traceback),
        )


def _is_outage(record: logging.LogRecord) -> bool:
    """Return whether *record* warns that Redis is away. Libraries add a traceback, which tells an operator nothing."""
    error = record.exc_info[1] if record.exc_info and record.levelno <= logging.WARNING else None
    seen = 0
    while error is not None and seen < _LONGEST_CHAIN:
        if isinstance(error, RedisConnectionError | RedisTimeoutError):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


class _Lines(logging.Formatter):
    def __init__(self, worker: str, redact: Redaction) -> None:
        super().__init__()
        self._worker = worker
        self._redact = redact

    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the parts of a line in their order, without secrets."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        parts: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": self._redact(_message(record)),
            "logger": record.name,
            "worker": self._worker,
            "process": record.process,
        }
        found = {**_of_task(record), **_about.get(), **getattr(record, "fields", {})}
        parts.update({name: self._plain(value) for name, value in found.items() if value not in ("", None)})
        if _is_outage(record):
            parts["error"] = self._plain(record.exc_info[1] if record.exc_info else "")
        elif record.exc_info:
            parts["traceback"] = self._redact.end_of(self.formatException(record.exc_info))
        elif record.exc_text:
            parts["traceback"] = self._redact.end_of(record.exc_text)
        return parts

    def _plain(self, value: object) -> Any:
        if isinstance(value, bool | int | float):
            return value
        if isinstance(value, tuple | list):
            return [self._plain(part) for part in value[:10]]
        text = self._redact(str(value))
        return text if len(text) <= _LONGEST_FIELD else text[:_LONGEST_FIELD] + "…"


class JsonLines(_Lines):
    """A log record as one line of JSON, of ASCII characters, at most `LONGEST` bytes with its end."""

    def format(self, record: logging.LogRecord) -> str:
        return _fitted(self.parts(record), lambda parts: json.dumps(parts, separators=(",", ":")))


class TextLines(_Lines):
    """A log record as text: one line, and below it the lines of a traceback, marked so that they are no records."""

    def format(self, record: logging.LogRecord) -> str:
        return _fitted(self.parts(record), _as_text)


def _as_text(parts: Mapping[str, Any]) -> str:
    shown = {**parts}
    time, level, message = (shown.pop(name) for name in ("time", "level", "message"))
    trace = shown.pop("traceback", "")
    for name in ("logger", "process", "worker"):
        shown.pop(name)
    rest = " ".join(f"{name}={_word(value)}" for name, value in shown.items())
    lines = [printable(f"{time} {level:<8} {message}{'  ' if rest else ''}{rest}")]
    lines += ["    | " + printable(line) for line in trace.splitlines()]
    return "\n".join(lines)


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text) if " " in text or not text else text


def _fitted(parts: dict[str, Any], written: Callable[[dict[str, Any]], str]) -> str:
    """Return a line that is short enough: the longest part is halved until it is, a traceback from its top."""
    while True:
        line = written(parts)
        if len(line.encode(errors="backslashreplace")) < LONGEST:
            return line
        name = max(parts, key=lambda name: len(json.dumps(parts[name])))
        value = parts[name] if isinstance(parts[name], str) else json.dumps(parts[name])
        half = len(value) // 2
        parts[name] = "…" + value[len(value) - half :] if name == "traceback" else value[:half] + "…"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a library's wrong arguments must not lose the line
        return str(record.msg)


def _of_task(record: logging.LogRecord) -> dict[str, object]:
    """Return the job and the task of a line: of the running task, or of the task that Celery's line is about."""
    # Only a worker has it loaded, and only a worker runs tasks.
    from celery.worker import state

    request: Any = getattr(current_task, "request", None) if current_task else None
    data = getattr(record, "data", None)
    if request is None and isinstance(data, dict):
        request = state.requests.get(data.get("id"))
    if request is None or not request.id:
        return {}
    # The id of the task that plans a job is the job's id, and this task is the root of all others.
    ours = str(getattr(request, "task", None) or getattr(request, "name", "")).startswith("snapferry.")
    return {"job": request.root_id if ours else None, "task": request.id}
