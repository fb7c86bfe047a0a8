"""Files that were pushed: what each hashes to, by its position in the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from redis.client import NEVER_DECODE

from snapferry.stores.address import DIGEST_BYTES, Address
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import done_key, job_key
from snapferry.workers.messages import BatchMessage

RECORD_BYTES: Final = DIGEST_BYTES + 8
"""A record is the digest of a file, and its length in bytes, big-endian. A file without one has zeros."""

MOST_FILES: Final = 512 * 1024 * 1024 // RECORD_BYTES
"""The most files of a job: a string of Redis has 512 MiB."""

_PIECE_BYTES: Final = RECORD_BYTES * 50_000


class FileLedger(LedgerBase):
    """What the files of a job hash to, in a string with a record for each. Every method may be repeated."""

    def note_files(
        self, batch: BatchMessage, files: Mapping[Address, tuple[Address, int]], *, submitted: str = ""
    ) -> None:
        """
        Record *files*: the digest of a path -> the address of its bytes, and their number.

        Does nothing once the batch is accounted for: what the record has then is what a manifest is made of.
        *submitted* is that of `Begun`, "" for a caller that began no run.
        """
        positions = batch.positions_by_address()
        arguments: list[Any] = [batch.number, self._expires_s, submitted]
        end = -1
        for file in sorted(files, key=positions.__getitem__):
            position, (address, length) = positions[file], files[file]
            record = bytes.fromhex(address) + length.to_bytes(8, "big")
            if position == end:
                arguments[-1] += record
            else:
                arguments += [position * RECORD_BYTES, record]
            end = position + 1
        if files:
            keys = [
                job_key(batch.job_id),
                done_key(batch.job_id, batch.series),
                job_key(batch.job_id, "files"),
            ]
            self._run(scripts.NOTE_FILES, keys, arguments)

    def files(self, job_id: str) -> Iterator[bytes]:
        """Yield the records of all files, concatenated, by position, in pieces. The last ones may be left out."""
        execute: Any = self._redis.execute_command
        at = 0
        while True:
            key = job_key(job_id, "files")
            piece: bytes = execute("GETRANGE", key, at, at + _PIECE_BYTES - 1, **{NEVER_DECODE: []})
            if not piece:
                return
            yield piece
            at += len(piece)
