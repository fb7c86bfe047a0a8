"""
What a disk may hold after a loss of power, given the system calls until then.

Two models of file systems:

*ordered*: ext4 with data=ordered and delayed allocation, and XFS. Changes of names reach the disk in their order, by a
journal, so what is there is a prefix of them. The bytes of a file reach it independently of its name, unless it was
synced: it may be empty, short, have pages of zeros, or be whole. An fsync of a file also forces the journal up to the
last change of that file's name.

*any order*: what POSIX promises. A change of a name may be lost while later ones in other places are kept. Only a sync
of the directory, or of the file system, keeps it. A change is kept only with those that it needs: the directory that it
is in, the name that it replaces or moves.

In both, syncfs covers everything that returned before it began. The disk is assumed to keep what it confirmed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from .trace import Call

State = dict[str, bytes | None]
"""Path -> the bytes of a file, None for a directory."""

PAGE: Final = 4096

# Sets of changes that are tried for each interval between two barriers, where there are too many.
_ALL_UP_TO: Final = 10
_RANDOM: Final = 60
# Combinations of the contents of files that are not synced.
_CONTENTS: Final = 64


class Model(StrEnum):
    """How a file system keeps what was not synced."""

    ORDERED = "ordered"
    ANY_ORDER = "any order"


@dataclass
class _Change:
    """A change of a name: its index, and those that it needs. *file* is the number of the file that it is about."""

    index: int
    call: Call
    file: int | None
    needs: set[int] = field(default_factory=set)


class Recording:
    """The *calls* of a command, on a directory that held *before* at its begin, all of it on the disk."""

    def __init__(self, calls: Sequence[Call], before: State | None = None) -> None:
        self._before = dict(before or {})
        self._changes: list[_Change] = []
        self._writes: dict[int, list[tuple[int, bytes]]] = {}
        self._barriers: list[tuple[int, Call, int | None]] = []
        self._old: dict[int, bytes] = {}
        self._length = len(calls)
        self._read(calls)

    def _read(self, calls: Sequence[Call]) -> None:
        files: dict[str, int] = {}
        for number, (path, data) in enumerate(self._before.items()):
            if data is not None:
                files[path] = number
                self._old[number] = data
        numbers = itertools.count(len(self._before))
        last: dict[str, int] = {}
        for index, call in enumerate(calls):
            if call.kind == "write":
                self._writes.setdefault(files[call.path], []).append((index, call.data))
                continue
            if call.kind in ("fsync", "syncfs"):
                self._barriers.append((index, call, files.get(call.path)))
                continue
            if call.kind == "create":
                files[call.path] = next(numbers)
            file = files.get(call.path)
            names = [name for name in (call.path, call.target) if name]
            above = {name.rpartition("/")[0] for name in names}
            needs = {last[name] for name in (*names, *above) if name in last}
            if call.kind == "rmdir":
                needs |= {at for name, at in last.items() if name.startswith(f"{call.path}/")}
            change = _Change(index, call, file, needs)
            self._changes.append(change)
            for name in names:
                last[name] = index
            if call.kind == "rename":
                self._move(files, call)
            elif call.kind == "link" and file is not None:
                files[call.target] = file
            elif call.kind == "unlink":
                files.pop(call.path, None)

    @staticmethod
    def _move(files: dict[str, int], call: Call) -> None:
        inside = f"{call.path}/"
        for name in [name for name in files if name == call.path or name.startswith(inside)]:
            files[call.target + name[len(call.path) :]] = files.pop(name)

    def states(self, model: Model, *, seed: int = 1) -> Iterator[tuple[int, State]]:
        """
        Yield what the disk may hold after a loss of power at any moment, and the index of the last call before it.

        Each state once for each interval between two barriers.
        """
        chance = random.Random(seed)
        ends = [*(index for index, *_ in self._barriers), self._length]
        for end in ends:
            durable, synced = self._durable(end, model)
            pending = [
                change for change in self._changes if change.index < end and change.index not in durable
            ]
            seen: set[int] = set()
            for kept in self._kept(model, durable, pending, chance):
                for state in self._contents(kept, synced, end):
                    mark = hash(tuple(sorted(state.items())))
                    if mark not in seen:
                        seen.add(mark)
                        yield end, state

    def _durable(self, end: int, model: Model) -> tuple[set[int], dict[int, int]]:
        """Return the changes that are on the disk, and up to which call the bytes of each file are."""
        changes: set[int] = set()
        synced: dict[int, int] = {}
        for index, call, file in self._barriers:
            if index >= end:
                break
            if call.kind == "syncfs":
                changes |= {one.index for one in self._changes if one.index < call.since}
                synced |= dict.fromkeys(self._writes, call.since)
            elif file is not None:
                synced[file] = max(call.since, synced.get(file, 0))
                if model is Model.ORDERED:
                    own = [one.index for one in self._changes if one.file == file and one.index < call.since]
                    changes |= {one.index for one in self._changes if own and one.index <= max(own)}
            else:
                changes |= {
                    one.index
                    for one in self._changes
                    if one.index < call.since and _is_in(one.call, call.path)
                }
        if model is Model.ANY_ORDER:
            # What is kept is kept with what it needs.
            changes = self._closed(changes)
        return changes, synced

    def _closed(self, wanted: Iterable[int]) -> set[int]:
        by_index = {one.index: one for one in self._changes}
        found: set[int] = set()
        ahead = list(wanted)
        while ahead:
            at = ahead.pop()
            if at not in found:
                found.add(at)
                ahead += by_index[at].needs
        return found

    def _kept(
        self, model: Model, durable: set[int], pending: list[_Change], chance: random.Random
    ) -> Iterator[set[int]]:
        """Yield sets of changes that may be on the disk: what is *durable*, and some of what is *pending*."""
        indexes = [one.index for one in pending]
        for length in range(len(indexes) + 1):
            yield durable | set(indexes[:length])
        if model is Model.ORDERED:
            return
        if len(indexes) <= _ALL_UP_TO:
            choices: Iterable[Iterable[int]] = itertools.chain.from_iterable(
                itertools.combinations(indexes, length) for length in range(len(indexes) + 1)
            )
        else:
            alone = [[index] for index in indexes]
            without = [[other for other in indexes if not self._depends(other, index)] for index in indexes]
            some = [[index for index in indexes if chance.random() < 0.5] for _ in range(_RANDOM)]
            choices = [*alone, *without, *some]
        for chosen in choices:
            yield durable | self._closed(chosen)

    def _depends(self, index: int, on: int) -> bool:
        return on in self._closed([index])

    def _contents(self, kept: set[int], synced: dict[int, int], end: int) -> Iterator[State]:
        """Yield the states with the changes *kept*: one for each way in which bytes that are not synced may be kept."""
        names = {path: number for number, path in enumerate(self._before)}
        tree: dict[str, int | None] = {
            path: None if data is None else names[path] for path, data in self._before.items()
        }
        for change in self._changes:
            if change.index in kept:
                _apply(tree, change)
        files = sorted({file for file in tree.values() if file is not None})
        # Nobody reads a temporary file: how much of it is there makes no difference.
        seen = {file for path, file in tree.items() if not is_temporary(path)}
        variants = [
            self._variants(file, synced.get(file, 0), end)[: None if file in seen else 1] for file in files
        ]
        for chosen in itertools.islice(itertools.product(*variants), _CONTENTS):
            data = dict(zip(files, chosen, strict=True))
            yield {path: None if file is None else data[file] for path, file in tree.items()}

    def _variants(self, file: int, synced: int, end: int) -> list[bytes]:
        """Return what a file may contain. The first one is the worst that has a length."""
        old = self._old.get(file, b"")
        writes = self._writes.get(file, [])
        safe = old + b"".join(data for index, data in writes if index < synced)
        whole = old + b"".join(data for index, data in writes if index < end)
        if whole == safe:
            return [safe]
        rest = len(whole) - len(safe)
        found = [
            safe + bytes(rest),
            safe,
            whole[: len(safe) + min(PAGE, max(1, rest // 2))],
            safe + bytes(min(PAGE, rest)) + whole[len(safe) + PAGE :],
            whole,
        ]
        return list(dict.fromkeys(found))


def is_temporary(path: str) -> bool:
    """Return whether a path is that of a temporary file."""
    return path.rpartition("/")[2].startswith((".tmp-", ".parts-", ".snapferry-"))


def _is_in(call: Call, folder: str) -> bool:
    return any(name.rpartition("/")[0] == folder for name in (call.path, call.target) if name)


def _apply(tree: dict[str, int | None], change: _Change) -> None:
    call = change.call
    if call.kind == "mkdir":
        tree[call.path] = None
    elif call.kind == "create":
        tree[call.path] = change.file
    elif call.kind in ("unlink", "rmdir"):
        tree.pop(call.path, None)
    elif call.kind == "link":
        tree[call.target] = change.file
    elif call.kind == "rename":
        inside = f"{call.path}/"
        for name in [name for name in tree if name == call.path or name.startswith(inside)]:
            tree[call.target + name[len(call.path) :]] = tree.pop(name)
