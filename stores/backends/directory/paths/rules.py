"""
What the operator of this process allows in directories.

No URL and no job can change it. A process sets it once, before it opens stores; forked processes inherit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_PRIVATE: Final = 0o644, 0o755
_SHARED: Final = 0o664, 0o775


@dataclass(frozen=True)
class DirectoryRules:
    """
    *follow_into* are absolute paths of directories. A link in the place of a shard, or of all objects or manifests, is
    followed if it leads into one of them. Every other link is an error.

    With *group_write*, the group may write to the files and directories that this process makes, subject to its umask.
    Others never may.
    """

    follow_into: tuple[str, ...] = ()
    group_write: bool = False

    @property
    def file_mode(self) -> int:
        """The most permissions that a new file gets."""
        return (_SHARED if self.group_write else _PRIVATE)[0]

    @property
    def folder_mode(self) -> int:
        """The most permissions that a new directory gets."""
        return (_SHARED if self.group_write else _PRIVATE)[1]


_rules = DirectoryRules()


def set_directory_rules(rules: DirectoryRules) -> None:
    """Use *rules* for the directories that this process opens from now on. May be called again."""
    global _rules
    _rules = rules


def directory_rules() -> DirectoryRules:
    """Return the rules of this process."""
    return _rules
