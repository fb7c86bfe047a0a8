"""The workflow of the hosted CI: its form, its rights, and that it runs what the Makefile and .ci have."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.published import checked

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github" / "workflows" / "ci.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text())
# YAML 1.1 reads the key `on` as a boolean.
TRIGGERS: dict[str, Any] = WORKFLOW[True]
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
EACH_JOB = pytest.mark.parametrize("name", sorted(JOBS))


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def test_the_file_matches_the_published_schema() -> None:
    ended = checked(FILE, "github-workflows")

    assert ended.exit_code == 0, ended.output


@pytest.mark.parametrize(
    ("right", "wrong"), [("runs-on:", "run-on:"), ("timeout-minutes: 60", "timeout-minutes: [60]")]
)
def test_a_broken_file_does_not_match_the_schema(tmp_path: Path, right: str, wrong: str) -> None:
    text = FILE.read_text()
    assert right in text
    (tmp_path / "broken.yml").write_text(text.replace(right, wrong, 1))

    assert checked(tmp_path / "broken.yml", "github-workflows").exit_code == 1


def test_every_action_is_pinned_by_commit_and_its_release_is_named() -> None:
    used = re.findall(r"uses: (.*)", FILE.read_text())

    assert used
    assert [line for line in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v[0-9.]+", line)] == []


def test_jobs_may_read_the_repository_and_nothing_else() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert [name for name, job in JOBS.items() if "permissions" in job] == []
    checkouts = [
        step
        for job in JOBS.values()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert len(checkouts) == len(JOBS)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@EACH_JOB
def test_every_job_has_a_time_limit_and_a_fixed_system(name: str) -> None:
    assert 0 < JOBS[name]["timeout-minutes"] <= 180
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", JOBS[name]["runs-on"])


@EACH_JOB
def test_no_command_contains_an_expression(name: str) -> None:
    """An expression in a command is replaced before the shell reads it, so its value could be a command."""
    assert [step["run"] for step in JOBS[name]["steps"] if "${{" in step.get("run", "")] == []


def test_the_checks_run_on_the_oldest_and_the_newest_supported_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    supported = [
        text.rpartition(" ")[2]
        for text in project["classifiers"]
        if text.startswith(prefix) and text.removeprefix(prefix).isdigit()
    ]

    assert JOBS["check"]["strategy"]["matrix"]["python"] == [
        min(supported, key=version),
        max(supported, key=version),
    ]
    assert project["requires-python"] == f">={min(supported, key=version)}"
    assert [step["run"] for step in JOBS["check"]["steps"] if "run" in step] == [".ci/run"]


def test_the_weekly_targets_are_in_the_makefile() -> None:
    targets = {entry["target"] for entry in JOBS["weekly"]["strategy"]["matrix"]["include"]}

    assert targets == {"test-slow", "test-examples", "fuzz", "chaos"}
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [entry["cron"].split()[2:] for entry in TRIGGERS["schedule"]] == [["*", "*", "0"]]


def test_a_failed_check_uploads_the_report_that_ci_run_writes() -> None:
    (run,) = (step for step in JOBS["check"]["steps"] if step.get("run") == ".ci/run")
    (upload,) = (step for step in JOBS["check"]["steps"] if "upload-artifact" in step.get("uses", ""))

    assert upload["if"] == "failure()"
    assert Path(run["env"]["JUNIT_XML"]).parent == Path(upload["with"]["path"])
    assert "${JUNIT_XML:-" in (ROOT / ".ci" / "run").read_text()
