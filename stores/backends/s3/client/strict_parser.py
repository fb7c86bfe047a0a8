"""
A parser of answers that reads a boolean of a body as XML Schema does, or raises.

botocore takes everything but ``true`` for false. A listing whose ``IsTruncated`` is ``TRUE``, ``1`` or `` true `` would
end after its first page, and a mirror would delete what the other pages list.
"""

from __future__ import annotations

from typing import Any, Final

from botocore.parsers import ResponseParserError, ResponseParserFactory, RestXMLParser

_VALUES: Final = {"true": True, "1": True, "false": False, "0": False}


class StrictParser(RestXMLParser):  # type: ignore[misc]
    """The parser of botocore for S3, with strict booleans."""

    def _handle_boolean(self, shape: Any, value: Any) -> bool:
        if not hasattr(value, "text"):
            # A header.
            return bool(super()._handle_boolean(shape, value))
        found = _VALUES.get((value.text or "").strip().lower())
        if found is None:
            raise ResponseParserError(f"the answer has a {shape.name} that is neither true nor false")
        return found


class StrictParsers(ResponseParserFactory):  # type: ignore[misc]
    """Makes a `StrictParser` for S3, and what botocore makes for other protocols."""

    def create_parser(self, protocol_name: str) -> Any:
        """Return a parser for *protocol_name*."""
        if protocol_name != "rest-xml":
            return super().create_parser(protocol_name)
        return StrictParser(**self._defaults)
