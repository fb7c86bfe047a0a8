"""
What is to be known of a bucket before a copy: rights, conditional writes, versions, leftovers, the server's clock.

*leaves nothing*: a right to take away is asked for before anything is written,
by taking away what is not there. Where it is refused, nothing is written that
would need it. In a bucket with versions, every version that a probe made is
taken away by its id.

Everything is asked by boto3 itself: these requests are rare and unusual.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto

from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.diagnosis.round_trip import DATA, FOLDER, is_stale, new_probe, refused
from snapferry.stores.errors import AccessDenied, StoreError, StoreUnavailable

from .confirm import Proof, learn, sha256_base64

if TYPE_CHECKING:
    from .backend import S3Backend

# An upload's id that no server gives out.
_NO_UPLOAD: Final = "snapferry-probe"

# An upload in parts is more requests than one, so that sending one again does not help where the server forgot what
# came before: rclone's does when another prober takes away the last key of the folder meanwhile.
_TRIES: Final = 3

_LIFECYCLE: Final = "set a lifecycle rule that aborts incomplete multipart uploads, say after 7 days"


def server_clock(backend: S3Backend) -> tuple[float, float] | None:
    """Return the second that the server's Date says, None where it does not answer. Also a refusal has a date."""
    try:
        answer = backend._call("head_bucket")
    except boto.ClientError as error:
        answer = error.response
    except Exception:  # noqa: BLE001 - whatever it is, the check of the store says it
        return None
    said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        found = parsedate_to_datetime(said)
    except ValueError:
        return None
    at = found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    return at, at + 1.0


def probe_bucket(backend: S3Backend, spaces: Sequence[str]) -> Iterator[Finding]:
    """Yield what there is to say of the bucket, and of writing keys that begin with each of *spaces*."""
    versions = _versions(backend)
    yield _versions_finding(versions)
    yield _lifecycle(backend)
    locked = versions != "Off" and _locks(backend)
    if locked:
        said = "the bucket locks what is written, so no probe was written that would have to stay"
        yield Finding(Level.NOTE, "s3.lock", said, "snapferry copies to such a bucket; --delete cannot work")
    for number, space in enumerate(spaces):
        # Where it cannot be told, versions are kept for all that is known. Conditions are the server's, not a folder's.
        one = _Space(backend, space, keeps_versions=versions != "Off", conditions=number == 0)
        yield from one.probe(whole=not locked)


def _versions(backend: S3Backend) -> str:
    """Return the bucket's versioning: Enabled, Suspended, Off, or "" where it cannot be told."""
    try:
        with backend._errors(""):
            return str(backend._call("get_bucket_versioning").get("Status", "Off"))
    except StoreError:
        pass
    # Without that right a stored object tells it as well: with versions each answer names one.
    with suppress(StoreError):
        for found in itertools.islice(backend.keys(""), 1):
            with backend._errors(found.key):
                answer = backend._call("head_object", Key=backend._prefix + found.key)
            return "Enabled" if answer.get("VersionId") else "Off"
    return ""


def _versions_finding(versions: str) -> Finding:
    if not versions:
        return Finding(Level.NOTE, "s3.versions", "whether the bucket keeps versions cannot be told")
    if versions == "Off":
        return Finding(Level.OK, "s3.versions", "the bucket keeps no versions")
    advice = "a lifecycle rule can expire versions; they take space that --delete does not give back"
    return Finding(Level.NOTE, "s3.versions", f"the bucket keeps versions ({versions.lower()})", advice)


def _locks(backend: S3Backend) -> bool:
    """Say whether what is written to the bucket cannot be deleted for some time."""
    with suppress(StoreError), backend._errors(""):
        found = backend._call("get_object_lock_configuration").get("ObjectLockConfiguration", {})
        return "DefaultRetention" in found.get("Rule", {})
    return False


def _lifecycle(backend: S3Backend) -> Finding:
    check = "s3.lifecycle"
    try:
        with backend._errors(""):
            answer = backend._call("get_bucket_lifecycle_configuration")
    except StoreError as error:
        if _code(error) == "NoSuchLifecycleConfiguration":
            return Finding(Level.WARNING, check, "no rule aborts incomplete multipart uploads", _LIFECYCLE)
        said = f"whether a rule aborts incomplete multipart uploads cannot be told: {error.detail}"
        return Finding(Level.NOTE, check, said, f"if there is none, {_LIFECYCLE}")
    if "Rules" not in answer:
        said = "whether a rule aborts incomplete multipart uploads cannot be told: the server does not say"
        return Finding(Level.NOTE, check, said)
    days = [
        int(rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0))
        for rule in answer["Rules"]
        if rule.get("Status") == "Enabled"
        and "AbortIncompleteMultipartUpload" in rule
        and backend._prefix.startswith(_prefix_of(rule))
    ]
    if not days:
        return Finding(Level.WARNING, check, "no rule aborts incomplete multipart uploads", _LIFECYCLE)
    return Finding(Level.OK, check, f"incomplete multipart uploads are aborted after {min(days)} days")


