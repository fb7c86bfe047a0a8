"""Exceptions of the HTTP layer. `stores.backends.s3.errors` turns them into `StoreError`."""

from __future__ import annotations

from snapferry.stores.runtime.interruption import checkpoint


class AnswerTooLong(Exception):
    """The server sends more than any answer of this kind can have."""


class TooSlow(TimeoutError):
    """The server reads or sends almost nothing; the message has the number of bytes."""


class CarriedError(BaseException):
    """
    Carries *error* through boto3, which takes every `Exception` for a failed attempt and retries it.

    Never leaves the S3 backend: `Bucket` raises *error* instead.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def checkpoint_through_boto() -> None:
    """Call `checkpoint`, and raise what it raises as `CarriedError`."""
    try:
        checkpoint()
    except Exception as error:
        raise CarriedError(error) from error
