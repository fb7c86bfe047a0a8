"""What this process may do in directory stores. Its settings decide on that, never a job."""

from __future__ import annotations

from snapferry.stores.backends.directory.paths.rules import DirectoryRules, set_directory_rules

from .environment import Settings


def apply_to_directories(settings: Settings) -> None:
    """Apply the rules for directories in *settings* to this process. May be repeated."""
    set_directory_rules(DirectoryRules(settings.follow_links, settings.group_write))
