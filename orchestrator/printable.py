"""Text from elsewhere, made fit for a terminal: the same as for a line of a log."""

from __future__ import annotations

from workers.printable import printable

__all__ = ["printable"]
