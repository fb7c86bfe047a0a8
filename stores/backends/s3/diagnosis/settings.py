"""The settings of a bucket, and the server's clock. Nothing here writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from botocore import exceptions as boto

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of
from snapferry.stores.backends.s3.http.date import served_at
from snapferry.stores.backends.s3.objects.small import list_keys
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.errors import StoreError
from snapferry.stores.text.format import counted

from .permissions import Probe

_LIFECYCLE: Final = "set a lifecycle rule that aborts incomplete multipart uploads, say after 7 days"


def server_clock(bucket: Bucket) -> tuple[float, float] | None:
    """
    Return the second in the Date header of an answer, as the earliest and the latest time; None without an answer.

    A refusal has a Date as well.
    """
    try:
        answer = bucket.call("head_bucket")
    except boto.ClientError as error:
        answer = error.response
    except Exception:  # noqa: BLE001 - `S3Backend.check` raises the same error
        return None
    at = served_at(answer)
    return None if at is None else (at, at + 1.0)


def diagnose(bucket: Bucket, spaces: Sequence[str]) -> Iterator[Finding]:
    """
    Yield findings about *bucket*, and about writing keys that begin with each of *spaces*.

    Writes probes and leaves none. Never raises `StoreError`.
    """
    versioning = _versioning(bucket)
    yield _versioning_finding(versioning)
    yield _lifecycle_finding(bucket)
    locked = versioning != "Off" and _locks(bucket)
    if locked:
        text = "the bucket locks what is written, so no probe was written that would have to stay"
        yield Finding(Level.NOTE, "s3.lock", text, "snapferry copies to such a bucket; --delete cannot work")
    for number, space in enumerate(spaces):
        # Where versioning is unknown, assume that versions are kept. Conditional writes depend on the server and not
        # on the space, so they are tried once.
        probe = Probe(bucket, space, keeps_versions=versioning != "Off", conditions=number == 0)
        yield from probe.run(write_object=not locked)


def _versioning(bucket: Bucket) -> str:
    """Return the bucket's versioning: Enabled, Suspended, Off, or "" where it is unknown."""
    try:
        with bucket.errors(""):
            return str(bucket.call("get_bucket_versioning").get("Status", "Off"))
    except StoreError:
        pass
    # Without that permission, look at an object: in a bucket with versions every answer has a version id.
    with suppress(StoreError):
        for found in itertools.islice(list_keys(bucket, ""), 1):
            with bucket.errors(found.key):
                answer = bucket.call("head_object", Key=bucket.full_key(found.key))
            return "Enabled" if answer.get("VersionId") else "Off"
    return ""


def _versioning_finding(versioning: str) -> Finding:
    if not versioning:
        return Finding(Level.NOTE, "s3.versions", "it is unknown whether the bucket keeps versions")
    if versioning == "Off":
        return Finding(Level.OK, "s3.versions", "the bucket keeps no versions")
    advice = "a lifecycle rule can expire versions; they take space that --delete does not free"
    return Finding(Level.NOTE, "s3.versions", f"the bucket keeps versions ({versioning.lower()})", advice)


def _locks(bucket: Bucket) -> bool:
    """Return whether what is written to the bucket cannot be deleted for some time."""
    with suppress(StoreError), bucket.errors(""):
        found = bucket.call("get_object_lock_configuration").get("ObjectLockConfiguration", {})
        return "DefaultRetention" in found.get("Rule", {})
    return False


def _lifecycle_finding(bucket: Bucket) -> Finding:
    check = "s3.lifecycle"
    unknown = "it is unknown whether a rule aborts incomplete multipart uploads"
    try:
        with bucket.errors(""):
            answer = bucket.call("get_bucket_lifecycle_configuration")
    except StoreError as error:
        if code_of(error) == "NoSuchLifecycleConfiguration":
            return Finding(Level.WARNING, check, "no rule aborts incomplete multipart uploads", _LIFECYCLE)
        return Finding(Level.NOTE, check, f"{unknown}: {error.detail}", f"if there is none, {_LIFECYCLE}")
    if "Rules" not in answer:
        return Finding(Level.NOTE, check, f"{unknown}: the answer of the server has no rules")
    days = [
        int(rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0))
        for rule in answer["Rules"]
        if rule.get("Status") == "Enabled"
        and "AbortIncompleteMultipartUpload" in rule
        and bucket.prefix.startswith(_prefix_of(rule))
    ]
    if not days:
        return Finding(Level.WARNING, check, "no rule aborts incomplete multipart uploads", _LIFECYCLE)
    return Finding(
        Level.OK, check, f"incomplete multipart uploads are aborted after {counted(min(days), 'day')}"
    )


def _prefix_of(rule: dict[str, Any]) -> str:
    narrowed = rule.get("Filter", {})
    return str(rule.get("Prefix") or narrowed.get("Prefix") or narrowed.get("And", {}).get("Prefix") or "")
