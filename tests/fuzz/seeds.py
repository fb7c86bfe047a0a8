"""Where the fuzzer begins: ordinary inputs of each target, and those that once broke something."""

from __future__ import annotations

import json
from pathlib import Path

from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render
from snapferry.workers.messages import BatchMessage, JobSpec, MirrorMessage, StoreRef, encode_addresses

FOUND = Path(__file__).parent / "found"
"""A folder for each target, with the inputs that broke it once: the default suite runs them all."""

_A, _B = digest(b"a"), digest(b"b")

_MANIFEST = render(
    [
        Entry("D", "755", _A, 3, "./"),
        Entry("F", "644", _A, 1, "./a file"),
        Entry("F", "777", _A, 4, "./link"),
        Entry("F", "600", _B, 2**40, "./\u00fcbersicht"),
    ]
)

_URLS = [
    "file:///srv/store", "/srv/store/", "file://localhost/a/../b", "s3://bucket/prefix", "s3://bucket",
    "s3://bucket/p?endpoint_url=https://s3.example:9000&region=eu-1&profile=backup",
    "s3://key:secret@bucket", "s3://b/../x?endpoint_url=http://a@b", "gs://b", "s3://b?region=%00", "://:" * 100,
]  # fmt: skip

_PAGE = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><IsTruncated>true</IsTruncated>
<EncodingType>url</EncodingType><KeyCount>1</KeyCount><NextContinuationToken>x</NextContinuationToken><Contents>
<Key>.objects/a+b%20c</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"a"</ETag><Size>12</Size>
</Contents></ListBucketResult>"""

_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\nhello",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n folded: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_PAGE) + _PAGE,
]  # fmt: skip

_SOURCE, _DESTINATION = StoreRef(url="s3://a/b"), StoreRef(url="file:///srv/b", objects_url="s3://pool")
_MESSAGES = [
    JobSpec(
        job_id="job", snapshots=encode_addresses([_A, _B]), source=_SOURCE, destination=_DESTINATION,
        batch_objects=1000, batch_bytes=1 << 26,
    ),
    BatchMessage(
        job_id="job", series="plan", number=1, source=_SOURCE, destination=_DESTINATION,
        addresses=encode_addresses([_A, _B]), sizes=(1, 2), positions=(5,),
    ),
    MirrorMessage(name="nightly", source=_SOURCE, destination=_DESTINATION),
]  # fmt: skip

_LOGGED = [
    "redis://user:secret@host:6379/0 refused", "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/x",
    "password = 'hunter22', token: abcdef", "://:" * 200, "secret" * 100, "\x1b[31mred\x1b[0m \u202e",
]  # fmt: skip

SEEDS: dict[str, list[bytes]] = {
    "manifest": [_MANIFEST, b"# note\n\n" + _MANIFEST, b"\n", b"", b"a\n" * 50],
    "stored_manifest": [_MANIFEST, b"\n".join(reversed(_MANIFEST.splitlines())), b"\n"],
    "lines": [_MANIFEST, _MANIFEST * 3],
    "url": [text.encode() for text in _URLS],
    "secret_url": [b"user\x00bucket/prefix", b"\x00bucket?x=@", b"a/b\x00c@d/e?f#g"],
    "page": [_PAGE, _PAGE.replace(b"2026", b"0001"), _PAGE.replace(b">12<", b">-1<"), b"<ListBucketResult/>"],
    "answer": _ANSWERS,
    "message": [message.model_dump_json().encode() for message in _MESSAGES] + [b"{}", b"[" * 100],
    "redaction": [text.encode() for text in _LOGGED],
    "name": [
        *(b"nightly@", b"latest@", b"a.b-c_d@", b"8b1f92", b"8b1f@", b"../x@"),
        *(b"8" * 64, b"8" * 64 + b"\n", b"8" * 64 + b" " + b"1" * 64 + b"\n"),
    ],
}


def inputs(target: str) -> list[bytes]:
    """Return the seeds of *target* and all that was found, in a fixed order."""
    folder = FOUND / target
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return SEEDS[target] + [path.read_bytes() for path in found]


def dictionary(target: str) -> list[bytes]:
    """Return words that the inputs of *target* are made of, for the fuzzer to put in."""
    words = {
        "answer": [
            b"Content-Length: ",
            b"Transfer-Encoding: chunked",
            b"HTTP/1.1 200 ",
            b"Connection: close",
            b"\r\n\r\n",
        ],
        "page": [
            b"<Contents>",
            b"<Key>",
            b"<Size>",
            b"<LastModified>",
            b"<IsTruncated>",
            b"encoding=",
            b"<!DOCTYPE",
        ],
        "url": [b"s3://", b"file://", b"endpoint_url=", b"?", b"@", b"%2e", b"/../"],
        "secret_url": [b"@", b":", b"/", b"?", b"#", b"endpoint_url=", b"profile="],
        "message": [
            json.dumps(name).encode() for kind in (JobSpec, BatchMessage) for name in kind.model_fields
        ],
        "redaction": [b"://", b"@", b"token=", b"Credential=", b"secret", b"AKIA"],
    }
    return words.get(target, [b"F 644 ", b"D 755 ", _A.encode(), b"\n#", b" 0 "])
