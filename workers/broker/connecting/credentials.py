"""
User and password from a file or a command, read again at each connection, so that they can change while a fleet runs.

The file, or the output of the command, is the password, on one line, or a JSON object with ``password`` and, if they
differ from those in the URL, ``username``, ``sentinel_username`` and ``sentinel_password``. This is the form in which
secret managers keep them.

A refused password counts as an outage here: it may have changed in Redis a moment before it changes in the file.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, ConnectionError

from snapferry.workers.settings.broker_url import BrokerURL
from snapferry.workers.settings.environment import child_environment
from snapferry.workers.settings.toml_file import InvalidToml, read_secret

COMMAND_S: Final = 20.0
"""The most seconds that the command may take. A process answers nothing meanwhile."""

KEPT_S: Final = 60.0
"""Seconds for which the output of the command is used again, unless Redis refuses it."""

_MOST_BYTES: Final = 64 * 1024

_KEYS: Final = ("username", "password", "sentinel_username", "sentinel_password")


class CredentialsUnavailable(ConnectionError):
    """The file or the command supplies no usable credentials now. The message holds no secret."""


class CredentialsRefused(ConnectionError):
    """Redis or a sentinel refuses the credentials that the file or the command supplied last."""


@dataclass(frozen=True)
class _Found:
    values: dict[str, str] = field(repr=False)
    read_at: float


class RotatingCredentials:
    """The credentials of *broker*, from its file or command."""

    def __init__(self, broker: BrokerURL) -> None:
        self._broker = broker
        self._found: _Found | None = None
        self.of_redis = _Provider(self, "")
        """For connections to Redis."""
        self.of_sentinels = _Provider(self, "sentinel_")
        """For connections to sentinels."""

    @property
    def source(self) -> str:
        """Where the credentials come from, in words."""
        path = self._broker.credentials_file
        return f"the file {path}" if path else "the program of credentials_command"

    def forget(self) -> None:
        """Run the command again before the next connection."""
        self._found = None

    def read(self) -> dict[str, str]:
        """Return the credentials by name. Raises `CredentialsUnavailable`."""
        now = time.monotonic()
        if self._found and now - self._found.read_at < KEPT_S:
            return self._found.values
        path = self._broker.credentials_file
        if path:
            # A file is read each time: that is quick, and what it holds is what counts.
            return self._parsed(self._of_file(path))
        found = _Found(self._parsed(self._of_command(self._broker.credentials_command or "")), now)
        self._found = found
        return found.values

    def value(self, prefix: str, name: str) -> str | None:
        """Return the part *name* of the credentials, or the one in the URL; *prefix* is that of sentinels or ""."""
        found = self.read().get(prefix + name)
        return found or getattr(self._broker, prefix + name)

    def _of_file(self, path: str) -> bytes:
        try:
            return read_secret(path)
        except (OSError, InvalidToml) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CredentialsUnavailable(f"cannot read the broker's credentials_file {path}: {reason}")

    def _of_command(self, command: str) -> bytes:
        try:
            arguments = shlex.split(command)
            with subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                start_new_session=True,
            ) as process:
                try:
                    output, _ = process.communicate(timeout=COMMAND_S)
                except subprocess.TimeoutExpired:
                    _kill_group(process)
                    reason = f"gave no answer within {COMMAND_S:g} s"
                else:
                    if not process.returncode:
                        return output
                    reason = f"failed with status {process.returncode}"
        except (OSError, ValueError) as error:
            reason = f"cannot be run: {getattr(error, 'strerror', None) or 'its quotes do not match'}"
        raise CredentialsUnavailable(
            f"the program of the broker's credentials_command {reason}; run it by hand"
        )

    def _parsed(self, data: bytes) -> dict[str, str]:
        values = _values(data) if len(data) <= _MOST_BYTES else None
        if values is None:
            raise CredentialsUnavailable(
                f"{self.source} does not hold a password on one line, or a JSON object with 'password'"
            )
        return values


def _values(data: bytes) -> dict[str, str] | None:
    try:
        text = data.decode("utf-8").strip("\r\n")
        if not text.startswith("{"):
            return {"password": text} if text and text.isprintable() else None
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    # Other keys are those of the secret manager.
    values = {name: found[name] for name in _KEYS if found.get(name) is not None}
    usable = all(isinstance(one, str) and one for one in values.values()) and "password" in values
    return values if usable else None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # A child of the command would keep the pipe open.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class _Provider(CredentialProvider):
    """What redis-py asks at each connection."""

    def __init__(self, credentials: RotatingCredentials, prefix: str) -> None:
        self._credentials = credentials
        self._prefix = prefix

    @property
    def source(self) -> RotatingCredentials:
        """The credentials that this provider reads."""
        return self._credentials

    # redis-py's hint has no empty tuple, with which it does not authenticate.
    def get_credentials(self) -> Any:
        """Return user and password, the password alone, or nothing. Raises `CredentialsUnavailable`."""
        username = self._credentials.value(self._prefix, "username")
        password = self._credentials.value(self._prefix, "password")
        if password is None:
            return ()
        return (username, password) if username else (password,)


@lru_cache(maxsize=8)
def rotating(broker: BrokerURL) -> RotatingCredentials | None:
    """Return this process's credentials for *broker*, None if they are in its URL."""
    return RotatingCredentials(broker) if broker.rotates else None


class RotatingConnection:
    """A part of a connection class: a refused password counts as an outage, and is asked for again."""

    credential_provider: Any

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Authenticate. Raises `CredentialsRefused`."""
        parent: Any = super()
        try:
            parent.on_connect_check_health(check_health=check_health)
        except AuthenticationError:
            source: RotatingCredentials = self.credential_provider.source
            source.forget()
        else:
            return
        # Raised here, without the refusal as its context, which would make the error a final one.
        raise CredentialsRefused(f"Redis refuses the user or password from {source.source}")
