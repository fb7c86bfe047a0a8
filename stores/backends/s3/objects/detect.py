"""
Find out how a server confirms what is written: send a body that is corrupted on purpose, and see what happens.

Amazon checks ``x-amz-checksum-sha256`` ("Checking object integrity in Amazon S3"), and the signed
``x-amz-content-sha256``. Other servers check either, Content-MD5 only, or nothing. The probe's key can never be an
address.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of
from snapferry.stores.backends.s3.features import Confirmation, ServerFeatures
from snapferry.stores.backends.s3.http.attempts import corrupted
from snapferry.stores.diagnosis.round_trip import DATA, FOLDER
from snapferry.stores.errors import StoreError

from .leftovers import create_upload
from .small import content_md5_header, etag_of, md5_of, put_by_boto, sha256_base64

logger = logging.getLogger(__name__)

# Attempts to have a corrupted body refused.
PROBES: Final = 3

# Seconds after a detection that failed before it is tried again.
DETECT_AGAIN_S: Final = 60.0

# The codes with which servers refuse a corrupted body. A server that computes the signature from what it received
# returns the last one.
_REFUSALS: Final = {
    "BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
    "SignatureDoesNotMatch",
}  # fmt: skip

# The probe with one bit flipped, as by a bad cable.
_CORRUPTED: Final = bytes([DATA[0] ^ 1]) + DATA[1:]


def detect(bucket: Bucket, features: ServerFeatures, key: str) -> Confirmation:
    """
    Find out how the server confirms writes near *key*, note it in *features* and return it; once for all threads.

    A server that checks costs one request. Another one costs a few more, and the deletion of the probe. For the parts
    of uploads, the requests are those of an upload that is aborted.
    """
    with features.lock:
        if features.confirmation is not None:
            return features.confirmation
        otherwise = Confirmation.READ_BACK if bucket.read_back else Confirmation.NONE
        if time.monotonic() < features.detect_again_at:
            return otherwise
        probe = f"{key.partition('/')[0]}/{FOLDER}digests"
        try:
            detect_it = _detect_for_parts if features.parts is features else _detect_for_objects
            found, content_md5 = detect_it(bucket, features, probe)
        except StoreError as error:
            logger.info("%s: cannot detect how writes are confirmed: %s", bucket.label, error.detail)
            features.detect_again_at = time.monotonic() + DETECT_AGAIN_S
            return otherwise
        features.content_md5 = content_md5
        features.confirmation = found or otherwise
        logger.info("%s: writes are confirmed by: %s", bucket.label, features.confirmation)
        return features.confirmation


def _detect_for_objects(
    bucket: Bucket, features: ServerFeatures, probe: str
) -> tuple[Confirmation | None, bool]:
    """Return how the server confirms, None if it does not, and whether that needs Content-MD5."""
    versions: set[str] = set()

    def send(md5: str) -> str:
        answer = put_by_boto(bucket, probe, DATA, md5, checksum=features.checksums)
        versions.add(str(answer.get("VersionId") or ""))
        return etag_of(answer)

    try:
        return _detect_with(bucket, probe, send)
    finally:
        for version in versions:
            more = {"VersionId": version} if version else {}
            with suppress(StoreError), bucket.errors(probe):
                bucket.call("delete_object", Key=bucket.full_key(probe), **more)


def _detect_for_parts(
    bucket: Bucket, features: ServerFeatures, probe: str
) -> tuple[Confirmation | None, bool]:
    """Return the same for the parts of an upload."""
    algorithm = {"ChecksumAlgorithm": "SHA256"} if features.checksums else {}
    created = create_upload(bucket, probe, **algorithm)
    upload = {"Key": bucket.full_key(probe), "UploadId": created["UploadId"]}
    checksum = {"ChecksumSHA256": sha256_base64(DATA)} if created.get("ChecksumAlgorithm") == "SHA256" else {}

    def send(md5: str) -> str:
        more = checksum | content_md5_header(md5)
        return etag_of(bucket.call("upload_part", **upload, PartNumber=1, Body=DATA, **more))

    try:
        return _detect_with(bucket, probe, send)
    finally:
        with suppress(StoreError), bucket.errors(probe):
            bucket.call("abort_multipart_upload", **upload)


def _detect_with(bucket: Bucket, probe: str, send: Callable[[str], str]) -> tuple[Confirmation | None, bool]:
    for _ in range(PROBES):
        etag = _send_corrupted(bucket, probe, send)
        if etag is None:
            return Confirmation.DIGEST, False
        if etag and etag == md5_of(_CORRUPTED):
            return Confirmation.ETAG, False
    md5 = md5_of(DATA)
    if md5 and _send_corrupted(bucket, probe, send, md5) is None:
        return Confirmation.DIGEST, True
    return None, False


def _send_corrupted(bucket: Bucket, probe: str, send: Callable[[str], str], md5: str = "") -> str | None:
    """Let *send* send a body that is corrupted on the way; return its ETag, None if the server refused the body."""
    try:
        with bucket.errors(probe), corrupted(_CORRUPTED):
            return send(md5)
    except StoreError as error:
        if code_of(error) in _REFUSALS:
            return None
        raise
