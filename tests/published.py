"""The published schemas of files that other programs read, without a network."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

_NOWHERE = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")}


def checked(path: Path, schema: str) -> Result:
    """Check a file against the published *schema*; the exit code is 1 if it does not match."""
    # Seconds of importing, which the other processes of a test run do without.
    from check_jsonschema.cli import main

    return CliRunner().invoke(main, ["--builtin-schema", f"vendor.{schema}", str(path)], env=_NOWHERE)
