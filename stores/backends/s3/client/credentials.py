"""
Credentials that can be replaced while a process runs.

Credentials with an end renew themselves, as botocore has it. Others are read once, and the process would keep them
after the file was rewritten. Here a refusal by the store makes them be looked up anew, once for all requests that it
refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ConfigParseError, NoCredentialsError, PartialCredentialsError

from snapferry.stores.backends.s3.direct.sigv4 import Keys
from snapferry.stores.backends.s3.redaction import remember
from snapferry.stores.runtime.interruption import checkpoint

# The first pause between two look-ups, and the longest.
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 2.0
# After a look-up, further refusals that may have other reasons are believed for so long.
BELIEVED_S: Final = 15.0
# A file that is rewritten in place can be read half.
FIRST_TRIES: Final = 4

_HALF_WRITTEN: Final = (ConfigParseError, PartialCredentialsError)


class RenewableCredentials:
    """
    The credentials that *load* finds: botocore's object, or None. Safe to share between threads.

    Nothing is looked up before somebody asks.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._current: Any = None
        # What was refused and could not be replaced, how long that was waited for, and until when it is believed.
        self._believed: tuple[Keys | None, float, float] = None, -1.0, 0.0
        self._looked_at = -BELIEVED_S

    # What botocore wants to know besides when it makes a client.

    method = "renewable"

    def get_deferred_property(self, name: str) -> Callable[[], Any]:
        """Return what tells the property *name* when it is needed."""
        return lambda: getattr(self.current, name, None)

    @property
    def current(self) -> Any:
        """Botocore's credentials as they are now. Raises `NoCredentialsError` where there are none."""
        found = self._current
        if found is None:
            with self._lock:
                found = self._current
                if found is None:
                    found = self._current = self._load_first()
        return found

    def get_frozen_credentials(self) -> Keys:
        """Return what is valid at this moment. Raises what botocore raises where that cannot be told."""
        keys: Keys = self.current.get_frozen_credentials()
        remember(keys)
        return keys

    def renew(self, refused: Keys | None, *, wait_s: float) -> bool:
        """
        Look up credentials again because the store refused *refused*; return whether there are others now.

        None: there were none. New ones are waited for, for up to *wait_s* seconds. With 0 the refusal may
        have another reason, and not every one of those leads to a look-up.
        """
        with self._lock:
            if self._current is not None and self._frozen() != refused:
                # Another thread was faster.
                return True
            now = time.monotonic()
            keys, waited_s, until = self._believed
            if (keys == refused and waited_s >= wait_s and now < until) or (
                not wait_s and now < self._looked_at + BELIEVED_S
            ):
                return False
            self._looked_at = now
            pause = FIRST_PAUSE_S
            while not self._look_up(refused):
                if time.monotonic() + pause > now + wait_s:
                    self._believed = refused, wait_s, time.monotonic() + BELIEVED_S
                    return False
                time.sleep(pause)
                checkpoint()
                pause = min(2 * pause, LONGEST_PAUSE_S)
            return True

    def _look_up(self, refused: Keys | None) -> bool:
        try:
            found = self._load()
            if found is None or found.get_frozen_credentials() == refused:
                return False
        except BotoCoreError:
            # A file that is half written, or a provider that fails: the old ones stay until there are better.
            return False
        self._current = found
        return True

    def _frozen(self) -> Keys | None:
        try:
            keys: Keys = self._current.get_frozen_credentials()
        except BotoCoreError:
            return None
        return keys

    def _load_first(self) -> Any:
        for left in reversed(range(FIRST_TRIES)):
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
