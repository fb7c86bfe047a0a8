"""
The program that sends one message to one address, with Apprise. It runs in a process of its own.

It reads a JSON object from standard input: *url*, *title*, *body*, *kind*, *seconds*. It writes one to standard output:
*sent*, and *reason* if that is false. A receiver that hangs costs this process, which ends after *seconds* in any case.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import Any, Final

# Lines of Apprise that explain a failure.
_MOST_LINES: Final = 5


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


def deliver(order: dict[str, Any]) -> dict[str, Any]:
    """Send the message; return the answer of the program. Never raises."""
    try:
        # Where it is missing, that is the answer.
        from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType, OverflowMode
    except ImportError:
        return {"sent": False, "reason": "Apprise is not installed; run: pip install 'snapferry[notify]'"}
    lines = _Lines()
    logger = logging.getLogger("apprise")
    logger.addHandler(lines)
    logger.propagate = False
    try:
        # No files are attached or read, no plug-ins are loaded, nothing is kept, and no redirect leads elsewhere.
        asset = AppriseAsset(
            app_id="snapferry",
            app_desc="snapferry",
            app_url="",
            http_redirects=False,
            interpret_escapes=False,
            storage_mode="memory",
            async_mode=False,
        )
        apprise = Apprise(asset=asset)
        if not apprise.add(order["url"]):
            return {"sent": False, "reason": _reason(lines) or "Apprise does not know this kind of address"}
        for receiver in apprise:
            receiver.overflow_mode = OverflowMode.SPLIT
        sent = apprise.notify(
            title=order["title"],
            body=order["body"],
            notify_type=NotifyType(order["kind"]),
            body_format=NotifyFormat.TEXT,
        )
    except Exception as error:  # noqa: BLE001 - a library with a hundred plug-ins
        return {"sent": False, "reason": f"{type(error).__name__}: {error}"}
    return {"sent": True} if sent else {"sent": False, "reason": _reason(lines) or "the receiver refused it"}


def _reason(lines: _Lines) -> str:
    return "; ".join(lines.found[:_MOST_LINES])


def main() -> None:
    """Run the program."""
    order = json.loads(sys.stdin.read())
    # Without a handler, this ends the process.
    signal.setitimer(signal.ITIMER_REAL, float(order["seconds"]))
    sys.stdout.write(json.dumps(deliver(order)))


if __name__ == "__main__":
    main()
