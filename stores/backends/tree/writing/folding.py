"""
Whether a file system takes two names for one: letters in capitals and not, or two forms of one Unicode text.

Two files of a snapshot with such names would overwrite each other.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from contextlib import suppress

from .temporary import temporary_name


def folding_of(folder: int) -> Callable[[str], str] | None:
    """
    Return the function after which names in the open directory *folder* are compared, None where each is itself.

    Makes an empty file there and removes it. Raises OSError.
    """
    # An e with an acute accent, as one character and as two.
    name = f"{temporary_name()}-a\u00e9"
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))
    try:
        cases = _there(folder, f"{name[:-2]}A\u00e9")
        forms = _there(folder, f"{name[:-1]}e\u0301")
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
    if not cases and not forms:
        return None

    def fold(text: str) -> str:
        text = unicodedata.normalize("NFD", text) if forms else text
        return unicodedata.normalize("NFD", text.casefold()) if cases else text

    return fold


def _there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True
