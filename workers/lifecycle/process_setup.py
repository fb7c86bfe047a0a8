"""What a process of this project sets for itself when it starts: open files, and warnings of Python."""

from __future__ import annotations

import logging
import resource
import sys
import warnings
from contextlib import suppress
from typing import Any, Final

log = logging.getLogger(__name__)

# An object in flight has a file or a connection at each side, and perhaps the directories on the way to it.
_FILES_EACH: Final = 4

# What a process has open besides: modules, logs, Redis, pipes to its children.
_FILES_ELSE: Final = 96

# More files than this are of no use, and some systems have no limit.
_MOST_FILES: Final = 1_048_576


def settle() -> None:
    """Allow this process as many open files as it may have, and let no warning of a library end it."""
    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if any(option.startswith("error") for option in sys.warnoptions):
        # PYTHONWARNINGS=error is for tests. Celery warns of what is meant.
        filters: Any = warnings.filters
        filters[:] = [("default" if action == "error" else action, *rest) for action, *rest in filters]


def most_at_once() -> int:
    """Return how many objects this process can have in flight with the files that it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_FILES
    return max(1, (soft - _FILES_ELSE) // _FILES_EACH)


def clamped(wanted: int) -> int:
    """Return *wanted* objects in flight, or as many as the limit of open files allows, which is logged then."""
    most = most_at_once()
    if wanted <= most:
        return wanted
    log.warning(
        "%d objects at once instead of %d: a process may open too few files (ulimit -n)", most, wanted
    )
    return most
