"""The file of --receipt: checked before the job begins, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from snapferry.stores.text.printable import subject

from .exit_codes import note, usage


def check_receipt_path(path: str | None, *, dry_run: bool = False, detach: bool = False) -> None:
    """End the command with `EXIT_USAGE` if no receipt could be written to *path*, or if the command has none."""
    if path is None:
        return
    if dry_run:
        usage("--receipt cannot be combined with --dryrun")
    if detach:
        usage("--receipt cannot be combined with --detach; use: snapferry receipt JOB")
    target = Path(path)
    if target.exists() and not target.is_file():
        usage(f"--receipt {subject(path)}: not a regular file")
    if not target.parent.is_dir():
        usage(f"--receipt {subject(path)}: directory {target.parent} does not exist")
    try:
        # Permissions alone do not tell: the file system may be read-only or full.
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name[:100]}.") as probe:
            probe.write(b"{}")
    except OSError as error:
        usage(f"--receipt {subject(path)}: cannot write in {target.parent}: {error.strerror or error}")


def write_receipt(path: str, document: Mapping[str, Any]) -> bool:
    """
    Write a receipt to *path*; return whether that worked. After an error the file is as it was.

    Then the receipt goes to the temporary directory instead, and a message tells where and why.
    """
    try:
        _write(Path(path), document)
        return True
    except OSError as error:
        reason = f"cannot write the receipt to {path}: {error.strerror or error}"
    instead = Path(tempfile.gettempdir()) / f"snapferry-receipt-{document.get('job', os.getpid())}.json"
    try:
        _write(instead, document)
        note(f"{reason}. It was written to {instead} instead.")
    except OSError as error:
        note(f"{reason}. Nor could it be written to {instead}: {error.strerror or error}.")
    return False


def _write(target: Path, document: Mapping[str, Any]) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with beside.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    # The name must survive a loss of power, too. Not every file system can sync a directory.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
