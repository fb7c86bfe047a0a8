"""The options of push."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from .common import with_options
from .declare import option
from .job import FLEET_OPTIONS, LIMIT_OPTIONS, detach_option, dry_run_option
from .values import WholeNumber

_Command = TypeVar("_Command", bound=Callable[..., Any])

STORE: Final = "Store"
FILES: Final = "Files"

_OPTIONS: Final = (
    option(
        "--to",
        "destination",
        metavar="STORE",
        envvar="SNAPDIR_STORE",
        section=STORE,
        help="Store that receives the snapshot: a URL, a path, or a name from snapferry.toml.",
    ),
    option(
        "--to-objects",
        metavar="STORE",
        section=STORE,
        help="Store that receives the objects, if it is not the store itself.",
    ),
    option(
        "--tag",
        metavar="NAME",
        completes="name",
        section=STORE,
        help="Name the snapshot NAME when it is published, as snapferry tag does; a name that exists moves.",
    ),
    option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        section=FILES,
        help="Leave out files and directories whose absolute path matches PATTERN, a regular expression, anywhere, and"
        " all that is below them. May be repeated.",
    ),
    option(
        "--no-follow", is_flag=True, section=FILES, help="Leave out symbolic links instead of following them."
    ),
    option(
        "--walk-jobs",
        type=WholeNumber(1, 256),
        default=4,
        metavar="N",
        section=FILES,
        help="List N directories at once. More of them help on a network file system.",
    ),
    *LIMIT_OPTIONS,
    *FLEET_OPTIONS,
    detach_option,
    dry_run_option(
        "Count the files and bytes that would be read, and the requests at most, without reading or writing any file."
    ),
)


def push_options(command: _Command) -> _Command:
    """Give *command* the options of push."""
    return with_options(_OPTIONS)(command)
