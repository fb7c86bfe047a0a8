"""What is shipped, and what is in the repository: the wheel, the version, the names at the top level."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"stores", "workers", "orchestrator"}
TOP_LEVEL = PACKAGES | {
    ".ci",
    ".dockerignore",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "Dockerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "deploy",
    "docker-compose.yml",
    "docs",
    "pyproject.toml",
    "tests",
}

# Hosts that packages and images are fetched from: which one is used is up to each machine's configuration.
# Written in halves, so that this file does not match itself.
HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "npm" + "js.com",
    "yarn" + "pkg.com",
    "deb." + "debian.org",
    "security." + "debian.org",
    "archive." + "ubuntu.com",
    "ports." + "ubuntu.com",
    "docker" + ".io",
    "ghcr" + ".io",
    "quay" + ".io",
]
INDEX_OPTIONS = ["--index" + "-url", "--extra-index" + "-url", "--find" + "-links"]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def tracked():
    """The files of the repository: what git tracks, and what it would, were it added."""
    if shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=60)
        if listed.returncode == 0:
            names = listed.stdout.decode().split("\0")
            return sorted({path for name in names if name and (path := ROOT / name).is_file()})
    # Not a clone: an unpacked archive holds the same files, and what tools have left there.
    places = [ROOT / name for name in TOP_LEVEL]
    files = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
    return sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)


def test_the_wheel_holds_the_three_packages_and_their_metadata_only(wheel, project):
    sources = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    metadata = f"snapferry-{project['version']}.dist-info"
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    assert set(wheel.namelist()) == sources | {f"{metadata}/{name}" for name in names}


def test_the_wheel_installs_the_command(wheel, project):
    entry_points = wheel.read(f"snapferry-{project['version']}.dist-info/entry_points.txt").decode()
    assert entry_points.split() == ["[console_scripts]", "snapferry", "=", "orchestrator.cli:main"]


def test_the_installed_version_is_the_one_of_the_project(project):
    assert version("snapferry") == project["version"]


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_command_prints_the_version_of_the_project(project, argument):
    command = [sys.executable, "-m", "orchestrator", argument]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert said == f"snapferry {project['version']}\n"


def test_the_changelog_has_a_section_for_changes_to_come():
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_top_level_holds_only_the_names_agreed_on(tracked):
    assert {file.relative_to(ROOT).parts[0] for file in tracked} - TOP_LEVEL == set()


def test_no_file_names_a_registry_host(tracked):
    host = re.compile("|".join(map(re.escape, HOSTS)), re.IGNORECASE)
    found = [
        str(file.relative_to(ROOT)) for file in tracked if host.search(file.read_text("utf-8", "replace"))
    ]
    assert found == []


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".ci").glob("constraints*.txt")))
def test_every_package_is_pinned_and_hashed_and_no_index_is_named(name):
    text = (ROOT / ".ci" / name).read_text()
    assert [option for option in INDEX_OPTIONS if option in text] == []
    logical = text.replace("\\\n", " ").splitlines()
    requirements = [line for line in logical if line.strip() and not line.lstrip().startswith("#")]
    assert requirements
    loose = [
        line for line in requirements if not re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ]
    assert loose == []


@pytest.mark.parametrize("name", ["constraints-runtime.txt", "constraints-build.txt"])
def test_what_runs_is_what_was_tested(name):
    """The smaller lists hold the very versions of the full one."""
    pin = re.compile(r"^[a-z0-9._-]+==\S+", re.MULTILINE)
    tested = set(pin.findall((ROOT / ".ci" / "constraints.txt").read_text()))
    assert set(pin.findall((ROOT / ".ci" / name).read_text())) <= tested
