"""The note about an object that is copied in parts: a store may send anything for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snapferry.stores.backends.parts_note import LARGEST_NOTE, PartsNote, decode_note, new_secret
from snapferry.stores.features import PartsShape

MIB = 1024 * 1024
NOTE = PartsNote(
    new_secret(), PartsShape(100 * MIB + 1, 16 * MIB, '"etag"', "s3://a at http://b"), "id", True
)


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(NOTE.encode()), **changes}).encode()


def test_a_note_is_read_as_it_was_written() -> None:
    assert decode_note(NOTE.encode()) == NOTE
    assert decode_note(changed()) == NOTE
    assert NOTE.shape.parts == 7
    assert NOTE.shape.range_of(6) == (96 * MIB, 100 * MIB + 1)


def test_a_name_of_an_upload_does_not_tell_its_secret() -> None:
    assert NOTE.tag not in NOTE.secret.hex()
    assert NOTE.tag != NOTE._replace(secret=new_secret()).tag


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b"[" * 10_000, b" " * (LARGEST_NOTE + 1),
        changed(form=2), changed(secret="00"), changed(secret="x" * 64), changed(secret=None), changed(upload=3),
        changed(version=None), changed(source="x" * 5000), changed(length=0), changed(length=-1), changed(length=1.5),
        changed(length=True), changed(part_bytes=0), changed(part_bytes=-16 * MIB), changed(part_bytes="16"),
        # More parts than an upload has, and parts that do not fit in memory.
        changed(part_bytes=1024), changed(length=5 * 1024**4, part_bytes=5 * 1024**4), changed(part_bytes=128 * MIB),
    ],
)  # fmt: skip
def test_anything_else_is_no_note(data: bytes) -> None:
    assert decode_note(data) is None


def test_the_largest_object_may_have_its_parts() -> None:
    note = NOTE._replace(shape=PartsShape(5 * 1024**4, 1024 * MIB, "v", "s"))
    assert decode_note(note.encode()) == note
