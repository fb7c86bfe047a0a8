"""Variables of the environment that were meant as settings, and are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from snapferry.stores.text.similar import similar
from snapferry.workers.settings.environment import Settings

OTHER_VARIABLES: Final = frozenset(
    {
        *(
            f"SNAPFERRY_{side}_{name}"
            for side in ("FROM", "TO")
            for name in ("ENDPOINT_URL", "PROFILE", "REGION")
        ),
        "SNAPFERRY_COMPLETION_TIMEOUT",
        "SNAPFERRY_DASHBOARD_BASIC_AUTH",
        "SNAPFERRY_EXPORT_JOBS",
        "SNAPFERRY_FLOWER_BASIC_AUTH",
        "SNAPFERRY_FLOWER_PORT",
        "SNAPFERRY_NOTIFY_URLS",
        "SNAPFERRY_PURE",
        "SNAPFERRY_STATE_DIR",
    }
)
"""What is read beside `Settings`."""

# Docker Compose and the tests have variables of their own, with other names than settings.
_OF_OTHERS: Final = frozenset({"SNAPFERRY_AWS_PROFILES", "SNAPFERRY_STORES", "SNAPFERRY_USER"})


def misspelt(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """
    Yield the variables among those *given* that nothing reads, and whose names are much like those of others.

    Each with the one that was probably meant. All names begin with ``SNAPFERRY_``.
    """
    known = OTHER_VARIABLES | {f"SNAPFERRY_{field.upper()}" for field in Settings.model_fields}
    for name in sorted(set(given) - known - _OF_OTHERS):
        # What all have in common would make all of them alike.
        meant = similar(
            name.removeprefix("SNAPFERRY_"), [one.removeprefix("SNAPFERRY_") for one in sorted(known)]
        )
        if meant:
            yield name, f"SNAPFERRY_{meant}"
