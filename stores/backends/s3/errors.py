"""
What boto3's errors mean: the one map from them to `snapferry.stores.errors`.

An answer that is not understood is an error, never "absent".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from http.client import HTTPException
from typing import Any, Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from snapferry.stores.errors import (
    AccessDenied,
    InvalidStoreURL,
    KeyMissing,
    StoreError,
    StoreFault,
    StoreFull,
    StoreNotFound,
    StoreUnavailable,
)

from .http.sockets import AnswerTooLong, TooSlow
from .redaction import conceal

Kind = type[StoreError]


def _table(words_of: Mapping[Kind, str]) -> dict[str, Kind]:
    return {word: kind for kind, words in words_of.items() for word in words.split()}


# What an answer's code means. An answer without a body has its status as code. On "begin again", last:
# a multipart upload that is gone was removed, or was completed by an attempt whose answer got lost.
_BY_CODE: Final = _table(
    {
        StoreNotFound: "NoSuchBucket",
        KeyMissing: "NoSuchKey NotFound 404",
        AccessDenied: """AccessDenied AuthorizationHeaderMalformed ExpiredToken ExpiredTokenException
            InvalidAccessKeyId InvalidToken RequestExpired SignatureDoesNotMatch TokenRefreshRequired""",
        StoreFault: "InvalidObjectState NotImplemented",
        StoreFull: "InsufficientStorage QuotaExceeded XMinioStorageFull",
        StoreUnavailable: """InternalError OperationAborted RequestTimeout ServiceUnavailable SlowDown Throttling
            ThrottlingException BadDigest IncompleteBody XAmzContentSHA256Mismatch ConditionalRequestConflict
            NoSuchUpload""",
    }
)
# What its status means where the code is not known. Any other status is a fault.
_BY_STATUS: Final = _table(
    {
        AccessDenied: "401 403",
        StoreUnavailable: "408 429 500 502 503 504 509 520 521 522 523 524 529",
        StoreFull: "507",
    }
)
# What an exception means, by its class's name or that of the nearest base: some exist in new botocore only.
# A KeyError, which is a LookupError, is an answer that lacks what it must have; taken as it is, an empty body would be
# an empty store.
_BY_CLASS: Final = _table(
    {
        StoreFault: "BotoCoreError UndefinedModelAttributeError AnswerTooLong",
        StoreUnavailable: """ConnectionError HTTPClientError IncompleteReadError ChecksumError FlexibleChecksumError
            CapacityNotAvailableError MetadataRetrievalError ResponseParserError
            HTTPError HTTPException OSError ValueError ArithmeticError LookupError""",
        AccessDenied: """CredentialRetrievalError LoginError NoAuthTokenError NoCredentialsError
            PartialCredentialsError ProfileNotFound RefreshWithMFAUnsupportedError SSOError TokenRetrievalError
            UnknownCredentialError UnknownTokenProviderError""",
        InvalidStoreURL: "InvalidDNSNameError InvalidRegionError ParamValidationError",
    }
)
# Errors of urllib3, http.client and the system come through while a body is read. The last three are how a number,
# a date or an encoding is refused that a server made up.
CAUGHT: Final = (
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
    "403": "no reason was given; the credentials may be wrong or lack the permission",
    "ExpiredToken": "the session has expired; log in again",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
}


# The store says that credentials were good once.
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
# They are none; a file with them that is rewritten in place can be read half.
_WRONG: Final = frozenset(
    {"InvalidToken", "InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"}
)
# What a server says that does not know a header.
_DISLIKES: Final = frozenset({"SignatureDoesNotMatch", "NotImplemented", "InvalidArgument", "InvalidRequest"})


class Doubt(Enum):
    """What an error says of the credentials that it came for."""

    NONE = 0
    SLIGHT = 1
    WRONG = 2
    EXPIRED = 3


def credentials_doubted(error: boto.ClientError | boto.NoCredentialsError) -> Doubt:
    """Say whether *error* may be over with other credentials. An answer to a HEAD has a status and no reason."""
    if isinstance(error, boto.NoCredentialsError):
        return Doubt.WRONG
    status, code = _status_and_code(error)
    if code in _EXPIRED:
        return Doubt.EXPIRED
    if code in _WRONG:
        return Doubt.WRONG
    slight = code == "AccessDenied" or code == str(status) in {"400", "401", "403"}
    return Doubt.SLIGHT if slight else Doubt.NONE


def dislikes_checksums(error: StoreError) -> bool:
    """Say whether *error* can be that of a server that does not know a checksum's header."""
    cause = error.__cause__
    if not isinstance(cause, boto.ClientError):
        return False
    status, code = _status_and_code(cause)
    return code in _DISLIKES or code == str(status) in {"400", "501"}


def _status_and_code(error: boto.ClientError) -> tuple[int, str]:
    answer: Any = error.response
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status, str(answer.get("Error", {}).get("Code", status))


def translated(error: BaseException, label: str, key: str, missing: Kind) -> StoreError:
    """Return what *error*, one of `CAUGHT`, means for *key* of the store *label*; see `S3Backend._errors`."""
    if isinstance(error, boto.ClientError):
        kind, said = _read_answer(error)
        return (missing if kind is KeyMissing else kind)(label, key, said)
    kind = next(_BY_CLASS[c.__name__] for c in type(error).__mro__ if c.__name__ in _BY_CLASS)
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        kind = StoreFault
    if isinstance(error, KeyError):
        said = f"the answer was cut short: it lacks {error}"
    elif isinstance(error, boto.CredentialRetrievalError):
        # Its text quotes what a credential process printed.
        said = "the provider of the credentials failed"
    elif isinstance(error, ValueError | ArithmeticError | LookupError) and not isinstance(
        error, boto.BotoCoreError
    ):
        said = f"the answer makes no sense: {one_line(error) or type(error).__name__}"
    else:
        said = one_line(error)
        if slow := _found_too_slow(error):
            said += f"; {slow}"
    if kind is AccessDenied:
        said += "; nothing was asked of the store: credentials come from the environment, a profile or a role"
    return kind(label, key, said)


def _found_too_slow(error: BaseException | None) -> str:
    """Return the words of the `TooSlow` that *error* was made from, "" if there was none."""
    for _ in range(10):
        if error is None or isinstance(error, TooSlow):
            break
        # boto3 keeps what it was made from among its arguments.
        error = error.__cause__ or error.__context__ or getattr(error, "kwargs", {}).get("error")
    return str(error) if isinstance(error, TooSlow) else ""


def _read_answer(error: boto.ClientError) -> tuple[Kind, str]:
    """Return what an answer that is not success means, and the words for it."""
    answer: Any = error.response
    status, code = _status_and_code(error)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(str(status), StoreFault)
    said = f"{error.operation_name} was answered {status}"
    if code != str(status):
        said += f" {code}"
    message = one_line(answer.get("Error", {}).get("Message", ""))
    return kind, "; ".join(
        part for part in (f"{said}: {message}" if message else said, _HINTS.get(code)) if part
    )


def one_line(error: object) -> str:
    """Return the words of *error*, short enough for a message, in one line, without the keys that requests carry."""
    # A server's text may hold what no message can carry. Keys go first: cut in two, none would be found.
    return " ".join(conceal(str(error)).encode(errors="backslashreplace").decode().split())[:300]