def _prefix_of(rule: dict[str, Any]) -> str:
    narrowed = rule.get("Filter", {})
    return str(rule.get("Prefix") or narrowed.get("Prefix") or narrowed.get("And", {}).get("Prefix") or "")


class _Space:
    """The probing of keys that begin with *space*."""

    def __init__(self, backend: S3Backend, space: str, *, keeps_versions: bool, conditions: bool) -> None:
        self._backend = backend
        self._what = space.strip("./")
        self._folder = space + FOLDER
        self._key = new_probe(self._folder)
        self._keeps_versions = keeps_versions
        self._conditions = conditions
        self._made: set[str] = set()
        self._upload = ""

    def probe(self, *, whole: bool) -> Iterator[Finding]:
        """Try uploads in parts, and, if *whole*, an object that is deleted again."""
        self._sweep()
        try:
            if (yield from self._may_abort()):
                yield from self._parts()
            if whole and (yield from self._may_delete()):
                yield from self._object()
        finally:
            self._clean()

    def _call(self, operation: str, **parameters: object) -> Any:
        key = parameters.pop("Key", self._backend._prefix + self._key)
        named = {} if key is None else {"Key": str(key)}
        with self._backend._errors(self._key):
            return self._backend._call(operation, **named, **parameters)

    def _may_abort(self) -> Generator[Finding, None, bool]:
        try:
            self._call("abort_multipart_upload", UploadId=_NO_UPLOAD)
        except AccessDenied as error:
            yield Finding(
                Level.WARNING,
                "s3.abort",
                f"{self._what}: multipart uploads may not be aborted: {error.detail}",
                "allow s3:AbortMultipartUpload: what is left of uploads that fail is paid for",
            )
            return False
        except StoreUnavailable as error:
            if _code(error) != "NoSuchUpload":
                yield refused("s3.abort", f"{self._what}: the abort of a multipart upload", error)
                return False
        except StoreError:
            # Each server has its own words for an id that it does not know.
            pass
        return True

    def _parts(self) -> Iterator[Finding]:
        for left in reversed(range(_TRIES)):
            try:
                self._try_parts()
            except StoreError as error:
                if error.transient and left:
                    self._forget_upload()
                    continue
                yield refused(
                    "s3.multipart", f"{self._what}: an upload in parts, as for large objects", error
                )
            else:
                yield Finding(
                    Level.OK, "s3.multipart", f"{self._what}: uploads in parts can be made and aborted"
                )
            return

    def _try_parts(self) -> None:
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
            # A request whose answer was lost is sent again, and finds that the first one did it.
            if _code(error) != "NoSuchUpload":
                raise
        self._upload = ""

    def _may_delete(self) -> Generator[Finding, None, bool]:
        """
        Say whether what would be written now can be taken away again.

        A plain deletion makes a version of its own where versions are kept.
        """
        version = {"VersionId": "null"} if self._keeps_versions else {}
        right = "s3:DeleteObjectVersion" if version else "s3:DeleteObject"
        try:
            self._note(self._call("delete_object", **version), deleted=True)
        except AccessDenied as error:
            level = Level.NOTE if self._what == "objects" else Level.WARNING
            what = "versions may" if version else "keys may"
            yield Finding(
                level,
                "store.delete",
                f"{self._what}: {what} not be deleted, so no probe was written: {error.detail}",
                f"only --delete needs s3:DeleteObject; with {right} more could be checked here",
            )
            return False
        except StoreError:
            # A key that is not there is no error to most servers, and only a refusal counts.
            pass
        return True

    def _object(self) -> Iterator[Finding]:
        what = self._what
        try:
            self._note(self._call("put_object", Body=DATA, **self._checksum()))
        except StoreError as error:
            yield refused("store.write", f"{what} cannot be written", error)
            return
        if self._conditions:
            yield self._conditional()
            yield self._confirmation()
        try:
            with self._backend.open(self._key) as reader:
                back = reader.read(len(DATA) + 1)
        except StoreError as error:
            yield refused("store.read", f"{what} can be written but not read back", error)
            return
        if back != DATA:
            said = f"{what}: other bytes were read back than were written"
            yield Finding(Level.ERROR, "store.read", said, "look for a cache or proxy in between")
            return
        try:
            listed = self._key in {found.key for found in self._backend.keys(self._folder)}
        except StoreError as error:
            yield refused("store.list", f"{what} can be written and read, but not listed", error)
            return
        if not listed:
            said = f"{what}: what was just written is not listed"
            yield Finding(Level.ERROR, "store.list", said, "snapferry needs listings that are consistent")
            return
        if self._conditions:
            yield self._start_after()
        try:
            self._note(self._call("delete_object"), deleted=True)
            gone = self._backend.size(self._key) is None
        except StoreError as error:
            yield Finding(
                Level.WARNING, "store.delete", f"{what}: keys may not be deleted: {error.detail}",
                "only --delete needs s3:DeleteObject",
            )  # fmt: skip
            return
        if gone:
            self._made.discard("")
            yield Finding(Level.OK, "store.write", f"{what} can be written, read, listed and deleted")
        else:
            said = f"{what}: what was deleted is still there"
            yield Finding(Level.WARNING, "store.delete", said, "--delete needs a store that deletes")

    def _checksum(self) -> dict[str, str]:
        return {"ChecksumSHA256": sha256_base64(DATA)} if self._backend.conduct.checksums else {}

    def _start_after(self) -> Finding:
        """Say whether a listing can begin behind a key: the probe is not listed behind itself."""
        check = "s3.start_after"
        try:
            behind = self._call(
                "list_objects_v2", Key=None, Prefix=self._backend._prefix + self._folder,
                StartAfter=self._backend._prefix + self._key, MaxKeys=10,
            )  # fmt: skip
        except StoreError as error:
            return refused(check, f"{self._what}: a listing that begins behind a key", error)
        full = self._backend._prefix + self._key
        if any(found["Key"] <= full for found in behind.get("Contents", ())):
            said = "the server ignores start-after in listings"
            return Finding(
                Level.ERROR, check, said, "snapferry needs a server that knows ListObjectsV2 in full"
            )
        return Finding(Level.OK, check, "listings can begin behind a key")

    def _confirmation(self) -> Finding:
        check = "s3.confirm"
        proof = learn(self._backend, self._backend.conduct, self._key)
        if proof is Proof.NONE:
            return Finding(
                Level.WARNING, check, "nothing confirms that the server stored what was sent",
                "leave read_back on, or use a server that checks x-amz-checksum-sha256",
            )  # fmt: skip
        if proof is Proof.READ_BACK:
            return Finding(
                Level.NOTE, check, "the server checks no digest, so each object is read back after it is written",
                "the copy reads every byte twice; a server that checks x-amz-checksum-sha256 saves that",
            )  # fmt: skip
        by = (
            "refuses bytes that differ from their digest"
            if proof is Proof.DIGEST
            else "answers with their MD5"
        )
        return Finding(Level.OK, check, f"what is written is confirmed: the server {by}")

    def _conditional(self) -> Finding:
        check = "s3.conditional"
        try:
            self._note(self._call("put_object", Body=DATA, IfNoneMatch="*"))
        except StoreError as error:
            if _status(error) == 412:
                return Finding(Level.OK, check, "If-None-Match: * is enforced")
            said = f"If-None-Match: * is not taken: {error.detail}"
            return Finding(Level.NOTE, check, said, "nothing to do: no promise of snapferry depends on it")
        said = "If-None-Match: * is ignored"
        return Finding(Level.NOTE, check, said, "nothing to do: no promise of snapferry depends on it")

    def _note(self, answer: Any, *, deleted: bool = False) -> None:
        """Remember what a write or a deletion made, so that it can be taken away."""
        version = str(answer.get("VersionId") or "")
        if version:
            self._made.add(version)
        elif not deleted:
            self._made.add("")
        if version and version != "null":
            self._keeps_versions = True

    def _clean(self) -> None:
        """Take away all that the probe made. What cannot be is swept by the next prober, if it may."""
        self._forget_upload()
        for version in self._made:
            with suppress(StoreError):
                self._call("delete_object", **({"VersionId": version} if version else {}))

    def _sweep(self) -> None:
        """Take away what killed probers left, versions and uploads as well."""
        backend, prefix = self._backend, self._backend._prefix + self._folder
        with suppress(StoreError):
            if not self._keeps_versions:
                for key, _, modified in list(backend.keys(self._folder)):
                    if is_stale(key, modified):
                        backend.delete(key)
            else:
                with backend._errors(self._folder):
                    page = backend._call("list_object_versions", Prefix=prefix)
                for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    if is_stale(found["Key"], found["LastModified"].timestamp()):
                        self._call("delete_object", Key=found["Key"], VersionId=found["VersionId"])
        with suppress(StoreError):
            with backend._errors(self._folder):
                page = backend._call("list_multipart_uploads", Prefix=prefix)
            for found in page.get("Uploads", ()):
                if found["Key"].startswith(prefix) and is_stale(found["Key"], found["Initiated"].timestamp()):
                    self._call("abort_multipart_upload", Key=found["Key"], UploadId=found["UploadId"])


def _answer(error: StoreError) -> dict[str, Any]:
    found: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return found


def _code(error: StoreError) -> str:
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _status(error: StoreError) -> int:
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
