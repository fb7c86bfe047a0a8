"""
The clients of boto3, and the direct ways beside them: this module alone makes them, one for each process and place.

Credentials come from boto3's standard chain (environment, profile, role); nothing in here reads, keeps or shows one.
"""

from __future__ import annotations

import os
import ssl
import threading
from contextlib import suppress
from functools import cache
from typing import Any, Final

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.httpsession import where
from botocore.loaders import Loader, create_loader
from botocore.utils import determine_content_length

from snapferry.stores.backends.s3.confirm import Conduct
from snapferry.stores.backends.s3.direct.client import Ways, authorities
from snapferry.stores.backends.s3.direct.http1 import Wire
from snapferry.stores.backends.s3.http.attempts import before_attempt
from snapferry.stores.backends.s3.multipart import PARTS_IN_FLIGHT
from snapferry.stores.backends.s3.options import Settings
from snapferry.stores.backends.s3.ranges import RANGES_IN_FLIGHT
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, Reach

from .boto import adapt
from .credentials import RenewableCredentials

# Objects that a process has in flight at once.
CONCURRENCY: Final = 32
ATTEMPTS: Final = 5
CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 60
# A body that is larger waits for the server's leave before it is sent.
EXPECT_BYTES: Final = 1024 * 1024

DEFAULT: Final = Settings()

# The operations that begin an object, and decide how it is kept.
_WRITES: Final = frozenset({"PutObject", "CreateMultipartUpload"})

_clients: dict[tuple[str | None, str | None, str | None, Settings, Reach, int], Client] = {}
_making = threading.Lock()


def _after_fork() -> None:
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Client:
    """What a process has for one set of settings: boto3's client, and the direct ways that it knows of."""

    def __init__(
        self, boto_client: Any, credentials: RenewableCredentials | None, reach: Reach, *, checksums: bool
    ) -> None:
        self._reach = reach
        # Any: boto3 makes its methods at run time.
        self.boto: Any = boto_client
        self.credentials = credentials
        """None where requests are not signed."""
        self._checksums = checksums
        self.ways = Ways(boto_client, credentials, self._dial, checksums=checksums)
        self._conducts: dict[tuple[str, str], Conduct] = {}

    def conduct(self, bucket: str, prefix: str) -> Conduct:
        """Return what this process has learnt of the store at *prefix* in *bucket*."""
        place = bucket, prefix
        found = self._conducts.get(place)
        return found or self._conducts.setdefault(place, Conduct(checksums=self._checksums))

    def _dial(self, address: tuple[str, int], tls: bool) -> Wire:
        context = None
        if tls:
            trusted = authorities(self.boto)
            context = ssl.create_default_context(cafile=trusted if isinstance(trusted, str) else where())
            # boto3 takes certificates that are valid though not to the letter of the standard.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return Wire(
            address,
            tls=context,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            read_timeout_s=READ_TIMEOUT_S,
            reach=self._reach,
        )

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self.boto.close()
        self.ways.close()


def client_for(
    profile: str | None,
    region: str | None,
    endpoint: str | None,
    settings: Settings = DEFAULT,
    reach: Reach = ANYWHERE_BUT_LINK_LOCAL,
) -> Client:
    """
    Return the process's client for these settings; its connections go where *reach* allows.

    A client is never used in a forked child: its connections are the parent's.
    It is not dropped there either, since that could wait for a lock that a
    thread of the parent held.
    """
    key = (profile, region, endpoint, settings, reach, os.getpid())
    found = _clients.get(key)
    if found is None:
        with _making:
            found = _clients.get(key)
            if found is None:
                found = _clients[key] = _make_client(profile, region, endpoint, settings, reach)
    return found


def prepare() -> None:
    """
    Read what every client is made from, once for all processes that are forked from here.

    Asks for no credentials, connects to nothing, and cannot fail: what is wrong with
    the configuration is said where a client is asked for. May be called again.
    """
    # botocore says by a ValueError that an endpoint of the environment or of a profile is no URL.
    with suppress(BotoCoreError, ValueError):
        session = _session(None, None)
        session.client("s3", region_name="us-east-1", config=Config(signature_version=UNSIGNED)).close()


