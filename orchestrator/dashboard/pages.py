"""
Templates to HTML.

The template engine passes every value that a template shows through `shown`, and escapes the result. So text from a
manifest or a store cannot be markup, change the direction of the text around it, or fill the page.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from snapferry.orchestrator.reporting.text.format import duration
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short

# Longer texts lose their middle.
LONGEST: Final = 400


def clip(text: str, longest: int = LONGEST) -> str:
    """Return *text*, without its middle if it has more than *longest* characters."""
    if len(text) <= longest:
        return text
    tail = longest // 4
    return f"{text[: longest - tail]} … {text[-tail:]} ({len(text):,} characters)"


def shown(value: object) -> str:
    """Return *value* as a page shows it: shortened, with every character visible."""
    if isinstance(value, Markup):
        return value
    return printable(clip(str(value)))


def render(template: str, **values: Any) -> str:
    """Return a page. Raises `jinja2.UndefinedError` if *values* lack one that the template shows."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("snapferry.orchestrator.dashboard"),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "size": size,
        "short": short,
        "duration": duration,
        "count": lambda number: f"{number:,}",
        "iso": lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"),
    }
    found.globals |= {"counted": counted}
    return found
