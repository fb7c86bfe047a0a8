"""What a process sets for itself when it starts: the limit of open files, how threads start, warnings of Python."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from contextlib import suppress
from typing import Any, Final

from . import thread_start

log = logging.getLogger(__name__)

# An object in flight has a file or a connection at each side, and perhaps the directories on the way to it.
_FILES_PER_OBJECT: Final = 4

# Other open files of a process: modules, logs, Redis, pipes to its children.
_OTHER_FILES: Final = 96

# More files than this are of no use, and some systems have no limit.
_MAX_FILES: Final = 1_048_576


def set_up_process() -> None:
    """
    Raise the limit of open files to the allowed maximum. Let no warning of a library end the process, and no thread
    that cannot begin stop it. May be called again.
    """
    thread_start.install()
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if any(option.startswith("error") for option in sys.warnoptions):
        # PYTHONWARNINGS=error is for tests. Celery warns about settings that are intended here.
        filters: Any = warnings.filters
        filters[:] = [("default" if action == "error" else action, *rest) for action, *rest in filters]


def max_in_flight() -> int:
    """Return how many objects this process can have in flight within its limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MAX_FILES
    return max(1, (soft - _OTHER_FILES) // _FILES_PER_OBJECT)


def limited_by_open_files(wanted: int) -> int:
    """Return *wanted* objects in flight, or fewer if the limit of open files requires it; log that."""
    allowed = max_in_flight()
    if wanted <= allowed:
        return wanted
    log.warning(
        "concurrency reduced from %d to %d objects: the limit of open files is too low (ulimit -n)",
        wanted,
        allowed,
    )
    return allowed
