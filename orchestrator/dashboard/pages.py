"""
Templates to HTML.

The template engine passes every value that a template shows through `shown`, and escapes the result. So text from a
manifest or a store cannot be markup, change the direction of the text around it, or fill the page.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from snapferry.orchestrator.reporting.text.format import duration, span
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short

from .zones import DEFAULT, Form, written

# Longer texts lose their middle.
LONGEST: Final = 400

# Characters at the end of the URL of a store that are shown where there is little room.
TAIL: Final = 16


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


def split(text: str) -> tuple[Markup, Markup]:
    """Return *text* as a page shows it in two parts, the second one at most `TAIL` long; "" if it is short."""
    whole = shown(text)
    at = len(whole) - TAIL if len(whole) > 2 * TAIL else len(whole)
    return escape(whole[:at]), escape(whole[at:])


def render(template: str, **values: Any) -> str:
    """Return a page. Raises `jinja2.UndefinedError` if *values* lack one that the template shows."""
    return _environment().get_template(template).render(values)


def compile_templates() -> None:
    """Compile all templates, which otherwise the first page of each waits for."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


def _time_as(form: Form) -> Callable[[Context, float], str]:
    """Return a filter: seconds since the epoch -> the time in the zone of the page, with the zone."""

    @pass_context
    def text(context: Context, seconds: float) -> str:
        return written(seconds, context.get("zone", DEFAULT), form)

    return text


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
        "split": split,
        "short": short,
        "duration": duration,
        "span": span,
        "exact": lambda text: shown(text) == text,
        "count": lambda number: f"{number:,}",
        **{form.name.lower(): _time_as(form) for form in Form},
        "iso": lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"),
    }
    found.globals |= {"counted": counted}
    return found


def sentence(text: str) -> str:
    """Return the text of an error as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
