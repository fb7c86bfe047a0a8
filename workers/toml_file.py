"""Files in TOML, and what is wrong with one in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


class InvalidToml(Exception):
    """A file cannot be read, or is no TOML; the message says why, in one line, without the file's name."""


def read_toml(path: str) -> dict[str, Any]:
    """Return what the file at *path* says. Raises `InvalidToml`."""
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InvalidToml(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise InvalidToml("is no TOML: it is not in UTF-8") from None
    except RecursionError:
        raise InvalidToml("is no TOML: it is nested too deeply") from None
    except ValueError as error:
        raise InvalidToml(f"is no TOML: {error}") from None
