"""
Credentials that can be replaced while a process runs.

Credentials with an expiry renew themselves, as botocore does it. Other credentials are read once, and a process would
keep them after their file was rewritten. So when the store refuses credentials, they are looked up again, once for all
requests that were refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ConfigParseError, NoCredentialsError, PartialCredentialsError

from snapferry.stores.backends.s3.direct_path import Keys
from snapferry.stores.backends.s3.redaction import remember
from snapferry.stores.runtime.interruption import checkpoint

from .sendable import check_sendable

# The first pause between two look-ups, and the longest.
FIRST_PAUSE_S: Final = 0.25
MAX_PAUSE_S: Final = 2.0
# For this long after a look-up, refusals that may have another reason lead to no new look-up.
TRUSTED_S: Final = 15.0
# Look-ups of the first credentials. A file that is being rewritten in place can be read half.
FIRST_LOOK_UPS: Final = 4

_HALF_WRITTEN: Final = (ConfigParseError, PartialCredentialsError)


class RenewableCredentials:
    """
    The credentials that *load* returns: botocore's object, or None. Safe to share between threads.

    They are looked up when they are first needed.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._current: Any = None
        # The keys of credentials that never change: botocore makes a new object for each request.
        self._constant: Keys | None = None
        # The last keys that were checked.
        self._sendable: Keys | None = None
        # Keys that were refused and could not be replaced, how long that was waited for, and until when to trust it.
        self._irreplaceable: tuple[Keys | None, float, float] = None, -1.0, 0.0
        self._looked_up_at = -TRUSTED_S

    # botocore reads these two when it makes a client.

    method = "renewable"

    def get_deferred_property(self, name: str) -> Callable[[], Any]:
        """Return a function that returns the property *name* when it is needed."""
        return lambda: getattr(self.current, name, None)

    @property
    def current(self) -> Any:
        """Botocore's credentials as they are now. Raises `NoCredentialsError` where there are none."""
        found = self._current
        if found is None:
            with self._lock:
                found = self._current
                if found is None:
                    found = self._load_first()
                    self._set_current(found)
        return found

    def _set_current(self, found: Any) -> None:
        self._constant = None
        self._current = found
        # Its subclasses renew themselves.
        if type(found) is Credentials:
            self._constant = found.get_frozen_credentials()

    def get_frozen_credentials(self) -> Keys:
        """
        Return the keys that are valid now.

        Raises what botocore raises where they cannot be found or renewed, and `UnsendableCredentials`.
        """
        keys = self._constant
        if keys is None:
            keys = self.current.get_frozen_credentials()
        if keys != self._sendable:
            check_sendable(keys)
            self._sendable = keys
        remember(keys)
        return keys

    def renew(self, refused: Keys | None, *, wait_s: float) -> bool:
        """
        Look up credentials again because the store refused *refused*; return whether there are other ones now.

        *refused* is None where there were none. Waits up to *wait_s* seconds for new ones. 0 means that the refusal
        may have another reason; then a look-up is skipped within `TRUSTED_S` of the last one.
        """
        with self._lock:
            if self._current is not None and self._frozen() != refused:
                # Another thread has renewed them.
                return True
            now = time.monotonic()
            keys, waited_s, until = self._irreplaceable
            if (keys == refused and waited_s >= wait_s and now < until) or (
                not wait_s and now < self._looked_up_at + TRUSTED_S
            ):
                return False
            self._looked_up_at = now
            pause_s = FIRST_PAUSE_S
            while not self._look_up(refused):
                if time.monotonic() + pause_s > now + wait_s:
                    self._irreplaceable = refused, wait_s, time.monotonic() + TRUSTED_S
                    return False
                time.sleep(pause_s)
                checkpoint()
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
            return True

    def _look_up(self, refused: Keys | None) -> bool:
        try:
            found = self._load()
            if found is None or found.get_frozen_credentials() == refused:
                return False
        except BotoCoreError:
            # A half-written file, or a provider that fails. The old ones stay until there are better ones.
            return False
        self._set_current(found)
        return True

    def _frozen(self) -> Keys | None:
        try:
            keys: Keys = self._current.get_frozen_credentials()
        except BotoCoreError:
            return None
        return keys

    def _load_first(self) -> Any:
        for left in reversed(range(FIRST_LOOK_UPS)):
            try:
                found = self._load()
            except _HALF_WRITTEN:
                if not left:
                    raise
                time.sleep(FIRST_PAUSE_S)
            else:
                if found is None:
                    raise NoCredentialsError
                return found
        raise AssertionError
