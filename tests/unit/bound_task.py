"""A stand-in for a bound Celery task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery.exceptions import Retry


class BoundTask:
    """What a task's function is given as `self`: the count of retries, and two ways to be queued again."""

    def __init__(self, retries: int = 0, argsrepr: str = "batch 1 of 1") -> None:
        self.request = SimpleNamespace(retries=retries, argsrepr=argsrepr, hostname="copier@here")
        self.stepped_aside: list[dict[str, Any]] = []

    def retry(
        self,
        *,
        countdown: float,
        exc: Exception,
        throw: bool,
        max_retries: int,
        argsrepr: str,
        kwargsrepr: str,
    ) -> Retry:
        assert (throw, argsrepr, kwargsrepr) == (False, self.request.argsrepr, "")
        assert self.request.retries < max_retries
        return Retry(exc=exc, when=countdown)

    def signature_from_request(self, **options: Any) -> Any:
        assert (options["argsrepr"], options["retries"]) == (self.request.argsrepr, self.request.retries)
        return SimpleNamespace(apply_async=lambda: self.stepped_aside.append(options))
