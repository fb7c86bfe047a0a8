"""
Temporary files of a tree.

Their names cannot be taken for those of a user's file: a file is swept only if its name has the whole form, with the
identity of a process that is known to be dead.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress

from snapferry.stores.runtime.liveness import identity, is_dead

_numbers = itertools.count()

_form = re.compile(r"\.snapferry-([0-9a-f]+\.?[0-9]*-[0-9]+-[0-9a-f]{12})-[0-9]+\.tmp").fullmatch


def temporary_name() -> str:
    """Return a name that no other process uses, and that this one has not used."""
    return f".snapferry-{identity()}-{next(_numbers)}.tmp"


def is_temporary(name: str) -> bool:
    """Return whether *name* has the form of `temporary_name`."""
    return _form(name) is not None


def is_abandoned(name: str) -> bool:
    """Return whether *name* is that of a temporary file whose writer is known to be dead."""
    found = _form(name)
    return found is not None and is_dead(found[1])


def sweep(folder: int, names: Iterable[str]) -> None:
    """Remove the temporary files *names* from the open directory *folder*. One that cannot be removed stays."""
    for name in names:
        with suppress(OSError):
            if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
