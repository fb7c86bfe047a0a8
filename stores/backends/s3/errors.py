"""
What the errors of boto3 and of HTTP mean: the one table from them to `snapferry.stores.errors`.

An answer that is not understood is an error, never "absent". The codes are those of Amazon's API reference, "Error
responses" (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html), and of other servers where noted.
"""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Mapping
from enum import Enum
from http.client import HTTPException
from typing import Any, Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from snapferry.stores.errors import (
    AccessDenied,
    ClockWrong,
    InvalidStoreURL,
    KeyMissing,
    StoreError,
    StoreFault,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)

from .http.date import served_at
from .http.errors import AnswerTooLong, TooSlow
from .redaction import redact

ErrorClass = type[StoreError]


def _table(names_of: Mapping[ErrorClass, str]) -> dict[str, ErrorClass]:
    return {name: kind for kind, names in names_of.items() for name in names.split()}


# By the code of an answer. An answer without a body has its status as code. NoSuchUpload is transient: the upload was
# removed, or an attempt whose answer was lost has completed it, and a new upload may succeed. XMinioStorageFull is
# MinIO's, QuotaExceeded is Ceph's.
_BY_CODE: Final = _table(
    {
        StoreNotFound: "NoSuchBucket",
        KeyMissing: "NoSuchKey NotFound 404",
        AccessDenied: """AccessDenied AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException
            InvalidAccessKeyId InvalidToken SignatureDoesNotMatch TokenRefreshRequired""",
        ClockWrong: "RequestExpired RequestTimeTooSkewed",
        StoreFault: "InvalidObjectState NotImplemented",
        StoreFull: "InsufficientStorage QuotaExceeded XMinioStorageFull",
        StoreUnavailable: """InternalError OperationAborted RequestTimeout ServiceUnavailable SlowDown Throttling
            ThrottlingException BadDigest IncompleteBody XAmzContentChecksumMismatch XAmzContentSHA256Mismatch
            ConditionalRequestConflict NoSuchUpload""",
    }
)
# By the status, where the code is not listed above. Any other status is a fault.
_BY_STATUS: Final = _table(
    {
        AccessDenied: "401 403",
        StoreUnavailable: "408 429 500 502 503 504 509 520 521 522 523 524 529",
        StoreFull: "507",
    }
)
# By the name of an exception's class, or of its nearest base class: some classes exist in new versions of botocore
# only. A KeyError, which is a LookupError, means that an answer lacks a field. Without it, an empty body would be an
# empty store.
_BY_CLASS: Final = _table(
    {
        StoreFault: "BotoCoreError UndefinedModelAttributeError AnswerTooLong",
        StoreUnavailable: """ConnectionError HTTPClientError IncompleteReadError ChecksumError FlexibleChecksumError
            CapacityNotAvailableError MetadataRetrievalError ResponseParserError
            HTTPError HTTPException OSError ValueError ArithmeticError LookupError""",
        AccessDenied: """CredentialRetrievalError LoginError NoAuthTokenError NoCredentialsError
            PartialCredentialsError ProfileNotFound RefreshWithMFAUnsupportedError SSOError TokenRetrievalError
            UnknownCredentialError UnknownTokenProviderError UnsendableCredentials""",
        InvalidStoreURL: "InvalidDNSNameError InvalidRegionError ParamValidationError",
    }
)
# Errors of urllib3, http.client and the system come through while a body is read. The last three are raised for a
# malformed number, date or encoding in an answer.
TRANSLATED: Final = (
    boto.BotoCoreError, boto.UndefinedModelAttributeError, boto.ClientError, ResponseParserError,
    HTTPError, HTTPException, OSError, AnswerTooLong, ValueError, ArithmeticError, LookupError,
)  # fmt: skip

_REGION: Final = (
    "the bucket may be in another region or at another endpoint: name it by region= or endpoint_url="
)
_HINTS: Final[Mapping[str, str]] = {
    "301": _REGION,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "400": "no reason was given; the credentials may have expired, or the region may be wrong",
    "ExpiredToken": "the session has expired; log in again",
    "InvalidAccessKeyId": "the server does not know the access key: check its id, and endpoint_url",
    "SignatureDoesNotMatch": "the secret key may be wrong, or a proxy changes requests",
}

