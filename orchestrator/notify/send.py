"""Send one message to one address, in bounded time, from a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from snapferry.stores.text.printable import shortened
from snapferry.workers.settings.environment import child_environment
from snapferry.workers.telemetry.redaction import Redaction

from .texts import Text

# Seconds for one message to one address.
SEND_S: Final = 30.0

_LONGEST_REASON: Final = 300

# The longest answer of the program that is read.
_LONGEST_ANSWER: Final = 64 * 1024


@dataclass(frozen=True)
class Sent:
    """Whether a message was sent; *reason* is why it was not, without secrets."""

    ok: bool
    reason: str = ""


def is_installed() -> bool:
    """Return whether Apprise is installed."""
    return find_spec("apprise") is not None


def send(url: str, text: Text, *, seconds: float = SEND_S) -> Sent:
    """
    Send *text* to the address *url*; return whether that worked, within *seconds* and a few more.

    The receiver may have the message although it did not work.
    """
    order = {"url": url, "title": text.title, "body": text.body, "kind": text.kind, "seconds": seconds}
    command = [sys.executable, "-m", "snapferry.orchestrator.notify.deliver"]
    try:
        # The address goes through a pipe, because everybody can read the arguments of a process.
        ended = subprocess.run(
            command,
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=seconds + 10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Sent(False, f"no answer within {seconds:.0f} s")
    except OSError as error:
        return Sent(False, f"the process that sends it cannot start: {error.strerror or error}")
    if ended.returncode < 0:
        return Sent(False, f"no answer within {seconds:.0f} s")
    try:
        answer = json.loads(ended.stdout[:_LONGEST_ANSWER])
        if answer["sent"] is True:
            return Sent(True)
        reason = str(answer.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = f"the process that sends it ended with {ended.returncode}"
    return Sent(False, shortened(_without_secrets(url, reason), _LONGEST_REASON))


def _without_secrets(url: str, reason: str) -> str:
    """Return *reason* without any part of the address."""
    parts = urlsplit(url)
    words = [url, parts.netloc.rpartition("@")[0], *parts.netloc.rpartition("@")[0].split(":")]
    words += [*parts.path.split("/"), *(value for _, value in parse_qsl(parts.query))]
    # Of many services, the token is in the place of the host.
    words += [] if parts.scheme.startswith(("http", "json", "xml", "form", "mailto")) else [parts.netloc]
    return Redaction([*words, *map(unquote, words)])(reason)
