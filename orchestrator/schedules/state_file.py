"""
The file that keeps the records of a mirror or scrub on a machine without a fleet, and the lock of its runs.

A file of its own for each mirror and scrub, ``KIND-NAME.json``, is replaced as a whole after each run. The lock is on
``KIND-NAME.lock`` beside it. The kernel releases it when the last process of a run ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import redis

from snapferry.workers.ledger.schedule_state import InvalidState, export_state, restore_state
from snapferry.workers.messages import ScheduleKind

# A scrub of 10,000 shares takes about 1 MB.
_LONGEST: Final = 64 * 1024**2


class StateError(Exception):
    """The directory or a file of the state cannot be used. The message names it, the reason, and what to do."""


class StateFile:
    """
    The state of one mirror or scrub in a *folder*, which is created if it is missing. Raises `StateError`.

    *further* is what others keep in the file, as JSON: `restore` reads it, `save` writes it.
    """

    def __init__(self, folder: str, kind: ScheduleKind, name: str) -> None:
        self._folder, self.kind, self.name = Path(folder).absolute(), kind, name
        self.path = self._folder / f"{kind}-{name}.json"
        self.further: object = None

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Lock the mirror or scrub for the block; yield whether no other process on this machine has the lock."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(
                self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise self._error("write", error) from None
        try:
            mine = True
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mine = False
            except OSError as error:
                raise self._error("lock", error) from None
            yield mine
        finally:
            os.close(lock)

    def restore(self, client: redis.Redis, *, move: bool = True) -> str:
        """
        Write the state into a server that has none; return why the file could not be used, "" if it could.

        A file that is no state is renamed, so that the next run does not replace it; without *move* it stays. Without a
        file nothing is written.
        """
        try:
            with self.path.open(encoding="utf-8") as file:
                text = file.read(_LONGEST + 1)
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise self._error("read", error) from None
        try:
            if len(text) > _LONGEST:
                raise InvalidState("it is too long")
            document = json.loads(text)
            restore_state(client, self.kind, self.name, document)
            self.further = document.get("further")
            return ""
        except (InvalidState, ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, InvalidState) else "it is not JSON"
        if not move:
            return f"{self.path} cannot be used: {why}"
        aside = self.path.with_suffix(f".{time.strftime('%Y%m%dT%H%M%S')}.unreadable")
        try:
            self.path.rename(aside)
        except OSError as error:
            raise self._error("rename", error) from None
        return f"{self.path} cannot be used: {why}. It was renamed to {aside.name}."

    def save(self, client: redis.Redis) -> None:
        """Replace the file by the state that the server has. After an error the file is as it was."""
        document = export_state(client, self.kind, self.name) | {"further": self.further}
        beside = self.path.with_suffix(".tmp")
        try:
            # Only the process that has the lock writes here.
            with suppress(FileNotFoundError):
                beside.unlink()
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise self._error("write", error) from None

    def _error(self, verb: str, error: OSError | UnicodeDecodeError) -> StateError:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not text"
        return StateError(f"cannot {verb} the state of {self.kind} {self.name} in {self._folder}: {reason}")
