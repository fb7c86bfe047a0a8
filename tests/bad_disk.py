"""A disk that cannot read some files: every system call that reads their bytes fails with EIO."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.backends.directory.native import extension


class BadDisk:
    """The files *bad*, by inode. *times* is how many readings fail, None for all; *read* counts those that failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bad: set[tuple[int, int]] = set()
        self.times: int | None = None
        self.failed = 0
        # The compiled extension makes system calls of its own.
        monkeypatch.setattr(extension, "_extension", None)
        for name in ("read", "readv", "pread"):
            monkeypatch.setattr(os, name, self._checked(getattr(os, name)))

    def spoil(self, *paths: Path) -> None:
        """Let the disk be unable to read the files at *paths*, under whatever name."""
        for path in paths:
            found = os.lstat(path)
            self.bad.add((found.st_dev, found.st_ino))

    def _checked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(descriptor: int, *arguments: Any) -> Any:
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) in self.bad and (self.times is None or self.failed < self.times):
                self.failed += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(descriptor, *arguments)

        return checked
