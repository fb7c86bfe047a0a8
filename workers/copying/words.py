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
    *unit*: an object of its plan. *would*: what a dry run counts.
    """

    snapshot: str
    change: str
    changed: str
    right: str
    moved: str = ""
    unit: str = "object"
    would: str = "read"


WORDS: Final = {
    Action.COPY: Words("published", "copy", "copied", "present", would="copied"),
    Action.VERIFY: Words("verified", "verify", "", "intact", " read"),
    Action.HEAL: Words("verified", "heal", "healed", "intact"),
    Action.PUSH: Words("published", "push", "pushed", "present", unit="file"),
    Action.PULL: Words("fetched", "pull", "fetched", "present", unit="file", would="written"),
}
"""Action -> its words."""
