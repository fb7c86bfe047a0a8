"""Look up the addresses of a name in a thread of its own: nothing can interrupt `socket.getaddrinfo`."""

from __future__ import annotations

import contextvars
import os
import socket
import threading
from time import monotonic
from typing import Any, Final

from snapferry.stores.runtime.interruption import SLICE_S

from .errors import checkpoint_through_boto

# A resolver asks several servers several times before it gives up.
RESOLVE_S: Final = 30.0

_lookups: dict[tuple[str, int], _Lookup] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _lookups, _lock
    _lookups, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class _Lookup:
    """One look-up of a name, shared by all threads that wait for it."""

    def __init__(self, host: str, port: int) -> None:
        self.ended = threading.Event()
        self.addresses: Any = None
        self.error: Exception | None = None
        self._name = host, port

    def run(self) -> None:
        try:
            self.addresses = socket.getaddrinfo(*self._name, 0, socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - raised in the threads that wait
            self.error = error
        finally:
            with _lock:
                _lookups.pop(self._name, None)
            self.ended.set()


def resolve(host: str, port: int) -> list[Any]:
    """
    Return the TCP addresses of *host* in the form of `socket.getaddrinfo`.

    Raises `OSError` where the look-up fails or takes longer than `RESOLVE_S`, and `CarriedError`.
    """
    name = host.strip("[]")
    try:
        return socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass
    with _lock:
        lookup = _lookups.get((name, port))
        if lookup is None:
            lookup = _lookups[name, port] = _Lookup(name, port)
            # An empty context: the look-up outlives the request of the thread that starts it.
            run = contextvars.Context().run
            threading.Thread(target=run, args=(lookup.run,), name="s3-resolve", daemon=True).start()
    give_up_at = monotonic() + RESOLVE_S
    while not lookup.ended.wait(min(SLICE_S, RESOLVE_S)):
        checkpoint_through_boto()
        if monotonic() >= give_up_at:
            raise TimeoutError(f"the name {name} was not resolved within {RESOLVE_S:.0f} s")
    if lookup.error is not None:
        raise lookup.error
    addresses: list[Any] = lookup.addresses
    return addresses
