"""
Make a plan of files: each is one object of the plan, known by the digest of its path.

A file's address does not identify it: a file that is pushed has none yet, and several files of a snapshot may have the
same. So the plan has the digest of its path instead, and its line beside it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import Final

from blake3 import blake3

from snapferry.orchestrator.planning.batches import cut
from snapferry.orchestrator.planning.plan import Group, Lines, Plan, SnapshotPlan, empty_plan
from snapferry.orchestrator.planning.planner import LARGEST_SUM, bounded
from snapferry.stores.address import digests_of
from snapferry.stores.treehash import digests
from snapferry.workers.messages import GROUP_BATCHES

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""The most bytes of lines in a batch of several files."""


class _Files:
    """The columns of some files, in the order in which they were added."""

    def __init__(self) -> None:
        self.digests = bytearray()
        self.sizes = array("Q")
        self.ends = array("Q")
        self.text = bytearray()

    def extend(self, others: _Files) -> None:
        before = len(self.text)
        self.digests += others.digests
        self.sizes.extend(others.sizes)
        self.ends.extend(before + end for end in others.ends)
        self.text += others.text


class FilePlanner:
    """
    Makes the plan of one snapshot, the only one of its job, from the files that are added.

    *batches* and *evenly* are those of `cut`. It takes about 70 bytes and the line of each file.
    """

    def __init__(
        self, *, max_objects: int, max_bytes: int, batches: int = GROUP_BATCHES, evenly: bool = False
    ) -> None:
        self._max_objects = max_objects
        self._batches = batches
        self._evenly = evenly
        self._max_bytes = max_bytes
        self._large, self._small = _Files(), _Files()
        self._last_is_large = False
        # Positions of large files that have the bytes of the one before.
        self._repeats = array("Q")

    @property
    def files(self) -> int:
        """The number of files that were added so far."""
        return len(self._large.sizes) + len(self._small.sizes)

    def add(self, path: bytes, line: bytes, size: int, *, repeats: bool = False) -> None:
        """
        Add the file at *path* of about *size* bytes. Add each path once.

        *line* is what a worker needs to know of it, in one line without its end. *repeats*: it has the bytes of the
        file that was added before it. If that one is too large for any batch, both are in one batch, so that the bytes
        are read once.
        """
        if repeats and self._last_is_large:
            self._repeats.append(len(self._large.sizes))
        else:
            self._last_is_large = size > self._max_bytes
        of = self._large if self._last_is_large else self._small
        of.digests += blake3(path).digest()
        of.sizes.append(size)
        of.text += line
        of.ends.append(len(of.text))

    def add_many(self, paths: Sequence[str], lines: Sequence[str], sizes: Sequence[int]) -> None:
        """Do `add` for each of *paths*, its line of *lines* and its size, none of which repeats another."""
        if max(sizes, default=0) > self._max_bytes:
            for path, line, size in zip(paths, lines, sizes, strict=True):
                self.add(path.encode(), line.encode(), size)
            return
        of = self._small
        self._last_is_large = False
        encoded = "\n".join(paths).encode().split(b"\n") if paths else []
        of.digests += digests_of(filter(None, digests(encoded)))
        of.sizes.extend(sizes)
        text = "".join(lines)
        lengths = map(len, lines) if text.isascii() else (len(line.encode()) for line in lines)
        of.ends.extend(islice(accumulate(lengths, initial=len(of.text)), 1, None))
        of.text += text.encode()

    def finish(self) -> Plan:
        """
        Return the plan, to be called once, as the last method.

        Files too large for any batch come first, each alone or with those that repeat it, because they take longest;
        the others follow in the order in which they were added.
        """
        large, small = len(self._large.sizes), self._small.sizes
        ranges = list(self._large_ranges())
        ranges += [
            (large + first, large + end)
            for first, end in cut(
                small, self._max_objects, self._max_bytes, self._batches, evenly=self._evenly
            )
        ]
        files = self._small
        if large:
            files = self._large
            files.extend(self._small)
        if not len(files.sizes):
            return _of_nothing()
        firsts = array("Q")
        for first, end in ranges:
            firsts.extend(_cut_lines(files.ends, first, end))
        objects = len(files.sizes)
        plan = Plan(
            [Group(0, (0,), range(len(firsts)), range(objects), objects)],
            {0: SnapshotPlan(objects, sum(files.sizes), 0)},
            files.digests,
            files.sizes,
            array("I", bytes(4 * objects)),
            firsts,
            Lines(files.ends, files.text),
        )
        plan.sizes = bounded(plan.sizes, LARGEST_SUM)
        return plan

    def _large_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield the begin and end of each batch of large files."""
        repeats, first, large = set(self._repeats), 0, len(self._large.sizes)
        for at in range(1, large):
            if at not in repeats or at - first == self._max_objects:
                yield first, at
                first = at
        if large:
            yield first, large


def _of_nothing() -> Plan:
    """Return the plan of a snapshot without files."""
    plan = empty_plan()
    plan.groups.append(Group(0, (0,), range(0), range(0), 0))
    plan.snapshots[0] = SnapshotPlan(0, 0, 0)
    return plan


def _cut_lines(ends: array[int], first: int, end: int) -> list[int]:
    """Return the positions at which the batches begin that the files from *first* to *end* need for their lines."""
    firsts = [first]
    if ends[end - 1] - (ends[first - 1] if first else 0) <= MAX_LINE_BYTES:
        return firsts
    filled = 0
    for at in range(first, end):
        length = ends[at] - (ends[at - 1] if at else 0)
        if at > firsts[-1] and filled + length > MAX_LINE_BYTES:
            firsts.append(at)
            filled = 0
        filled += length
    return firsts
