"""Why an embedded fleet died, in words."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.embedded import EmbeddedFleet
from snapferry.workers.settings.environment import Settings


@pytest.mark.parametrize(
    ("number", "told"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)]
)
def test_a_full_disk_is_told_instead_of_the_log(
    number: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = EmbeddedFleet(Settings.from_environment({}), processes=1)
    Path(fleet._folder, "log").write_text("Traceback\n")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "NamedTemporaryFile", refuse)
        said = fleet._end_of_log()
    fleet.stop()
    assert ("set TMPDIR" in said) == told
    assert ("Traceback" in said) != told
