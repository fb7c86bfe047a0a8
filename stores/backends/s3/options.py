"""
The options that a store URL or a table of `snapferry.toml` may set for an S3 store: names, values and meaning.

Imports no client library, because a URL is checked in processes that open no store. No option holds a secret. The
values of headers are those of Amazon's API reference, PutObject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

MAX_TAGS: Final = 10
MAX_TAG_KEY: Final = 128
MAX_TAG_VALUE: Final = 256

# Objects of these classes cannot be read at once. A copy reads every manifest back, and a source must be readable.
_UNREADABLE_CLASSES: Final = ("GLACIER", "DEEP_ARCHIVE")

_storage_class = re.compile(r"[A-Z][A-Z0-9_-]{0,63}").fullmatch
_kms_key = re.compile(r"[A-Za-z0-9:/_.-]{1,2048}").fullmatch
_tag_text = re.compile(r"[\w +\-.:/@]*").fullmatch
_access_point = re.compile(
    r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:[0-9]{12}:"
    r"(?:outpost[:/][A-Za-z0-9-]+[:/])?accesspoint[:/][A-Za-z0-9.-]+(?=/|$)"
)


class Settings(NamedTuple):
    """The settings of a client besides profile, region and endpoint."""

    addressing_style: str = ""
    unsigned: bool = False
    write_headers: tuple[tuple[str, str], ...] = ()
    """The headers of every request that creates an object: PutObject and CreateMultipartUpload."""
    all_headers: tuple[tuple[str, str], ...] = ()
    """The headers of every request."""


def _one_of(*values: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        return "" if value in values else f"must be {' or '.join(values)}"

    return check


def _check_storage_class(value: str) -> str:
    if value in _UNREADABLE_CLASSES:
        return "must be a class whose objects can be read at once; a lifecycle rule can archive objects later"
    return "" if _storage_class(value) else "must be the name of a storage class, as in STANDARD_IA"


def _check_kms_key(value: str) -> str:
    return "" if _kms_key(value) else "must be the id, the ARN or the alias of a KMS key"


def _check_tags(value: str) -> str:
    tags = [tag.partition("=") for tag in value.split(",")]
    keys = [key for key, _, _ in tags]
    right = all(
        separator and 0 < len(key) <= MAX_TAG_KEY and len(text) <= MAX_TAG_VALUE and _tag_text(key + text)
        for key, separator, text in tags
    )
    if not right or len(tags) > MAX_TAGS or len(set(keys)) < len(keys):
        return f"must be up to {MAX_TAGS} different tags, as in team=backup,stage=prod"
    return ""


_CHECKS: Final[dict[str, Callable[[str], str]]] = {
    "acl": _one_of("bucket-owner-full-control", "bucket-owner-read", "private"),
    "addressing_style": _one_of("auto", "path", "virtual"),
    "read_back": _one_of("true", "false"),
    "request_payer": _one_of("requester"),
    "sse": _one_of("AES256", "aws:kms", "aws:kms:dsse"),
    "sse_kms_key_id": _check_kms_key,
    "storage_class": _check_storage_class,
    "tags": _check_tags,
    "unsigned": _one_of("true", "false"),
}

PARAMETERS: Final = ("endpoint_url", "region", "profile", *sorted(_CHECKS))


def problem(options: Mapping[str, str]) -> str:
    """Return what is wrong with the values of *options*, whose names are known; "" if nothing is. Repeats no value."""
    for name, value in options.items():
        if value and name in _CHECKS and (why := _CHECKS[name](value)):
            return f"has a parameter that cannot be used: {name} {why}"
    if options.get("sse_kms_key_id") and not options.get("sse", "").startswith("aws:kms"):
        return "has sse_kms_key_id, which needs sse=aws:kms or sse=aws:kms:dsse"
    if options.get("unsigned") == "true" and options.get("profile"):
        return "has both profile and unsigned; an unsigned request carries no credentials"
    return ""


def settings_of(options: Mapping[str, str]) -> Settings:
    """Return the settings for *options*, whose values were checked."""
    headers = {
        "x-amz-acl": options.get("acl"),
        "x-amz-server-side-encryption": options.get("sse"),
        "x-amz-server-side-encryption-aws-kms-key-id": options.get("sse_kms_key_id"),
        "x-amz-storage-class": options.get("storage_class"),
        "x-amz-tagging": _tagging(options.get("tags", "")),
    }
    payer = options.get("request_payer")
    return Settings(
        options.get("addressing_style", ""),
        options.get("unsigned") == "true",
        tuple((name, value) for name, value in headers.items() if value),
        (("x-amz-request-payer", payer),) if payer else (),
    )


def _tagging(tags: str) -> str:
    pairs = (tag.partition("=") for tag in tags.split(",") if tag)
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, _, value in pairs)


def split_place(place: str) -> tuple[str, str]:
    """Return the bucket and the prefix in *place*. The ARN of an access point is a bucket, slashes included."""
    found = _access_point.match(place)
    if found is None:
        bucket, _, prefix = place.partition("/")
        return bucket, prefix
    return found.group(), place[found.end() :].removeprefix("/")


def is_access_point(bucket: str) -> bool:
    """Return whether *bucket* is the ARN of an access point."""
    return _access_point.fullmatch(bucket) is not None
