"""The clients of this process: one for each set of settings, with its direct paths. Made here alone."""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from botocore.httpsession import where

from snapferry.stores.backends.s3.direct.paths import Paths
from snapferry.stores.backends.s3.direct_path import DirectPaths
from snapferry.stores.backends.s3.features import ServerFeatures
from snapferry.stores.backends.s3.http.pace import Pace
from snapferry.stores.backends.s3.options import Settings
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy

from .boto import connects_directly, trusted_authorities
from .credentials import RenewableCredentials
from .session import new_client

ATTEMPTS: Final = 5
CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 60

DEFAULT: Final = Settings()

_clients: dict[tuple[str | None, str | None, str | None, Settings, IpPolicy, int], Client] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Client:
    """What a process has for one set of settings: the client of boto3, and the direct paths."""

    def __init__(
        self,
        boto_client: Any,
        credentials: RenewableCredentials | None,
        ip_policy: IpPolicy,
        *,
        checksums: bool,
    ) -> None:
        # Any: boto3 makes its methods at run time.
        self.boto: Any = boto_client
        self.credentials = credentials
        """None where requests are not signed."""
        self._checksums = checksums
        trusted = trusted_authorities(boto_client)
        self.paths: DirectPaths = Paths(
            boto_client,
            credentials if connects_directly(boto_client) else None,
            cafile=trusted if isinstance(trusted, str) else where(),
            connect_timeout_s=CONNECT_TIMEOUT_S,
            read_timeout_s=READ_TIMEOUT_S,
            ip_policy=ip_policy,
            checksums=checksums,
        )
        self._features: dict[tuple[str, str], ServerFeatures] = {}
        self._paces: dict[tuple[str, str], Pace] = {}

    def features(self, bucket: str, prefix: str) -> ServerFeatures:
        """Return what this process knows about the server of the store at *prefix* in *bucket*."""
        place = bucket, prefix
        found = self._features.get(place)
        return found or self._features.setdefault(place, ServerFeatures(checksums=self._checksums))

    def pace(self, bucket: str, prefix: str, label: str) -> Pace:
        """Return how fast this process sends to the store at *prefix* in *bucket*, which messages call *label*."""
        place = bucket, prefix
        found = self._paces.get(place)
        return found or self._paces.setdefault(place, Pace(label))

    def close(self) -> None:
        """Close idle connections."""
        self.boto.close()
        self.paths.close()


def client_for(
    profile: str | None,
    region: str | None,
    endpoint: str | None,
    settings: Settings = DEFAULT,
    ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL,
) -> Client:
    """
    Return the client of this process for these settings; its connections go only where *ip_policy* allows.

    A forked child gets a client of its own, because the connections of the other one are its parent's. The parent's
    client is not dropped in the child: that could wait for a lock that a thread of the parent held. Raises as
    `session.new_client` does.
    """
    key = (profile, region, endpoint, settings, ip_policy, os.getpid())
    found = _clients.get(key)
    if found is None:
        with _lock:
            found = _clients.get(key)
            if found is None:
                boto_client, credentials, checksums = new_client(
                    profile,
                    region,
                    endpoint,
                    settings,
                    ip_policy,
                    attempts=ATTEMPTS,
                    connect_timeout_s=CONNECT_TIMEOUT_S,
                    read_timeout_s=READ_TIMEOUT_S,
                )
                found = _clients[key] = Client(boto_client, credentials, ip_policy, checksums=checksums)
    return found
