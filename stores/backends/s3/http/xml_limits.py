"""Limits on an XML text, checked before it is parsed: a short text can need much memory once it is parsed."""

from __future__ import annotations

from typing import Final

from .errors import AnswerTooLong

# A page of 1,000 keys has about 30,000 tags.
MAX_TAGS: Final = 100_000
# A shorter text has room for fewer tags than that.
_LONG_BYTES: Final = 4 * MAX_TAGS


def check_xml(text: bytes) -> None:
    """
    Raise `AnswerTooLong` where *text* would become something much larger than itself.

    S3 declares no entities. Parse the text as UTF-8, whatever encoding it declares: nothing else was checked.
    """
    if b"<!DOCTYPE" in text:
        raise AnswerTooLong("the answer declares a document type, which could grow without bound")
    if len(text) > _LONG_BYTES and (
        text.count(b"<") > MAX_TAGS or text.count(b'"') + text.count(b"'") > MAX_TAGS
    ):
        raise AnswerTooLong(f"the answer has more than {MAX_TAGS} tags or attributes")
