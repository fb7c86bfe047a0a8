"""What this process may do in stores that are directories: as its settings say, never as a job says."""

from __future__ import annotations

from snapferry.stores.backends.directory.paths.rules import DirectoryRules, set_directory_rules

from .environment import Settings


def apply_to_directories(settings: Settings) -> None:
    """Let what *settings* say of directories hold in this process. May be called again."""
    set_directory_rules(DirectoryRules(settings.follow_links, settings.group_write))
