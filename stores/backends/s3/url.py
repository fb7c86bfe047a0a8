"""
Parse an ``s3://`` URL. Imports no client library.

    s3://bucket/prefix?endpoint_url=https://...&region=...&profile=...   (more: `options`)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.network.endpoint import InvalidEndpoint, parse_endpoint
from snapferry.stores.urls.store_url import StoreKind, StoreURL, redact, unprintable

from .options import PARAMETERS, is_access_point, problem, split_place

MAX_PREFIX_BYTES: Final = 900
# An access point's ARN is the longest name of a bucket.
MAX_BUCKET: Final = 255
MAX_OPTION: Final = 4096

# What decides at which server a store is, and as whom it is reached.
_SERVER: Final = ("endpoint_url", "region", "profile", "unsigned", "request_payer")

_SECRETS: Final = ("secret", "password", "passwd", "token", "credential", "access_key", "signature")

# What boto3 sends. S3 takes fewer, other servers take all of these.
_is_bucket = re.compile(r"[A-Za-z0-9._-]+").fullmatch
_is_region = re.compile(r"[A-Za-z0-9-]{1,63}").fullmatch


def parse(kind: StoreKind, rest: str) -> StoreURL:
    """Parse *rest*, the text after ``s3://``. Raises `InvalidStoreURL`, whose text repeats no secret."""
    text = f"s3://{rest}"
    place, _, query = rest.partition("?")
    bucket, prefix = split_place(place)
    if ("@" in bucket or ":" in bucket) and not is_access_point(bucket):
        if bucket.startswith("arn:") and "@" not in place:
            raise InvalidStoreURL(
                "", redact(text), "is not the ARN of an access point; use the bucket's name, or"
                " s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/prefix",
            )  # fmt: skip
        # No bucket's name has a colon, and a secret key may have a slash: s3://KEY:SEC/RET@bucket.
        raise InvalidStoreURL(
            "", redact(text), "carries credentials; give them by profile or environment instead"
        )
    if not bucket:
        raise InvalidStoreURL("", redact(text), "names no bucket, as in s3://bucket/prefix")
    if len(bucket) > MAX_BUCKET:
        raise InvalidStoreURL(
            "", f"s3://{bucket[:20]}...", f"names a bucket of more than {MAX_BUCKET} characters"
        )
    if bucket in {".", ".."} or "\\" in bucket:
        raise InvalidStoreURL("", f"s3://{bucket}", "names no bucket, as in s3://bucket/prefix")
    if not _is_bucket(bucket) and not is_access_point(bucket):
        raise InvalidStoreURL(
            "", f"s3://{bucket}", "is not the name of a bucket: use letters, digits, '.', '-' and '_'"
        )
    return _checked(kind, bucket, _prefix(bucket, prefix), _parameters(bucket, query))


def add_options(url: StoreURL, options: Mapping[str, str]) -> StoreURL:
    """Return *url* with those of *options* that it does not set itself. Raises `InvalidStoreURL`."""
    own = dict(url.options)
    # An unsigned request carries no credentials.
    given = {
        name: value for name, value in options.items() if (name, own.get("unsigned")) != ("profile", "true")
    }
    return _checked(url.kind, url.location, url.prefix, given | own)


def why_not_on_server(source: StoreURL, destination: StoreURL) -> str:
    """As `StoreKind.why_not_on_server`."""
    if source.kind is not destination.kind:
        return "one of them is not an S3 store"
    differing = [name for name in _SERVER if source.option(name) != destination.option(name)]
    if differing:
        return f"they differ in {' and '.join(differing)}; both must be at one server, with one set of credentials"
    return ""


def _prefix(bucket: str, prefix: str) -> str:
    prefix = prefix.strip("/")
    if len(prefix.encode()) > MAX_PREFIX_BYTES:
        raise InvalidStoreURL("", f"s3://{bucket}", f"has a prefix of more than {MAX_PREFIX_BYTES} bytes")
    if prefix and any(part in {"", ".", ".."} for part in prefix.split("/")):
        reason = "has a prefix with an empty part, a . or a .., which servers interpret differently"
        raise InvalidStoreURL("", redact(f"s3://{bucket}/{prefix}"), reason)
    return prefix


def _parameters(bucket: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise InvalidStoreURL("", f"s3://{bucket}", "has parameters that cannot be read") from None
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1 and name in PARAMETERS:
            raise InvalidStoreURL("", f"s3://{bucket}", f"sets {name} more than once")
    return dict(pairs)


def _checked(kind: StoreKind, bucket: str, prefix: str, options: Mapping[str, str]) -> StoreURL:
    shown = f"s3://{bucket}"
    for name, value in options.items():
        if len(value) > MAX_OPTION or unprintable.search(name + value):
            reason = f"has a control character, or more than {MAX_OPTION:,} characters, in {name[:40]!a}"
            raise InvalidStoreURL("", shown, reason)
    for name in options:
        if any(word in name.lower() for word in _SECRETS):
            raise InvalidStoreURL(
                "", shown, f"carries a secret ({name}); give it by profile or environment instead"
            )
        if name not in PARAMETERS:
            raise InvalidStoreURL(
                "", shown, f"has an unknown parameter {name[:80]!a}; known: {', '.join(PARAMETERS)}"
            )
    endpoint = options.get("endpoint_url", "")
    if endpoint:
        if "@" in endpoint:
            raise InvalidStoreURL("", shown, "carries credentials in its endpoint_url; use a profile instead")
        if "?" in endpoint or "#" in endpoint:
            raise InvalidStoreURL(
                "",
                shown,
                "has an endpoint_url with a query or a fragment; it must end with the host, port or path",
            )
        try:
            endpoint = str(parse_endpoint(endpoint))
        except InvalidEndpoint as error:
            reason = f"has an endpoint_url that is no http(s) URL of a server: {error}"
            raise InvalidStoreURL("", shown, reason) from None
    region = options.get("region", "")
    if region and not _is_region(region):
        raise InvalidStoreURL("", shown, "has a region that is not the name of a region, as in eu-central-1")
    if wrong := problem(options):
        raise InvalidStoreURL("", shown, wrong)
    kept = {name: value for name, value in options.items() if value}
    if endpoint:
        kept["endpoint_url"] = endpoint
    return StoreURL(kind, bucket, prefix, tuple(sorted(kept.items())))
