"""
The identity of a process, and whether it is known to be dead or stopped.

An identity is ``<machine>-<pid>-<token>``. The machine is one boot and one
numbering of processes (containers have their own), so a process number means
one process at a time; the random token tells a process from an earlier one with
its number, and from its own children.
"""

from __future__ import annotations

import os
import secrets
from functools import cache

_token = secrets.token_hex(6)


def _renew_token() -> None:
    global _token
    _token = secrets.token_hex(6)
    identity.cache_clear()


os.register_at_fork(after_in_child=_renew_token)


@cache
def identity() -> str:
    """Return this process's identity, which no other process ever has."""
    return f"{_machine()}-{os.getpid()}-{_token}"


def is_dead(identity: str) -> bool:
    """Return whether the process of *identity* is known to be dead. False for processes of other machines."""
    parts = identity.split("-")
    if len(parts) != 3 or parts[0] != _machine() or not parts[1].isdigit():
        return False
    try:
        process = int(parts[1])
        if process == os.getpid():
            return parts[2] != _token
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        # ValueError and OverflowError: not the number of any process.
        return False
    return False


def is_stopped(identity: str) -> bool:
    """Return whether the process of *identity*, which is of this machine, is stopped, as by SIGSTOP."""
    try:
        with open(f"/proc/{int(identity.split('-')[1])}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(") ")[2].startswith("T")
    except (OSError, ValueError, IndexError):
        return False


def is_of_this_machine(identity: str) -> bool:
    """Return whether the process of *identity* runs or ran on this machine, since its last start."""
    return identity.split("-", maxsplit=1)[0] == _machine()


@cache
def _machine() -> str:
    """Return a name of this machine and boot. It is random if the system tells none, so no process counts as dead."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip().replace("-", "")[:12]
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return secrets.token_hex(6)
