"""
What may be done with keys of a bucket: write, read, list and delete a probe; make and abort a multipart upload.

*leaves nothing*: the permission to delete is tried before anything is written, by deleting what is not there. Where it
is missing, nothing is written that would have to be deleted. In a bucket with versions, every version that a probe made
is deleted by its id.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of, status_of
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.backends.s3.objects.detect import detect
from snapferry.stores.backends.s3.objects.probes import sweep_probes
from snapferry.stores.backends.s3.objects.ranges import open_object
from snapferry.stores.backends.s3.objects.small import list_keys, sha256_base64, size, with_checksum
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.diagnosis.round_trip import DATA, FOLDER, is_stale, new_probe, refused
from snapferry.stores.errors import AccessDenied, StoreError, StoreUnavailable

# An id that no server gives to an upload.
_NO_UPLOAD: Final = "snapferry-probe"

# Attempts for a multipart upload as a whole. A retry of one request does not help where the server has forgotten the
# requests before it: rclone's server does when another probe deletes the last key of the folder meanwhile.
_ATTEMPTS: Final = 3

_CONDITION_ADVICE: Final = "nothing to do: no promise of snapferry depends on it"


class Probe:
    """
    A probe of the keys that begin with *space*.

    *keeps_versions*: the bucket keeps versions, or may. *conditions*: try what depends on the server alone as well.
    """

    def __init__(self, bucket: Bucket, space: str, *, keeps_versions: bool, conditions: bool) -> None:
        self._bucket = bucket
        self._what = space.strip("./")
        self._folder = space + FOLDER
        self._key = new_probe(self._folder)
        self._keeps_versions = keeps_versions
        self._conditions = conditions
        self._made: set[str] = set()
        """The ids of the versions that this probe has made; "" is an object without a version."""
        self._upload = ""

    def run(self, *, write_object: bool) -> Iterator[Finding]:
        """Try multipart uploads, and, if *write_object*, an object that is deleted again; yield the findings."""
        self._sweep()
        try:
            if (yield from self._may_abort()):
                yield from self._multipart()
            if write_object and (yield from self._may_delete()):
                yield from self._object()
        finally:
            self._clean()

    def _call(self, operation: str, **parameters: object) -> Any:
        """Call *operation* for the key of the probe, or for the ``Key`` that is given; None: for no key."""
        key = parameters.pop("Key", self._bucket.full_key(self._key))
        named = {} if key is None else {"Key": str(key)}
        with self._bucket.errors(self._key):
            return self._bucket.call(operation, **named, **parameters)

    # Multipart uploads.

    def _may_abort(self) -> Generator[Finding, None, bool]:
        """Return whether multipart uploads may be aborted."""
        try:
            self._call("abort_multipart_upload", UploadId=_NO_UPLOAD)
        except AccessDenied as error:
            yield Finding(
                Level.WARNING,
                "s3.abort",
                f"{self._what}: multipart uploads may not be aborted: {error.detail}",
                "allow s3:AbortMultipartUpload: the parts of failed uploads are paid for",
            )
            return False
        except StoreUnavailable as error:
            if code_of(error) != "NoSuchUpload":
                yield refused("s3.abort", f"{self._what}: the abort of a multipart upload", error)
                return False
        except StoreError:
            # Each server has its own answer for an unknown id.
            pass
        return True

    def _multipart(self) -> Iterator[Finding]:
        for left in reversed(range(_ATTEMPTS)):
            try:
                self._upload_part()
            except StoreError as error:
                if error.transient and left:
                    self._forget_upload()
                    continue
                yield refused(
                    "s3.multipart", f"{self._what}: a multipart upload, as for large objects", error
                )
            else:
                yield Finding(
                    Level.OK, "s3.multipart", f"{self._what}: multipart uploads can be created and aborted"
                )
            return

    def _upload_part(self) -> None:
        with self._bucket.errors(self._key):
            self._upload = str(self._call("create_multipart_upload")["UploadId"])
        self._call("upload_part", UploadId=self._upload, PartNumber=1, Body=DATA)
        self._abort()

    def _forget_upload(self) -> None:
        if self._upload:
            with suppress(StoreError):
                self._call("abort_multipart_upload", UploadId=self._upload)
            self._upload = ""

    def _abort(self) -> None:
        try:
            self._call("abort_multipart_upload", UploadId=self._upload)
        except StoreError as error:
            # A request whose answer was lost is retried, and finds that the first attempt succeeded.
            if code_of(error) != "NoSuchUpload":
                raise
        self._upload = ""

    # An object.

    def _may_delete(self) -> Generator[Finding, None, bool]:
        """
        Return whether an object that is written now can be deleted again.

        Where versions are kept, deletes the version "null": a deletion without a version would make a delete marker.
        """
        version = {"VersionId": "null"} if self._keeps_versions else {}
        permission = "s3:DeleteObjectVersion" if version else "s3:DeleteObject"
        try:
            self._note(self._call("delete_object", **version), deleted=True)
        except AccessDenied as error:
            level = Level.NOTE if self._what == "objects" else Level.WARNING
            what = "versions may" if version else "keys may"
            yield Finding(
                level,
                "store.delete",
                f"{self._what}: {what} not be deleted, so no probe was written: {error.detail}",
                f"only --delete needs s3:DeleteObject; with {permission} more could be checked here",
            )
            return False
        except StoreError:
            # Most servers return success for a key that does not exist, and only a refusal counts.
            pass
        return True

    def _object(self) -> Iterator[Finding]:
        what = self._what
        try:
            self._note(with_checksum(self._bucket, self._bucket.features, self._put))
        except StoreError as error:
            yield refused("store.write", f"{what} cannot be written", error)
            return
        if self._conditions:
            yield self._conditional_write()
            yield self._confirmation()
        if (problem := self._read_problem() or self._list_problem()) is not None:
            yield problem
            return
        if self._conditions:
            yield self._start_after()
        yield self._delete_object()

    def _read_problem(self) -> Finding | None:
        what = self._what
        try:
            with open_object(self._bucket, self._key, 0) as reader:
                found = reader.read(len(DATA) + 1)
        except StoreError as error:
            return refused("store.read", f"{what} can be written but not read back", error)
        if found == DATA:
            return None
        text = f"{what}: the bytes read back differ from those written"
        return Finding(Level.ERROR, "store.read", text, "look for a cache or proxy in between")

    def _list_problem(self) -> Finding | None:
        what = self._what
        try:
            listed = self._key in {found.key for found in list_keys(self._bucket, self._folder)}
        except StoreError as error:
            return refused("store.list", f"{what} can be written and read, but not listed", error)
        if listed:
            return None
        text = f"{what}: an object that was just written is not listed"
        return Finding(Level.ERROR, "store.list", text, "snapferry needs listings that are consistent")

    def _delete_object(self) -> Finding:
        what = self._what
        try:
            self._note(self._call("delete_object"), deleted=True)
            gone = size(self._bucket, self._key) is None
        except StoreError as error:
            return Finding(
                Level.WARNING, "store.delete", f"{what}: keys may not be deleted: {error.detail}",
                "only --delete needs s3:DeleteObject",
            )  # fmt: skip
        if gone:
            self._made.discard("")
            return Finding(Level.OK, "store.write", f"{what} can be written, read, listed and deleted")
        text = f"{what}: an object that was deleted is still there"
        return Finding(Level.WARNING, "store.delete", text, "--delete needs a store that deletes")

    # What depends on the server alone.

    def _put(self, checksum: bool) -> Any:
        more = {"ChecksumSHA256": sha256_base64(DATA)} if checksum else {}
        return self._call("put_object", Body=DATA, **more)

    def _start_after(self) -> Finding:
        """Check that a listing can begin after a key: the probe must not be listed after itself."""
        check = "s3.start_after"
        bucket = self._bucket
        full_key = bucket.full_key(self._key)
        try:
            after = self._call(
                "list_objects_v2",
                Key=None,
                Prefix=bucket.full_key(self._folder),
                StartAfter=full_key,
                MaxKeys=10,
            )
        except StoreError as error:
            return refused(check, f"{self._what}: a listing that begins after a key", error)
        if any(found["Key"] <= full_key for found in after.get("Contents", ())):
            text = "the server ignores start-after in listings"
            return Finding(
                Level.ERROR, check, text, "snapferry needs a server that supports ListObjectsV2 in full"
            )
        return Finding(Level.OK, check, "listings can begin after a key")

    def _confirmation(self) -> Finding:
        check = "s3.confirm"
        found = detect(self._bucket, self._bucket.features, self._key)
        if found is Confirmation.NONE:
            return Finding(
                Level.WARNING, check, "nothing confirms that the server stored what was sent",
                "leave read_back on, or use a server that checks x-amz-checksum-sha256",
            )  # fmt: skip
        if found is Confirmation.READ_BACK:
            return Finding(
                Level.NOTE, check, "the server checks no digest, so each object is read back after it is written",
                "the copy reads every byte twice; a server that checks x-amz-checksum-sha256 saves that",
            )  # fmt: skip
        by = (
            "refuses bytes that differ from their digest"
            if found is Confirmation.DIGEST
            else "returns their MD5"
        )
        return Finding(Level.OK, check, f"writes are confirmed: the server {by}")

    def _conditional_write(self) -> Finding:
        check = "s3.conditional"
        try:
            self._note(self._call("put_object", Body=DATA, IfNoneMatch="*"))
        except StoreError as error:
            if status_of(error) == 412:
                return Finding(Level.OK, check, "If-None-Match: * is enforced")
            text = f"If-None-Match: * is rejected: {error.detail}"
            return Finding(Level.NOTE, check, text, _CONDITION_ADVICE)
        return Finding(Level.NOTE, check, "If-None-Match: * is ignored", _CONDITION_ADVICE)

    # Cleaning up.

    def _note(self, answer: Any, *, deleted: bool = False) -> None:
        """Note the version that a write or a deletion made, so that it can be deleted."""
        version = str(answer.get("VersionId") or "")
        if version:
            self._made.add(version)
        elif not deleted:
            self._made.add("")
        if version and version != "null":
            self._keeps_versions = True

    def _clean(self) -> None:
        """Delete all that the probe made. The next probe sweeps what cannot be deleted now, if it may."""
        self._forget_upload()
        for version in self._made:
            with suppress(StoreError):
                self._call("delete_object", **({"VersionId": version} if version else {}))

    def _sweep(self) -> None:
        """Delete what killed probes have left, versions and uploads included."""
        bucket, prefix = self._bucket, self._bucket.full_key(self._folder)
        if not self._keeps_versions:
            sweep_probes(bucket, self._folder)
        else:
            with suppress(StoreError):
                with bucket.errors(self._folder):
                    page = bucket.call("list_object_versions", Prefix=prefix)
                for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    if is_stale(found["Key"], found["LastModified"].timestamp()):
                        self._call("delete_object", Key=found["Key"], VersionId=found["VersionId"])
        with suppress(StoreError):
            with bucket.errors(self._folder):
                page = bucket.call("list_multipart_uploads", Prefix=prefix)
            for found in page.get("Uploads", ()):
                if found["Key"].startswith(prefix) and is_stale(found["Key"], found["Initiated"].timestamp()):
                    self._call("abort_multipart_upload", Key=found["Key"], UploadId=found["UploadId"])
