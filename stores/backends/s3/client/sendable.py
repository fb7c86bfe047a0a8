"""
Whether keys can be sent: a key id and a session token are parts of headers.

An error of the HTTP client repeats the whole header that it refuses, with the session token in it, or with a
signature that is valid for 15 minutes. So such keys are refused before a request is made.
"""

from __future__ import annotations

import re
from typing import Final

from botocore.exceptions import BotoCoreError

from snapferry.stores.backends.s3.direct_path import Keys

# Control characters, which end a header, and what the headers of HTTP cannot carry.
_unsendable: Final = re.compile("[\x00-\x1f\x7f\u0100-\U0010ffff]").search
# A secret key is not sent. One of the environment that is not UTF-8 has lone surrogates.
_unusable: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]").search


class UnsendableCredentials(BotoCoreError):  # type: ignore[misc]
    """Credentials with a character that no request can carry. The message repeats nothing of them."""

    fmt = (
        "The {name} has a character that cannot be sent, such as a line end; correct the environment variable, file or"
        " program that it comes from"
    )


def check_sendable(keys: Keys) -> None:
    """Raise `UnsendableCredentials` if *keys* cannot be used in a request."""
    for name, value, wrong in (
        ("access key", keys.access_key, _unsendable),
        ("secret key", keys.secret_key, _unusable),
        ("session token", keys.token or "", _unsendable),
    ):
        if wrong(value):
            raise UnsendableCredentials(name=name)
