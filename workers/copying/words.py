"""The words for each action: what it does to snapshots and to objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from snapferry.workers.messages import Action


@dataclass(frozen=True)
class Words:
    """
    The words for one action.

    *snapshot*: a snapshot that ended well. *changed*, *right*: an object that the job changed, or found right as it
    was; *changed* is "" if it changes nothing. *change*: the verb for what it does to objects. *moved*: its bytes.
    *unit*: an object of its plan. *would*: what a dry run counts. *if_empty*: what to do if a store lists no manifest,
    where all that it has was asked for.
    """

    snapshot: str
    change: str
    changed: str
    right: str
    moved: str = ""
    unit: str = "object"
    would: str = "read"
    if_empty: str = ""


_COPY_NOTHING: Final = (
    "If the source may be empty, give --allow-empty-source (a mirror: allow-empty-source = true)"
)
_VERIFY_NOTHING: Final = "If the store may be empty, give --allow-empty-source"
_HEAL_NOTHING: Final = "To bring back snapshots, name them by their full ids, with --id or --ids-from"

WORDS: Final = {
    Action.COPY: Words("published", "copy", "copied", "present", would="copied", if_empty=_COPY_NOTHING),
    Action.VERIFY: Words("verified", "verify", "", "intact", " read", if_empty=_VERIFY_NOTHING),
    Action.HEAL: Words("verified", "heal", "healed", "intact", if_empty=_HEAL_NOTHING),
    Action.PUSH: Words("published", "push", "pushed", "present", unit="file"),
    Action.PULL: Words("fetched", "pull", "fetched", "present", unit="file", would="written"),
}
"""Action -> its words."""