# The permissions that a request needs (Amazon's user guide, "Required permissions for Amazon S3 API operations"). Other
# requests need the one of their own name.
_PERMISSIONS: Final[Mapping[str, str]] = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "HeadObject": "s3:GetObject, or s3:ListBucket if there is no such object",
    "DeleteObject": "s3:DeleteObject, or s3:DeleteObjectVersion for a version",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:GetObject and s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
}
# The errors of the system for a file that is not there, or that this process has no right to read.
_NOT_READ: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM}
)
# A signature is valid for 15 minutes (Amazon's reference, "Authenticating Requests"). Not every server that refuses an
# older one says so: some answer AccessDenied. Leave a minute for a slow answer.
_VALID_S: Final = 14 * 60

# Amazon's message names the action that is missing, which may be one of another service, or the rule that forbids it.
_NAMES_AN_ACTION: Final = "is not authorized to perform"

# Codes for credentials that were valid before.
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
# Codes for credentials that are not valid. A file that is being rewritten in place can be read half.
_INVALID: Final = frozenset(
    {"InvalidToken", "InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"}
)
# Codes with which servers reject a header that they do not know.
_HEADER_REJECTED: Final = frozenset(
    {"SignatureDoesNotMatch", "NotImplemented", "InvalidArgument", "InvalidRequest"}
)


class CredentialProblem(Enum):
    """What an error tells about the credentials of its request. POSSIBLE: it may have another reason."""

    NONE = 0
    POSSIBLE = 1
    INVALID = 2
    EXPIRED = 3


def credential_problem(error: boto.ClientError | boto.NoCredentialsError) -> CredentialProblem:
    """Return whether other credentials may help against *error*. An answer to a HEAD has a status and no code."""
    if isinstance(error, boto.NoCredentialsError):
        return CredentialProblem.INVALID
    status, code = _status_and_code(error)
    if code in _EXPIRED:
        return CredentialProblem.EXPIRED
    if code in _INVALID:
        return CredentialProblem.INVALID
    possible = code == "AccessDenied" or code == str(status) in {"400", "401", "403"}
    return CredentialProblem.POSSIBLE if possible else CredentialProblem.NONE


def may_reject_header(error: StoreError) -> bool:
    """Return whether *error* may come from a server that does not know a header of the request."""
    cause = error.__cause__
    if not isinstance(cause, boto.ClientError):
        return False
    status, code = _status_and_code(cause)
    return code in _HEADER_REJECTED or code == str(status) in {"400", "501"}


