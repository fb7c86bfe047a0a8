"""
Make clients of boto3.

Credentials come from boto3's standard chain (environment, profile, role:
https://docs.aws.amazon.com/boto3/latest/guide/credentials.html). Nothing here reads, stores or shows them.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any, Final

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader
from botocore.utils import determine_content_length

from snapferry.stores.backends.s3.http.attempts import before_attempt
from snapferry.stores.backends.s3.options import Settings
from snapferry.stores.backends.s3.sizes import CONCURRENCY, EXPECT_BYTES, PARTS_IN_FLIGHT, RANGES_IN_FLIGHT
from snapferry.stores.network.ip_policy import IpPolicy

from .boto import adapt
from .credentials import RenewableCredentials

_SERVICE: Final = "s3"
# The others give credentials.
_SERVICES: Final = [_SERVICE, "sts", "sso", "sso-oidc", "signin"]

# The operations that create an object and set how it is stored.
_WRITES: Final = frozenset({"PutObject", "CreateMultipartUpload"})
# A copy to quarantine keeps what the object has. Another copy replaces it, and has this header.
_REPLACES: Final = "x-amz-metadata-directive"


def prepare() -> None:
    """
    Read what every client is made from, once for all processes that are forked from this one.

    Looks up no credentials, connects to nothing, and never raises: an error in the configuration is raised when a
    client is made. May be called again.
    """
    # ValueError: the endpoint in the environment or in a profile is not a URL.
    with suppress(BotoCoreError, ValueError):
        session = _new_session(None, None)
        session.client(_SERVICE, region_name="us-east-1", config=Config(signature_version=UNSIGNED)).close()


def _new_session(profile: str | None, region: str | None) -> boto3.Session:
    core = _new_core(profile)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return boto3.Session(botocore_session=core, region_name=region)


def _new_core(profile: str | None) -> Any:
    core = botocore.session.get_session()
    if profile is not None:
        core.set_config_variable("profile", profile)
    return core


@cache
def _loader(data_path: str | None) -> Loader:
    # Measured: reading these files is five sixths of the time to make a client. The loader keeps them.
    loader = create_loader(data_path)
    # Before it reads any, it would look into the folders of 400 services, twice: a third of that time.
    loader.list_available_services = lambda *_: _SERVICES
    return loader


def credentials_of(profile: str | None) -> RenewableCredentials:
    """Return the credentials of *profile*, None for the default ones. They are looked up when they are needed."""
    # A new session for each look-up, because a session keeps what it has read from files and programs.
    return RenewableCredentials(lambda: _new_core(profile).get_credentials())


class _Provider:
    """The provider of credentials that botocore asks."""

    def __init__(self, credentials: RenewableCredentials) -> None:
        self._credentials = credentials

    def load_credentials(self) -> RenewableCredentials:
        return self._credentials


def new_client(
    profile: str | None,
    region: str | None,
    endpoint: str | None,
    settings: Settings,
    ip_policy: IpPolicy,
    *,
    attempts: int,
    connect_timeout_s: float,
    read_timeout_s: float,
) -> tuple[Any, RenewableCredentials | None, bool]:
    """
    Return a client of boto3, its credentials, and whether its configuration wants checksums with writes.

    The credentials are None where requests are not signed. Raises ValueError where the endpoint or the region makes
    no URL, and what boto3 raises.
    """
    session = _new_session(profile, region)
    core = session._session  # noqa: SLF001 - boto3 has no public name for it
    credentials = None if settings.unsigned else credentials_of(profile)
    if credentials is not None:
        core.register_component("credential_provider", _Provider(credentials))
    style = settings.addressing_style or (core.get_config_variable("s3") or {}).get("addressing_style")
    if endpoint and not style:
        # A server at an address of its own seldom answers at bucket.address.
        style = "path"
    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # A copy reads and writes at once, and each large object has several ranges and parts in flight.
        max_pool_connections=CONCURRENCY * (RANGES_IN_FLIGHT + PARTS_IN_FLIGHT),
        # The caller gives a checksum where one is sent. boto3 would add a CRC to everything else.
        request_checksum_calculation="when_required",
        # Every object is verified by its address, so a second checksum of what is read would prove nothing new.
        response_checksum_validation="when_required",
        # Sign the SHA-256 of every body, over TLS too: servers check it that know no checksums.
        s3={"payload_signing_enabled": True} | ({"addressing_style": style} if style else {}),
        signature_version=UNSIGNED if settings.unsigned else None,
    )
    # AWS redirects to the region of the bucket. Other servers mostly expect us-east-1.
    region = session.region_name or "us-east-1"
    client = session.client(_SERVICE, region_name=region, endpoint_url=endpoint, config=config)
    adapt(client, attempts=attempts, ip_policy=ip_policy)
    events = client.meta.events
    events.register_last("before-call.s3", _send_small_body_at_once)
    if settings.write_headers or settings.all_headers:
        events.register_last("before-call.s3", _Headers(settings))
    events.register_last("before-send.s3", before_attempt)
    events.register_last("before-parameter-build.s3", _do_not_follow_redirect)
    checksums = str(core.get_config_variable("request_checksum_calculation")).lower() != "when_required"
    return client, credentials, checksums


class _Headers:
    """Adds the headers of the store's settings to each request before it is signed."""

    def __init__(self, settings: Settings) -> None:
        self._always = dict(settings.all_headers)
        self._writing = self._always | dict(settings.write_headers)

    def __call__(self, model: Any, params: dict[str, Any], **_: object) -> None:
        headers = params["headers"]
        writes = model.name in _WRITES or _REPLACES in headers
        headers.update(self._writing if writes else self._always)


def _do_not_follow_redirect(model: Any, context: dict[str, Any], **_: object) -> None:
    """
    Stop boto3 from following a redirect of HeadBucket, the call by which it finds the region of a bucket.

    With a server that answers 301 without a region, boto3 would call HeadBucket within HeadBucket without end. Other
    calls are still redirected.
    """
    if model.name == "HeadBucket":
        context.get("s3_redirect", {})["redirected"] = True


def _send_small_body_at_once(params: dict[str, Any], **_: object) -> None:
    """
    Do not wait for "100 Continue" before a small body is sent: that takes a whole round trip.

    A large body is worth the wait: where the server refuses it, the connection breaks and the answer is lost.
    """
    if (determine_content_length(params.get("body")) or 0) <= EXPECT_BYTES:
        params["headers"].pop("Expect", None)
