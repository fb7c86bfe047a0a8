"""How progress and result are shown, from the options of `show_options`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any


@dataclass(frozen=True)
class Show:
    """How the progress and the end of a job are shown."""

    quiet: bool
    no_progress: bool
    color: str
    as_json: bool

    @property
    def silent(self) -> bool:
        """Whether no progress is shown."""
        return self.quiet or self.no_progress or self.as_json


def with_show(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return *run* with the options of `Show` in place of its argument *show*."""
    names = [field.name for field in fields(Show)]

    @wraps(run)
    def gathering(**given: Any) -> Any:
        return run(show=Show(**{name: given.pop(name) for name in names}), **given)

    return gathering
