"""Text from elsewhere, made fit to be shown: what stores and workers share."""

from __future__ import annotations

from stores.printable import printable, shortened

__all__ = ["printable", "shortened"]
