"""A clock that is wrong in one process: in what Python asks of it, and in the requests that boto3 signs."""

from __future__ import annotations

from typing import Final

SKEWED_CLOCK: Final = """
import time
from datetime import timedelta
import botocore.auth
now, since, current = time.time, time.monotonic, botocore.auth.get_current_datetime
shift = [0.0, -1.0]
def skew():
    if since() - shift[1] > 0.1:
        try:
            with open({file!r}) as file:
                shift[0] = float(file.read() or 0)
        except OSError:
            shift[0] = 0.0
        shift[1] = since()
    return shift[0]
def set_clock(path, seconds):
    with open(path, "w") as file:
        file.write(str(seconds))
    shift[1] = -1.0
time.time = lambda: now() + skew()
botocore.auth.get_current_datetime = lambda *a, **k: current(*a, **k) + timedelta(seconds=skew())
"""
"""
Python that a process runs first: its clock is wrong by as many seconds as *file* says. A wrong *file* is read again
after 0.1 s, or at once by `set_clock`.
"""
