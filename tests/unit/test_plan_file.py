"""Plans in files: what is damaged, foreign or stale is not used, and what cannot be written is done without."""

from __future__ import annotations

import os
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import pytest

from snapferry.orchestrator.planning import plan_file, prepare
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.planner import Planner
from snapferry.orchestrator.planning.snapshots import Snapshots
from snapferry.stores.hashing import digest
from snapferry.workers.messages import JobSpec, StoreRef

KEY = digest(b"key")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"snapferry-plans-{os.getuid()}"


@pytest.fixture
def plan() -> Plan:
    planner = Planner(max_objects=10, max_bytes=10**6)
    planner.add(0, {digest(b"%d" % number): number for number in range(100)})
    planner.add(1, {digest(b"%d" % number): number for number in range(50, 300)})
    return planner.finish()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir())


def test_a_plan_is_found_under_its_job_and_key_alone_until_it_is_forgotten(plan: Plan, folder: Path) -> None:
    plan_file.save("job", KEY, plan)

    found = plan_file.load("job", KEY)
    assert found is not None
    assert [found.batch(number) for number in range(found.batches)] == [
        plan.batch(number) for number in range(plan.batches)
    ]
    assert plan_file.load("job", digest(b"other")) is None
    assert plan_file.load("other", KEY) is None
    plan_file.forget("job")
    assert files(folder) == []
    assert plan_file.load("job", KEY) is None
    # What is mapped outlives its file.
    assert found.batch(3) == plan.batch(3)


def test_only_this_user_can_enter_the_folder(plan: Plan, folder: Path) -> None:
    plan_file.save("job", KEY, plan)

    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_file_that_was_altered_or_cut_short_is_not_used(plan: Plan, folder: Path, place: str) -> None:
    plan_file.save("job", KEY, plan)
    (path,) = files(folder)
    data = bytearray(path.read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[place]] ^= 1
    path.write_bytes(data)
    assert plan_file.load("job", KEY) is None

    for length in (0, 1, 31, 40, len(data) - 1):
        path.write_bytes(data[:length])
        assert plan_file.load("job", KEY) is None


def test_a_folder_that_others_can_write_to_or_that_is_a_link_is_not_used(
    plan: Plan, folder: Path, tmp_path: Path
) -> None:
    folder.mkdir()
    folder.chmod(0o770)
    assert plan_file.save("job", KEY, plan) is plan
    assert files(folder) == []
    folder.rmdir()

    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    assert plan_file.save("job", KEY, plan) is plan
    assert plan_file.load("job", KEY) is None
    assert files(tmp_path / "elsewhere") == []


def test_a_plan_that_cannot_be_written_is_used_all_the_same(
    plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)

    assert plan_file.save("job", KEY, plan) is plan
    assert files(folder) == []


def test_files_that_nobody_used_for_a_day_are_swept(plan: Plan, folder: Path) -> None:
    plan_file.save("dead", KEY, plan)
    plan_file.save("alive", KEY, plan)
    yesterday = time.time() - plan_file.STALE_AFTER_S - 60
    for path in files(folder):
        os.utime(path, (yesterday, yesterday))
    assert plan_file.load("alive", KEY) is not None

    plan_file.save("job", KEY, plan)

    assert [path.name.partition("-")[0] for path in files(folder)] == ["alive", "job"]


def test_a_process_keeps_few_plans_of_small_jobs_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may end a job, so nothing forgets its plan here."""
    monkeypatch.setattr(prepare, "_remembered", OrderedDict())
    here = StoreRef(url="/a")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(prepare.REMEMBERED_PLANS + 40):
        planner = Planner(max_objects=10, max_bytes=100)
        planner.add(0, {digest(b"%d" % number): 1})
        spec = JobSpec(job_id=f"job{number}", source=here, destination=here)
        prepare.remember(spec, Snapshots([]), planner.finish())

    assert len(prepare._remembered) == prepare.REMEMBERED_PLANS
    assert len(os.listdir("/proc/self/fd")) - before <= prepare.REMEMBERED_PLANS
