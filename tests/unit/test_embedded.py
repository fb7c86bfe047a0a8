"""Why an embedded fleet died, in words."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.cli.launch import batched
from snapferry.orchestrator.embedded import EmbeddedFleet, default_processes
from snapferry.orchestrator.embedded.keeper import Part, Pipes, _Keeper
from snapferry.orchestrator.jobs.batching import BATCHES_OF_A_PROCESS, LOCAL_BATCH_OBJECTS
from snapferry.workers.messages import GROUP_BATCHES, JobSpec, StoreRef
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


@pytest.mark.parametrize(
    ("urls", "environ", "batches", "objects"),
    [
        ("file:///a file:///b", {}, BATCHES_OF_A_PROCESS * default_processes(None), LOCAL_BATCH_OBJECTS),
        (
            "file:///a file:///b",
            {"SNAPFERRY_BATCH_OBJECTS": "100"},
            BATCHES_OF_A_PROCESS * default_processes(None),
            None,
        ),
        ("file:///a s3://bucket/b", {}, GROUP_BATCHES, None),
    ],
)
def test_a_job_between_directories_has_few_large_batches_unless_the_settings_say_otherwise(
    urls: str, environ: dict[str, str], batches: int, objects: int | None
) -> None:
    source, destination = (StoreRef(url=url) for url in urls.split())
    spec = JobSpec(source=source, destination=destination, everything=True)
    made = batched(spec, Settings.from_environment(environ))
    assert made.group_batches == min(batches, GROUP_BATCHES)
    assert ("batch_objects" in made.model_fields_set) == (objects is not None)
    assert made.batch_objects == (objects or spec.batch_objects)


def test_a_planner_that_a_store_blocks_does_not_block_the_end_of_its_fleet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocked = _Keeper("", Pipes(0, 0, 0, 0))
    blocked._parts = {4711: Part("the embedded planner", for_one_job=True)}
    killed: list[int] = []

    def still_runs(process: int, options: int) -> tuple[int, int]:
        assert options & os.WNOHANG, "waits until the planner ends"
        return 0, 0

    monkeypatch.setattr(os, "waitpid", still_runs)
    monkeypatch.setattr(os, "kill", lambda process, _: killed.append(process))
    blocked.kill()
    assert killed == [4711]
