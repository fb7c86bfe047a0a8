"""One form of log lines: what is in them, what never is, and what nobody can put into them."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from botocore.exceptions import ClientError
from celery import Celery
from celery._state import _task_stack
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.hashing import digest
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry import logs
from snapferry.workers.telemetry.logs import LONGEST, about, fields
from snapferry.workers.telemetry.redaction import HIDDEN, Redaction

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
PASSWORD = "correct/horse@battery"

log = logging.getLogger("workers.something")


class Written:
    """What was logged since."""

    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(params=["json"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """The log of this process, in the form that the test asks for; all as before afterwards."""
    names = ["", "celery", "multiprocessing", *logs._QUIET, *logs._NEVER_BELOW_WARNING]
    before = [(name, logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names]
    hooks = sys.excepthook, threading.excepthook
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    settings = Settings(broker_url="redis://:correct%2Fhorse%40battery@host/0", log_format=request.param)
    logs.configure(settings, level="INFO", worker="worker@here")
    yield Written(stream)
    logging.captureWarnings(capture=False)
    sys.excepthook, threading.excepthook = hooks
    for name, handlers, level in before:
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).setLevel(level)


text = pytest.mark.parametrize("written", ["text"], indirect=True)
both = pytest.mark.parametrize("written", ["json", "text"], indirect=True)


def test_a_line_is_an_object_with_time_level_message_and_whose_it_is(written: Written) -> None:
    with about(job="7f3a", batch="plan:12"):
        log.warning("retries in %d s", 4, extra=fields(attempt=2, store="file:///a", nothing=None))

    (line,) = written.lines
    assert list(line)[:6] == ["time", "level", "message", "logger", "worker", "process"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert abs((datetime.fromisoformat(line["time"]) - datetime.now(UTC)).total_seconds()) < 60
    del line["time"], line["process"]
    assert line == {
        "level": "warning", "message": "retries in 4 s", "logger": "workers.something", "worker": "worker@here",
        "job": "7f3a", "batch": "plan:12", "attempt": 2, "store": "file:///a",
    }  # fmt: skip


def test_the_fields_of_a_block_go_into_threads_with_their_context_and_end_with_the_block(
    written: Written,
) -> None:
    with about(job="7f3a"):
        thread = threading.Thread(target=copy_context().run, args=(log.info, "inside"))
        thread.start()
        thread.join()
    log.info("outside")

    inside, outside = written.lines
    assert inside["job"] == "7f3a"
    assert "job" not in outside


def test_a_task_of_celery_says_whose_it_is_wherever_it_logs(written: Written) -> None:
    app = Celery("here", set_as_current=False)

    @app.task(shared=False, name="snapferry.copy_batch", bind=True)
    def copy(self: Any) -> None:
        logging.getLogger("a.library").warning("slow")

    # As Celery does around a task that it runs.
    _task_stack.push(copy)
    copy.push_request(id="the task", root_id="the job", called_directly=False, task="snapferry.copy_batch")
    try:
        copy.run()
    finally:
        copy.pop_request()
        _task_stack.pop()

    assert [(line["job"], line["task"]) for line in written.lines] == [("the job", "the task")]


def test_what_celery_says_of_every_task_is_left_out_and_its_warnings_are_not(written: Written) -> None:
    for name in ("celery.app.trace", "celery.worker.strategy"):
        logging.getLogger(name).info("Task received")
        logging.getLogger(name).warning("Task trouble")
    logging.getLogger("botocore.auth").debug("Authorization: %s", SECRET)

    assert [line["message"] for line in written.lines] == ["Task trouble", "Task trouble"]


@both
def test_hostile_text_forges_no_line(written: Written) -> None:
    path = 'a\n{"level":"info","message":"job done"}\r\x1b[2K\x1b[1Ajob done\u2028\u202e\udcff\x00'
    with about(store=path):
        log.error("cannot read %s", path, extra=fields(object=path))
        try:
            raise ValueError(path)
        except ValueError:
            log.exception("surprise: %s", path)

    assert all(character.isprintable() or character == "\n" for character in written.text)
    assert "\\x1b" in written.text or "\\u001b" in written.text
    for line in written.text.splitlines():
        assert line.startswith(('{"time":"2', "2", "    | ")), line
    heads = [line for line in written.text.splitlines() if not line.startswith("    | ")]
    assert len(heads) == 2


def redis_trouble() -> None:
    raise redis.ConnectionError(f"Error 111 connecting to redis://:{PASSWORD}@host:6379/0.")


def s3_trouble() -> None:
    headers = {
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20260101/us-east-1/s3/aws4_request,"
        " SignedHeaders=host, Signature=fe5f80f77d5fa3beca038a248ff027d0445342fe2855ddc963176630326f1024",
        "x-amz-security-token": "FwoGZXIvYXdzEXAMPLETOKEN",
    }
    raise ClientError(
        {"Error": {"Code": "403", "Message": f"cannot sign with {SECRET}: {headers}"}}, "GetObject"
    )


def url_trouble() -> None:
    raise OSError(
        "GET https://user:hunter2@host/b/k?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F2026"
        "&X-Amz-Signature=fe5f80f77d failed"
    )


def config_trouble() -> None:
    raise KeyError("[default]\naws_secret_access_key = abcdefghijklmnop\npassword: hunter2\n")


@both
@pytest.mark.parametrize("trouble", [redis_trouble, s3_trouble, url_trouble, config_trouble])
def test_the_traceback_of_a_real_error_has_no_secret_in_it(written: Written, trouble: Any) -> None:
    try:
        try:
            trouble()
        except Exception as error:
            raise RuntimeError(f"while copying: {error}") from error
    except RuntimeError as error:
        log.exception("unexpected", extra=fields(error=str(error)))

    assert "RuntimeError: while copying" in written.text
    assert trouble.__name__ in written.text, "the traceback is there"
    assert HIDDEN in written.text
    for secret in (SECRET, PASSWORD, "hunter2", "AKIA", "fe5f80f77d", "FwoGZXIv", "abcdefghijklmnop"):
        assert secret not in written.text.replace("\\/", "/")


@both
def test_a_warning_that_redis_is_away_is_a_line_without_a_traceback(written: Written) -> None:
    """As kombu logs it, which adds the traceback of its connection."""
    away = redis.ConnectionError(f"Error 104 while reading from redis://:{PASSWORD}@host")
    try:
        raise OSError("no connection") from away
    except OSError:
        logging.getLogger("kombu.mixins").warning("broker connection error", exc_info=True)

    assert "broker connection error" in written.text
    assert "Traceback" not in written.text
    assert "no connection" in written.text
    assert PASSWORD not in written.text


@both
def test_other_warnings_keep_their_traceback(written: Written) -> None:
    try:
        raise OSError("no connection")
    except OSError:
        logging.getLogger("kombu.mixins").warning("broker connection error", exc_info=True)

    assert "Traceback" in written.text


def test_what_ends_a_process_or_a_thread_unexpectedly_is_a_line_too(written: Written) -> None:
    thread = threading.Thread(target=redis_trouble, name="copy-3")
    thread.start()
    thread.join()
    try:
        s3_trouble()
    except ClientError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    first, second = written.lines
    assert first["message"] == "uncaught exception in thread copy-3"
    assert "ConnectionError" in first["traceback"]
    assert (second["level"], "ClientError" in second["traceback"]) == ("critical", True)


@both
def test_a_line_is_written_in_one_piece_however_much_there_is_to_say(written: Written) -> None:
    try:
        raise ValueError("ä" * 100_000)
    except ValueError:
        log.exception("m" * 100_000, extra=fields(object="o" * 100_000, snapshots=["\n" * 5000] * 1000))

    assert len(written.text.encode()) <= LONGEST
    assert "m" * 100 in written.text


def test_the_end_of_a_long_traceback_is_kept(written: Written) -> None:
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        # Several lines that differ, which Python does not fold.
        raise ValueError("the reason")

    for depth in (1, 2):
        try:
            deep(depth)
        except ValueError:
            log.exception("x" * 6000)
    assert all(line["traceback"].endswith("ValueError: the reason") for line in written.lines)


def test_a_faulty_call_costs_no_line() -> None:
    record = logging.makeLogRecord({"msg": "%d objects", "args": ("many",)})

    assert json.loads(logs.JsonLines("worker@here", Redaction()).format(record))["message"] == "%d objects"


@text
def test_people_get_a_line_with_what_there_is_to_know(written: Written) -> None:
    with about(job="7f3a"):
        log.warning("retries", extra=fields(store="file:///a b", seconds=1.5))

    assert written.text.partition(" ")[2] == 'warning  retries  job=7f3a store="file:///a b" seconds=1.5\n'


@pytest.mark.parametrize(
    ("is_terminal", "path", "as_json"), [(True, False, False), (False, False, True), (True, True, True)]
)
def test_auto_is_text_on_a_terminal_alone(
    written: Written,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    is_terminal: bool,
    path: bool,
    as_json: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", written.stream)
    monkeypatch.setattr(written.stream, "isatty", lambda: is_terminal)
    file = tmp_path / "log"
    logs.configure(Settings(), path=str(file) if path else None)
    log.info("said")
    logging.getLogger().handlers[0].close()

    assert (file.read_text() if path else written.text).startswith("{") is as_json


@given(st.text())
def test_addresses_and_ordinary_words_are_left_alone(words: str) -> None:
    redact = Redaction([SECRET])
    address = digest(words.encode())

    assert redact(
        f"file:///a/{address}: 3 objects at s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000"
    ) == (f"file:///a/{address}: 3 objects at s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000")
    assert SECRET not in redact(words + SECRET + words)
