"""One line of the log for each request to change a job: who, what, which job, and the result."""

from __future__ import annotations

import logging
from typing import Final

from tornado.httputil import HTTPServerRequest

from snapferry.orchestrator.dashboard.pages import clip
from snapferry.stores.text.printable import printable
from snapferry.workers.telemetry.logs import fields

log: Final = logging.getLogger(__name__)
# Written at any --verbose and SNAPFERRY_LOG_LEVEL.
log.setLevel(logging.INFO)

_LONGEST: Final = 200


def record(
    request: HTTPServerRequest, *, user: str, act: str, job: str, detail: str, result: str, new_job: str = ""
) -> None:
    """
    Write the line. *detail* is what was asked for beyond the name of the act; *result* is "accepted", or why not.

    The address is that of the connection. What a proxy reports is a field of its own, because any client can send it.
    """
    log.info(
        "control: %s",
        act,
        extra=fields(
            address=request.remote_ip or "",
            forwarded_for=_shown(request.headers.get("X-Forwarded-For", "")),
            user=_shown(user),
            act=act,
            job=_shown(job),
            detail=_shown(detail),
            result=_shown(result),
            new_job=new_job,
        ),
    )


def _shown(text: str) -> str:
    return printable(clip(text, _LONGEST))
