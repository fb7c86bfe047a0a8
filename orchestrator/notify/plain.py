"""Foreign text in notifications: names of stores, errors of servers."""

from __future__ import annotations

from typing import Final

from snapferry.stores.text.printable import shortened
from snapferry.workers.telemetry.redaction import without_secrets

# Characters that mean something in HTML, in Markdown or in the markup of a chat, such as a mention of everybody.
_MARKUP: Final = str.maketrans(dict.fromkeys("<>[]{}|*`@&$\\~", "?"))

_LONGEST: Final = 400


def plain(text: str, most: int = _LONGEST) -> str:
    """
    Return *text* on one line, without secrets, and without characters that a receiver could take for markup.

    Each becomes a question mark. Web addresses are cut in two, so that no receiver makes links of them.
    """
    first, *others = shortened(without_secrets(text), most).translate(_MARKUP).split("://")
    found = first
    for part in others:
        found += (": //" if found.lower().endswith(("http", "https")) else "://") + part
    return found
