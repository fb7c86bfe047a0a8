"""
moto's server with the permissions of Amazon S3: ``python tests/iam_server.py PORT LOG``.

moto checks signatures and the policies of IAM's users. This adds what it lacks of Amazon's user guide, "Required
permissions for Amazon S3 API operations": the action of HeadBucket and of a bucket's locks, the second action of
copies, tags and ACLs, the answer for a key that is missing, and the condition ``s3:prefix``. It appends each check to
LOG, as a line of JSON.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import moto.server
from moto import settings
from moto.iam import access_control
from moto.s3.responses import ACTION_MAP, S3Response

LOG = Path(sys.argv[2])

ACTION_MAP["BUCKET"]["HEAD"]["DEFAULT"] = "ListBucket"
ACTION_MAP["BUCKET"]["GET"]["object-lock"] = "GetBucketObjectLockConfiguration"

_asked = threading.local()


def check(response: Any, action: str, resource: str, prefix: str | None) -> None:
    """Raise the answer of S3 where the sender of a request may not do *action*, as in GetObject, with *resource*."""
    request = access_control.S3IAMRequest(
        account_id=response.current_account,
        method=response.method,
        path="",
        data=response.data,
        body=b"",
        headers=response.headers,
        action=action,
    )
    _asked.prefix = prefix
    allowed = False
    try:
        request.check_action_permitted(f"arn:aws:s3:::{resource}")
        allowed = True
    finally:
        user = request._access_key.arn.rpartition("/")[2]
        line = {"user": user, "action": f"s3:{action}", "resource": resource, "allowed": allowed}
        with LOG.open("a") as log:
            log.write(json.dumps(line) + "\n")


def more_actions(response: Any, bucket: str, key: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield action, resource and prefix of what a request for *key* needs besides what moto knows."""
    headers, query = response.headers, response.querystring
    creates = response.method == "PUT" or "uploads" in query
    if creates and headers.get("x-amz-tagging"):
        yield "PutObjectTagging", f"{bucket}/{key}", None
    if creates and headers.get("x-amz-acl"):
        yield "PutObjectAcl", f"{bucket}/{key}", None
    if source := headers.get("x-amz-copy-source"):
        yield "GetObject", unquote(source).lstrip("/"), None
    if response.method in ("GET", "HEAD") and response.backend.get_object(bucket, key) is None:
        # Whether a key exists is told only to those who may list it.
        yield "ListBucket", bucket, key


def authorize(response: Any, bucket_name: str | None = None, key_name: str | None = None) -> None:
    """Check the signature of a request, and all actions that it needs."""
    if settings.INITIAL_NO_AUTH_ACTION_COUNT > 0:
        return
    signed = access_control.S3IAMRequest(
        account_id=response.current_account,
        method=response.method,
        path=response.raw_path + (f"?{query}" if (query := response.parsed_url.query) else ""),
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action=response._get_action(),
    )
    signed.check_signature()
    bucket = bucket_name or "*"
    if not key_name:
        check(response, response._get_action(), bucket, response.querystring.get("prefix", [None])[0])
        return
    check(response, response._get_action(), f"{bucket}/{key_name}", None)
    for action, resource, prefix in more_actions(response, bucket, key_name):
        check(response, action, resource, prefix)


def permits(statement: Any, action: str, resource: str = "*", *_: Any) -> access_control.PermissionResult:
    """Return what a statement of a policy says about *action* and *resource*. Its conditions must be of `s3:prefix`."""
    said = statement._statement
    if not matches(said["Action"], action) or not matches(said["Resource"], resource):
        return access_control.PermissionResult.NEUTRAL
    for operator, condition in said.get("Condition", {}).items():
        assert (operator, [*condition]) == ("StringLike", ["s3:prefix"]), condition
        if _asked.prefix is None or not matches(condition["s3:prefix"], _asked.prefix):
            return access_control.PermissionResult.NEUTRAL
    denied = said["Effect"] == "Deny"
    return access_control.PermissionResult.DENIED if denied else access_control.PermissionResult.PERMITTED


def matches(patterns: str | list[str], text: str) -> bool:
    """Return whether *text* matches one of *patterns*, where * stands for any characters and ? for one."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(text, re.sub(r"\[", "[[]", pattern)) for pattern in listed)


def main() -> None:
    """Serve until the process is killed."""
    setattr(S3Response, "_authenticate_and_authorize_s3_action", authorize)  # noqa: B010
    setattr(access_control.IAMPolicyStatement, "is_action_permitted", permits)  # noqa: B010
    moto.server.main(["-H", "127.0.0.1", "-p", sys.argv[1]])


if __name__ == "__main__":
    main()
