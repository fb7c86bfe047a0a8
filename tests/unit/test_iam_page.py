"""The policies of docs/iam.md hold the permissions of the requests that the S3 backend sends, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snapferry.stores.backends.s3.errors import permission_of
from tests.policies import PAGE, documents, permissions

ROOT = Path(__file__).parents[2]
TEXT = PAGE.read_text()
POLICIES = [heading for heading, document in documents().items() if "Version" in document]

# Of Amazon's page "Actions, resources, and condition keys for Amazon S3": what a permission of these is for.
BUCKETS = {
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketVersioning",
    "s3:GetLifecycleConfiguration",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
}
OBJECTS = {
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObject",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
}


def operations() -> set[str]:
    """Return the operations that the S3 backend sends, by Amazon's names."""
    code = "".join(file.read_text() for file in (ROOT / "stores/backends/s3").rglob("*.py"))
    called = set(re.findall(r'\bcall\(\s*"([a-z0-9_]+)"', code)) | set(
        re.findall(r'_call\(\s*"([a-z0-9_]+)"', code)
    )
    return {"".join(part.capitalize() for part in name.split("_")) for name in called}


def actions(text: str) -> set[str]:
    return set(re.findall(r"s3:[A-Z]\w+", text))


def test_every_request_has_a_permission_that_exists() -> None:
    assert {"HeadBucket", "PutObject", "UploadPartCopy", "GetObjectLockConfiguration"} <= operations()
    assert {
        operation: permission
        for operation in operations()
        if not (permission := actions(permission_of(operation))) or permission - BUCKETS - OBJECTS
    } == {}


def test_the_policies_hold_the_permissions_of_all_requests() -> None:
    needed = {action for operation in operations() for action in actions(permission_of(operation))}

    assert {action for heading in POLICIES for action, _ in permissions(heading)} == needed


@pytest.mark.parametrize("heading", POLICIES)
def test_a_policy_allows_single_actions_on_the_bucket_or_below_the_store(heading: str) -> None:
    document = documents()[heading]

    assert document["Version"] == "2012-10-17"
    assert all(statement.keys() == {"Effect", "Action", "Resource"} for statement in document["Statement"])
    assert {statement["Effect"] for statement in document["Statement"]} == {"Allow"}
    for action, resource in permissions(heading):
        if resource == "arn:aws:s3:::BUCKET":
            assert action in BUCKETS
        else:
            assert re.fullmatch(
                r"arn:aws:s3:::BUCKET/PREFIX/\.(manifests|objects|names|quarantine)/(\.snapferry-(probe|parts)/)?\*",
                resource,
            )
            assert action in OBJECTS


def test_the_table_says_which_requests_an_action_is_for() -> None:
    rows = dict(re.findall(r"^\| `(s3:\w+)` \| ([^|]+) \|", TEXT, re.MULTILINE))
    told = {
        action: set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+|\bPutObject|\bGetObject", text))
        for action, text in rows.items()
    }
    doctors = {action for action, _ in permissions("Doctor")} - {"s3:DeleteObject"}
    sent = {
        action: {operation for operation in operations() if action in actions(permission_of(operation))}
        for action in told
    }
    # A HEAD for a missing object needs it too, which is told in words.
    sent["s3:ListBucket"].discard("HeadObject")

    assert told == sent
    assert told.keys() | doctors == BUCKETS | OBJECTS
