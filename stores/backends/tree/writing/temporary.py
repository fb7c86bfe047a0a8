"""
Temporary files of a tree.

Their names cannot be taken for those of a user's file: a file is swept only if its name has the whole form, with the
identity of a process that is gone or paused.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress

from snapferry.stores.backends.directory.paths.root import is_paused
from snapferry.stores.runtime.liveness import identity

_numbers = itertools.count()

_BEGINNING = ".snapferry-"
_form = re.compile(
    rf"{re.escape(_BEGINNING)}([0-9a-f]+\.?[0-9]*-[0-9]+-[0-9a-f]{{12}})-[0-9]+\.tmp"
).fullmatch


def temporary_name() -> str:
    """Return a name that no other process uses, and that this one has not used."""
    return temporary_names(1)[0]


def temporary_names(count: int) -> list[str]:
    """Return *count* names that no other process uses, and that this one has not used."""
    mine = identity()
    return [f"{_BEGINNING}{mine}-{number}.tmp" for number in itertools.islice(_numbers, count)]


def is_temporary(name: str) -> bool:
    """Return whether *name* has the form of `temporary_name`."""
    return _form(name) is not None


def temporary_among(names: Iterable[str]) -> set[str]:
    """Return those of *names* for which `is_temporary` is true: nearly always none of many."""
    return {name for name in names if name.startswith(_BEGINNING) and is_temporary(name)}


def sweep(folder: int, names: Iterable[str]) -> None:
    """
    Remove those of the temporary files *names* from the open directory *folder* whose writers are gone or paused.

    For the end of a tree: all files are there, so no writer has to go on. One that cannot be removed stays.
    """
    for name in names:
        found = _form(name)
        with suppress(OSError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if found is not None and stat.S_ISREG(status.st_mode) and is_paused(found[1], status.st_mtime):
                os.unlink(name, dir_fd=folder)
