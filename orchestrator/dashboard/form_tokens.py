"""
Tokens of forms: a form of another site does not have the token that the visitor's cookie has.

Tornado makes and compares them. The cookie is not sent with requests of other sites, no script can read it, and
behind TLS it never travels without TLS.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, RequestHandler

COOKIE: Final = "snapferry_form"

FIELD: Final = "_xsrf"
"""The name of the field in a form, which Tornado reads."""

SETTINGS: Final[dict[str, Any]] = {
    "xsrf_cookie_name": COOKIE,
    "xsrf_cookie_kwargs": {"httponly": True, "samesite": "Strict"},
}
"""Settings of an application whose handlers are `FormTokens`."""

_is_token: Final = re.compile(r"2\|[0-9a-f]{8}\|[0-9a-f]{32}\|[0-9]{1,12}").fullmatch


def behind_tls(request: HTTPServerRequest) -> bool:
    """Return whether the browser uses TLS, by what the proxy in front reports."""
    return request.headers.get("X-Forwarded-Proto", request.protocol).strip().lower() == "https"


class FormTokens(RequestHandler):
    """A handler that makes and checks the tokens of its forms."""

    def form_token(self) -> str:
        """Return a token for the forms of this answer, and set its cookie if the browser has none."""
        return self.xsrf_token.decode()

    def has_form_token(self) -> bool:
        """Return whether the form of this request has the token of the browser's cookie."""
        given = self.get_body_argument(FIELD, "")
        # Tornado logs a traceback for a text that is not a token.
        if not _is_token(given) or self.get_cookie(COOKIE) is None:
            return False
        try:
            self.check_xsrf_cookie()
        except HTTPError:
            return False
        return True

    def get_cookie(self, name: str, default: Any = None) -> Any:
        """Return a cookie of the request; a malformed token counts as missing."""
        found = super().get_cookie(name, default)
        return default if name == COOKIE and found is not None and not _is_token(found) else found

    def set_cookie(self, name: str, value: str | bytes, *arguments: Any, **attributes: Any) -> None:
        """Set a cookie; behind TLS the browser sends it with TLS only."""
        super().set_cookie(name, value, *arguments, **{"secure": behind_tls(self.request), **attributes})