def _session(profile: str | None, region: str | None) -> boto3.Session:
    bare = botocore.session.get_session()
    if profile is not None:
        bare.set_config_variable("profile", profile)
    bare.register_component("data_loader", _loader(bare.get_config_variable("data_path")))
    return boto3.Session(botocore_session=bare, region_name=region)


@cache
def _loader(data_path: str | None) -> Loader:
    # It keeps what it has read, which is five sixths of what a client takes to be made.
    return create_loader(data_path)


def _credentials_of(profile: str | None) -> RenewableCredentials:
    def load() -> Any:
        # A session of its own: what one session has read of files and programs, it keeps.
        bare = botocore.session.get_session()
        if profile is not None:
            bare.set_config_variable("profile", profile)
        return bare.get_credentials()

    return RenewableCredentials(load)


class _Provider:
    """Botocore asks this for the credentials of a session."""

    def __init__(self, credentials: RenewableCredentials) -> None:
        self._credentials = credentials

    def load_credentials(self) -> RenewableCredentials:
        return self._credentials


def _make_client(
    profile: str | None, region: str | None, endpoint: str | None, settings: Settings, reach: Reach
) -> Client:
    session = _session(profile, region)
    bare = session._session
    credentials = None if settings.unsigned else _credentials_of(profile)
    if credentials is not None:
        bare.register_component("credential_provider", _Provider(credentials))
    style = settings.addressing_style or (bare.get_config_variable("s3") or {}).get("addressing_style")
    if endpoint and not style:
        # A server at an address of its own seldom answers to bucket.address.
        style = "path"
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        # A copy reads and writes at once, and large objects have ranges and parts of their own in flight.
        max_pool_connections=CONCURRENCY * (RANGES_IN_FLIGHT + PARTS_IN_FLIGHT),
        # A checksum goes along where the caller gives one. boto3 would add a CRC to everything else.
        request_checksum_calculation="when_required",
        # Every object is verified by its address, so a second checksum of what is read would tell nothing new.
        response_checksum_validation="when_required",
        # The SHA-256 of every body is signed, over TLS too: servers check it that know no checksums.
        s3={"payload_signing_enabled": True} | ({"addressing_style": style} if style else {}),
        signature_version=UNSIGNED if settings.unsigned else None,
    )
    # AWS redirects to the bucket's region by itself; other servers mostly want this one.
    region = session.region_name or "us-east-1"
    client = session.client("s3", region_name=region, endpoint_url=endpoint, config=config)
    adapt(client, attempts=ATTEMPTS, reach=reach)
    client.meta.events.register_last("before-call.s3", _send_at_once)
    if settings.write_headers or settings.all_headers:
        client.meta.events.register_last("before-call.s3", _Headers(settings))
    client.meta.events.register_last("before-send.s3", before_attempt)
    client.meta.events.register_last("before-parameter-build.s3", _take_redirect_for_answer)
    wanted = bare.get_config_variable("request_checksum_calculation")
    return Client(client, credentials, reach, checksums=str(wanted).lower() != "when_required")


class _Headers:
    """Adds what the store's settings ask for to each request, before it is signed."""

    def __init__(self, settings: Settings) -> None:
        self._always = dict(settings.all_headers)
        self._writing = self._always | dict(settings.write_headers)

    def __call__(self, model: Any, params: dict[str, Any], **_: object) -> None:
        params["headers"].update(self._writing if model.name in _WRITES else self._always)


def _take_redirect_for_answer(model: Any, context: dict[str, Any], **_: object) -> None:
    """
    Let boto3 not follow a redirect of HeadBucket, the call by which it looks for the bucket's region.

    A server that says 301 and no region would have it ask within the asking,
    without end. Other calls are still redirected.
    """
    if model.name == "HeadBucket":
        context.get("s3_redirect", {})["redirected"] = True


def _send_at_once(params: dict[str, Any], **_: object) -> None:
    """
    Do not wait for the server's leave before sending a small body: that costs a whole round trip.

    A large one is worth the wait: where the server refuses, its answer would
    be lost in the breakdown of the connection.
    """
    if (determine_content_length(params.get("body")) or 0) <= EXPECT_BYTES:
        params["headers"].pop("Expect", None)
