"""
Find out where the direct path can be used: the implementation of `DirectPaths`.

boto3 prepares one request of each kind without sending it. The direct path is used only where every signature made
here equals boto3's.
"""

from __future__ import annotations

import logging
import ssl
import threading
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, Final

from snapferry.stores.backends.s3.direct_path import COPY_HEADERS, RANGE_HEADERS, Credentials, Keys
from snapferry.stores.backends.s3.http.attempts import signed_request
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy

from .http1 import ConnectionPool
from .requests import DirectRequests
from .template import Template, template_of

logger = logging.getLogger(__name__)

# After this many failures in a row where boto3 succeeded, the direct path is not used again.
MAX_FAILURES: Final = 3

# Each request is prepared for a key of one letter, and a PUT with a body of one byte.
_KEY: Final = "k"
_BODY: Final = b"k"


class _Renewed(Exception):
    """The credentials changed while signatures were compared."""


class Paths:
    """
    The direct paths of one client of boto3; see `DirectPaths`.

    Without *credentials* there are none. *cafile* has the certificates that are trusted. *checksums*: signatures of
    requests with a checksum of the body are compared too. The other parameters are those of `ConnectionPool`.
    """

    def __init__(
        self,
        client: Any,
        credentials: Credentials | None,
        *,
        cafile: str,
        connect_timeout_s: float,
        read_timeout_s: float,
        ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL,
        checksums: bool = True,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._cafile = cafile
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._ip_policy = ip_policy
        self._checksums = checksums
        self._pools: dict[tuple[tuple[str, int], bool], ConnectionPool] = {}
        self._paths: dict[tuple[str, str], DirectRequests | None] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def path_to(self, bucket: str, prefix: str) -> DirectRequests | None:
        """Return the path to the keys below *prefix* in *bucket*, None where there is none. Never raises."""
        place = bucket, prefix
        try:
            return self._paths[place]
        except KeyError:
            pass
        with self._lock:
            if place not in self._paths:
                try:
                    self._paths[place] = self._find(bucket, prefix)
                except Exception as error:  # noqa: BLE001 - boto3 raises it again, where it is translated
                    logger.debug("%s: no direct path: %s", bucket, type(error).__name__)
        return self._paths.get(place)

    def _find(self, bucket: str, prefix: str) -> DirectRequests | None:
        if self._failures.get((bucket, prefix), 0) >= MAX_FAILURES:
            logger.info("%s: the direct path does not work; boto3 sends all requests from now on", bucket)
            return None
        if self._credentials is None:
            return None
        keys = self._credentials.get_frozen_credentials()
        request = signed_request(self._client.head_object, Bucket=bucket, Key=f"{prefix}{_KEY}")
        reading = template_of(request, keys)
        request = signed_request(self._client.list_objects_v2, Bucket=bucket, Prefix=_KEY)
        listing = template_of(request, keys)
        writing = self._template_of_body(self._client.put_object, bucket, prefix, keys)
        if reading and listing and writing:
            return DirectRequests(
                self._credentials,
                reading,
                writing,
                listing,
                self._pool_of,
                partial(self._template_of_copy, bucket, prefix),
                partial(self._template_of_range, bucket, prefix),
                partial(self._template_of_part, bucket, prefix),
            )
        if self._credentials.get_frozen_credentials() != keys:
            # boto3 and this module may have used different keys. It counts as a failure, because the keys may change
            # each time.
            self.record_failure(bucket, prefix)
            raise _Renewed
        return None

    def _template_of_body(
        self, call: Callable[..., Any], bucket: str, prefix: str, keys: Keys, **parameters: object
    ) -> Template | None:
        checksum = b2a_base64(sha256(_BODY).digest(), newline=False).decode()
        templates = []
        for more in ({"ChecksumSHA256": checksum}, {}) if self._checksums else ({},):
            request = signed_request(
                call, Bucket=bucket, Key=f"{prefix}{_KEY}", Body=_BODY, **parameters, **more
            )
            templates.append(template_of(request, keys, _BODY))
        return templates[0] if all(templates) else None

    def _template_of_copy(self, bucket: str, prefix: str, more: Mapping[str, str]) -> Template | None:
        """Return the template of a copy that has the headers *more*, None where boto3 must send it. Never raises."""
        # boto3 would encode a key that is encoded already.
        more = {**more, "x-amz-copy-source": f"{_KEY}/{_KEY}"}
        return self._template_with(self._client.copy_object, bucket, prefix, more, COPY_HEADERS)

    def _template_of_range(self, bucket: str, prefix: str, more: Mapping[str, str]) -> Template | None:
        """Return the template of a GET that has the headers *more*, None where boto3 must send it. Never raises."""
        return self._template_with(self._client.get_object, bucket, prefix, more, RANGE_HEADERS)

    def _template_of_part(self, bucket: str, prefix: str, _: Mapping[str, str]) -> Template | None:
        """Return the template of a part of an upload, None where boto3 must send it. Never raises."""
        try:
            keys = self._credentials.get_frozen_credentials() if self._credentials else None
            upload = {"UploadId": _KEY, "PartNumber": 1}
            return keys and self._template_of_body(self._client.upload_part, bucket, prefix, keys, **upload)
        except Exception as error:  # noqa: BLE001 - boto3 raises it again, where it is translated
            logger.debug("%s: no direct path for parts: %s", bucket, type(error).__name__)
            return None

    def _template_with(
        self,
        call: Callable[..., Any],
        bucket: str,
        prefix: str,
        more: Mapping[str, str],
        names: Mapping[str, str],
    ) -> Template | None:
        try:
            keys = self._credentials.get_frozen_credentials() if self._credentials else None
            parameters = {names[name]: value for name, value in more.items()}
            request = signed_request(call, Bucket=bucket, Key=f"{prefix}{_KEY}", **parameters)
            return template_of(request, keys, more=more) if keys else None
        except Exception as error:  # noqa: BLE001 - boto3 raises it again, where it is translated
            logger.debug("%s: no direct path with headers: %s", bucket, type(error).__name__)
            return None

    def record_failure(self, bucket: str, prefix: str) -> None:
        """Note that boto3 succeeded where the path failed: forget the path, and find another one a few times."""
        place = bucket, prefix
        self._failures[place] = self._failures.get(place, 0) + 1
        self._paths.pop(place, None)

    def record_success(self, bucket: str, prefix: str) -> None:
        """Note that the path works."""
        if self._failures:
            self._failures.pop((bucket, prefix), None)

    def close(self) -> None:
        """Close idle connections. New ones may be made afterwards."""
        for pool in self._pools.values():
            pool.close()

    def _pool_of(self, template: Template) -> ConnectionPool:
        key = template.address, template.tls
        if key not in self._pools:
            pool = ConnectionPool(
                template.address,
                tls=self._tls_context() if template.tls else None,
                connect_timeout_s=self._connect_timeout_s,
                read_timeout_s=self._read_timeout_s,
                ip_policy=self._ip_policy,
            )
            self._pools.setdefault(key, pool)
        return self._pools[key]

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._cafile)
        # boto3 accepts certificates that are valid but break a rule of RFC 5280.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context
