"""What a damaged record of a job means for its readers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import UnreadableJob

_LONGEST_REASON = 200


@contextmanager
def readable(job_id: str) -> Iterator[None]:
    """
    Raise `UnreadableJob` in place of what the parsers of a record raise where another program wrote it.

    Not for a request of another version, which is a `ValidationError`.
    """
    try:
        yield
    except ValidationError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        InvalidStoreURL,
        zlib.error,
    ) as error:
        why = printable(str(error)[:_LONGEST_REASON]) or type(error).__name__
        raise UnreadableJob(job_id, why) from error
