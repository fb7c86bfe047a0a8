"""A bucket over HTTP that sends each object evenly over some seconds, and counts what it sends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.served_bucket import Write, served_bucket

# What is sent at once. A client that hangs up is noticed after two pieces.
_PIECES: Final = 40


@dataclass
class PacedBucket:
    """The store in directory *root* as the bucket ``bucket`` at *endpoint*; each object takes *object_s* seconds."""

    root: Path
    object_s: float
    endpoint: str = ""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes that were sent, by key."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def paced_bucket(root: Path, object_s: float) -> Iterator[PacedBucket]:
    """Serve the bucket in the block."""
    bucket = PacedBucket(root, object_s)

    def send(key: str, data: bytes, write: Write) -> None:
        if not key.startswith(".objects/"):
            write(data)
            return
        pieces = _PIECES if bucket.object_s > 1 else 1
        for number in range(pieces):
            time.sleep(bucket.object_s / pieces)
            piece = data[len(data) * number // pieces : len(data) * (number + 1) // pieces]
            write(piece)
            with bucket.lock:
                bucket.sent[key] += len(piece)

    with served_bucket(root, send) as bucket.endpoint:
        yield bucket
