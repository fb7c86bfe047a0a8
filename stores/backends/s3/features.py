"""
What a process learns about one server while it uses a store there.

Nothing here sends a request. `objects.detect` finds out how the server confirms writes, and the code that writes
and reads notes the rest when a request is refused.
"""

from __future__ import annotations

import threading
from collections import Counter
from enum import StrEnum


class Confirmation(StrEnum):
    """
    How it is known that a server stored the bytes that were sent.

    DIGEST: the server refuses a body that does not match its SHA-256 or MD5. ETAG: the server's ETag is the MD5 of
    the body. READ_BACK: the object was read again and compared. SERVER: nothing was sent, the server copied the object
    that was read. NONE: nothing confirms it.
    """

    DIGEST = "digest"
    ETAG = "etag"
    READ_BACK = "read_back"
    SERVER = "server"
    NONE = "none"


class CopyFeatures:
    """
    What one process knows about the copies that the server of a store makes by itself. Threads share it.

    *enforces_etag*: it copies only the version that is asked for; None until that was tried. *tagging*: it knows
    ``x-amz-tagging-directive``.
    """

    def __init__(self) -> None:
        self.enforces_etag: bool | None = None
        self.tagging = True
        self.refused_until: dict[str, float] = {}
        """The name of a bucket -> the value of `time.monotonic` before which it is not asked to copy from there."""
        self.no_parts_until = 0.0
        """The value of `time.monotonic` before which it is not asked to copy into the parts of an upload."""
        self.lock = threading.Lock()


class ServerFeatures:
    """
    What one process knows about the server of a store. Threads share it.

    *confirmation* is None until it is known. *checksums*: send ``x-amz-checksum-sha256`` with every write.
    *content_md5*: send Content-MD5, because the server checks that and nothing else. *ranges*: the server supports
    range requests. *parts* holds the same for the parts of multipart uploads: a server may check whole objects and
    not parts, or parts and not whole objects.
    """

    def __init__(self, *, checksums: bool, of_parts: bool = False) -> None:
        self.parts = self if of_parts else ServerFeatures(checksums=checksums, of_parts=True)
        self.confirmation: Confirmation | None = None
        self.checksums = checksums
        self.checksum_accepted = False
        """A write with a checksum has succeeded, so a later refusal has another reason."""
        self.content_md5 = False
        self.ranges = True
        self.quoted = True
        """The server takes the ETag of such a condition in quotes, as RFC 9110 has it. Ceph wants it bare."""
        self.conditions = True
        """Send a condition with a write that replaces an object: only that version is to be replaced."""
        self.enforces_conditions: bool | None = None
        """Whether a write takes place only on its condition; None until that was tried."""
        self.enforces_delete_conditions: bool | None = None
        """The same of deletions."""
        self.copies = CopyFeatures()
        self.md5_bytes = 0
        """The bytes whose MD5 was computed while *confirmation* was unknown."""
        self.detect_again_at = 0.0
        """The value of `time.monotonic` before which detection is not tried again after it failed."""
        self.lock = threading.Lock()

    def needs_md5(self, size_bytes: int) -> bool:
        """Return whether the MD5 of the next *size_bytes* bytes to send is needed, and count them."""
        if self.confirmation is None:
            self.md5_bytes += size_bytes
            return True
        return self.confirmation is Confirmation.ETAG or self.content_md5


class ConfirmationCounts:
    """The number of objects that a backend has written, by how they were confirmed. Safe to share between threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, confirmation: Confirmation) -> None:
        """Count one object."""
        with self._lock:
            self._counts[confirmation.value] += 1

    def counts(self) -> dict[str, int]:
        """Return a copy of the counts."""
        with self._lock:
            return dict(self._counts)
