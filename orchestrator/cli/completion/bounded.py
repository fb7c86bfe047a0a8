"""An answer from a child process, in limited time: whatever hangs, hangs there, and is killed."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

# Ends an answer that is whole.
_END: Final = b"\0"

# A longer answer is of no use to a person.
MOST_BYTES: Final = 4 * 1024 * 1024

# If this process is killed, its child ends by itself so many seconds after its time.
_SPARE_S: Final = 1.0


def answer_within(seconds: float, answer: Callable[[], str]) -> str:
    """
    Return what *answer* returns, without NUL; "" if it raises, takes longer than *seconds*, or returns too much.

    It runs in a child process without a terminal and with /dev/null as its standard streams. That process, and what it
    started, is gone or killed when this function returns or raises. May be repeated.
    """
    reader, writer = os.pipe()
    deadline = time.monotonic() + seconds
    child = os.fork()
    if child == 0:
        _run(answer, writer, seconds)
    try:
        os.close(writer)
        found = _read(reader, deadline)
    finally:
        os.close(reader)
        _kill(child)
    return found[: -len(_END)].decode(errors="replace") if found.endswith(_END) else ""


def _read(reader: int, deadline: float) -> bytes:
    found = bytearray()
    while len(found) <= MOST_BYTES and (left := deadline - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        chunk = os.read(reader, 65536)
        if not chunk:
            break
        found += chunk
    return bytes(found) if len(found) <= MOST_BYTES else b""


def _kill(child: int) -> None:
    # A child that has not begun to run has no session of its own yet.
    for kill in (os.killpg, os.kill):
        with suppress(OSError):
            kill(child, signal.SIGKILL)
    with suppress(OSError):
        # A process that waits for a dead file server cannot end, and is not waited for.
        os.waitpid(child, os.WNOHANG)


def _run(answer: Callable[[], str], writer: int, seconds: float) -> NoReturn:
    """Write the answer; never return. Whatever happens here ends this process alone."""
    with suppress(BaseException):
        # A program that an AWS profile names must not ask a person for a password.
        os.setsid()
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + _SPARE_S)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        data = answer().encode() + _END
        while data:
            data = data[os.write(writer, data) :]
    os._exit(0)