def code_of(error: StoreError) -> str:
    """Return the code of the answer that *error* was made from, "" if there was no answer."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def status_of(error: StoreError) -> int:
    """Return the HTTP status of the answer that *error* was made from, 0 if there was no answer."""
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_repeated(error: StoreError) -> bool:
    """Return whether boto3 sent the request before that, and the answer was lost or was not final."""
    return bool(_answer(error).get("ResponseMetadata", {}).get("RetryAttempts"))


def _answer(error: StoreError) -> dict[str, Any]:
    found: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return found


def _status_and_code(error: boto.ClientError) -> tuple[int, str]:
    answer: Any = error.response
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status, str(answer.get("Error", {}).get("Code", status))


def translate(error: BaseException, label: str, key: str, missing: ErrorClass) -> StoreError:
    """
    Return the error for *key* of the store *label* that *error*, one of `TRANSLATED`, means.

    *missing* is the class for a 404 that does not name the bucket.
    """
    if isinstance(error, boto.ClientError):
        kind, detail = _read_answer(error)
        return (missing if kind is KeyMissing else kind)(label, key, detail)
    kind = next(_BY_CLASS[c.__name__] for c in type(error).__mro__ if c.__name__ in _BY_CLASS)
    no_certificates = isinstance(error, boto.SSLError) and _no_certificates(error)
    if isinstance(error, boto.SSLError) and (no_certificates or "CERTIFICATE_VERIFY_FAILED" in str(error)):
        kind = StoreFault
    if isinstance(error, KeyError):
        detail = f"the answer is incomplete: it lacks {error}"
    elif isinstance(error, boto.CredentialRetrievalError):
        # The text of this error repeats what a credential process printed.
        detail = "the provider of the credentials failed"
    elif isinstance(error, ValueError | ArithmeticError | LookupError) and not isinstance(
        error, boto.BotoCoreError
    ):
        detail = f"the answer is malformed: {one_line(error) or type(error).__name__}"
    else:
        detail = one_line(error)
        if slow := _too_slow(error):
            detail += f"; {slow}"
        if no_certificates:
            detail += (
                "; the trusted certificates cannot be read: check AWS_CA_BUNDLE, or ca_bundle of the profile"
            )
        if isinstance(error, boto.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
            detail += "; the server may not use TLS: if so, write http:// in endpoint_url"
    if kind is AccessDenied:
        detail += "; no request was sent: give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
    return kind(label, key, detail)


def _no_certificates(error: boto.SSLError) -> bool:
    """Return whether the certificates to trust could not be read. Then nothing was sent."""
    reason = getattr(error, "kwargs", {}).get("error")
    found = reason.args[0] if isinstance(reason, HTTPError) and reason.args else reason
    if isinstance(found, ssl.SSLError):
        # Not CERTIFICATE_VERIFY_FAILED: these are about a file, never about what a server sends.
        return "NO_CERTIFICATE_OR_CRL_FOUND" in str(found) or "PEM lib" in str(found)
    return isinstance(found, OSError) and found.errno in _NOT_READ


def _too_slow(error: BaseException | None) -> str:
    """Return the message of the `TooSlow` that *error* was made from, "" if there was none."""
    for _ in range(10):
        if error is None or isinstance(error, TooSlow):
            break
        # boto3 keeps the original error among its arguments.
        error = error.__cause__ or error.__context__ or getattr(error, "kwargs", {}).get("error")
    return str(error) if isinstance(error, TooSlow) else ""


def _read_answer(error: boto.ClientError) -> tuple[ErrorClass, str]:
    """Return the class and the detail for an answer that is not a success."""
    answer: Any = error.response
    status, code = _status_and_code(error)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(str(status), StoreFault)
    detail = f"{error.operation_name} returned {status}"
    if code != str(status):
        detail += f" {code}"
    message = one_line(answer.get("Error", {}).get("Message", ""))
    off = _clock_off(answer) if kind is AccessDenied or kind is ClockWrong else ""
    if off or kind is ClockWrong:
        kind, hint = ClockWrong, f"this machine's clock is wrong{off and f': {off}'}; set it by NTP"
    else:
        hint = _HINTS.get(code) or _lacking(error.operation_name, code, message)
    if message:
        detail += f": {message.removesuffix('.') if hint else message}"
    return kind, f"{detail}; {hint}" if hint else detail


def _clock_off(answer: Mapping[str, Any]) -> str:
    """Return how far this machine's clock is from the server's if that alone makes a signature invalid, else ""."""
    at = served_at(answer)
    ahead_s = 0.0 if at is None else time.time() - at
    if abs(ahead_s) < _VALID_S:
        return ""
    return f"it is {abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's"


def permission_of(operation: str) -> str:
    """Return the permission that *operation* of boto3 needs, as in PutObject; in words if it may be another one."""
    return _PERMISSIONS.get(operation, f"s3:{operation}")


def _lacking(operation: str, code: str, message: str) -> str:
    """Return which permission an answer with *code* may be about, "" if it is about none or *message* tells."""
    needed = permission_of(operation)
    if code == "AccessDenied" and _NAMES_AN_ACTION not in message:
        return f"the request needs the permission {needed}"
    return f"no reason was given; the credentials may be wrong, or lack {needed}" if code == "403" else ""


def one_line(error: object) -> str:
    """Return the text of *error* on one line, cut to a length that fits a message, without credentials."""
    # The text of a server may have characters that no message can carry. Redact first: half a key is not found.
    return " ".join(redact(str(error)).encode(errors="backslashreplace").decode().split())[:300]
