"""A bucket from which one object comes slowly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.served_bucket import Write, served_bucket


@dataclass
class SlowBucket:
    """A store's directory as a bucket over HTTP; *slow_key* comes in drops until `hurry` is set."""

    root: Path
    slow_key: str
    endpoint: str = ""
    pause_s: float = 0.05
    """Before each drop of 64 KiB."""
    hurry: threading.Event = field(default_factory=threading.Event)
    running: int = 0
    most_running: int = 0
    gets: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.gets += 1
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1


@contextmanager
def slow_bucket(root: Path, slow_key: str, pause_s: float = 0.05) -> Iterator[SlowBucket]:
    bucket = SlowBucket(root, slow_key, pause_s=pause_s)

    def send(key: str, data: bytes, write: Write) -> None:
        if key != bucket.slow_key:
            write(data)
            return
        with bucket.counted():
            for at in range(0, len(data), 65536):
                bucket.hurry.wait(bucket.pause_s)
                write(data[at : at + 65536])

    with served_bucket(root, send) as bucket.endpoint:
        try:
            yield bucket
        finally:
            bucket.hurry.set()
