"""What is shipped, and what is in the repository: the wheel, the version, the names at the top level."""

from __future__ import annotations

import os
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
PARTS = ("stores", "workers", "orchestrator")
TOP_LEVEL = {
    "snapferry",
    *PARTS,
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
    "hatch_build.py",
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
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=240)
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def tracked():
    """The files of the repository: what git tracks, and what it would, were it added."""
    if shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=240)
        if listed.returncode == 0:
            names = listed.stdout.decode().split("\0")
            return sorted({path for name in names if name and (path := ROOT / name).is_file()})
    # Not a clone: an unpacked archive holds the same files, and what tools have left there.
    places = [ROOT / name for name in TOP_LEVEL]
    files = (file for place in places for file in ([place] if place.is_file() else place.rglob("*")))
    return sorted(file for file in files if file.is_file() and "__pycache__" not in file.parts)


# What the wheel installs outside of the package: its file in the repository -> where it goes.
SHARED = {
    **{f"docs/man/{path.name}": f"man/man1/{path.name}" for path in (ROOT / "docs/man").iterdir()},
    "orchestrator/cli/completion/scripts/snapferry.bash": "bash-completion/completions/snapferry",
    "orchestrator/cli/completion/scripts/_snapferry": "zsh/site-functions/_snapferry",
    "orchestrator/cli/completion/scripts/snapferry.fish": "fish/vendor_completions.d/snapferry.fish",
}


def test_the_wheel_holds_one_package_its_metadata_manual_pages_and_completion_scripts(wheel, project):
    folders = [ROOT / "snapferry", *(ROOT / "snapferry" / part for part in PARTS)]
    sources = {
        file.relative_to(ROOT).as_posix()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix not in {".c", ".h", ".so"}
    }
    # tests/unit/test_extension.py says when the extensions are there.
    sources |= {
        "snapferry/stores/treehash/_blake3.abi3.so",
        "snapferry/stores/manifest/_lines.abi3.so",
        "snapferry/stores/backends/directory/native/_files.abi3.so",
    } & set(wheel.namelist())
    metadata = f"snapferry-{project['version']}.dist-info"
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    assert {"snapferry/py.typed", "snapferry/worker.py", "snapferry/stores/errors.py"} <= sources
    shared = {
        f"snapferry-{project['version']}.data/data/share/{place}": file for file, place in SHARED.items()
    }
    assert set(wheel.namelist()) == sources | {f"{metadata}/{name}" for name in names} | shared.keys()
    for place, file in shared.items():
        assert wheel.read(place) == (ROOT / file).read_bytes()


def test_the_wheel_of_the_source_archive_is_the_same(wheel, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run(
        [*build, "-t", "sdist", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True, timeout=240
    )
    (archive,) = tmp_path.iterdir()
    (tmp_path / "unpacked").mkdir()
    # Python 3.11 before 3.11.4 has no filter of what it extracts, and later ones warn without one.
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "unpacked"], check=True)
    (root,) = (tmp_path / "unpacked").iterdir()
    subprocess.run(
        [*build, "-t", "wheel", "-d", tmp_path / "wheel"],
        cwd=root,
        check=True,
        capture_output=True,
        timeout=240,
    )
    (path,) = (tmp_path / "wheel").iterdir()
    with zipfile.ZipFile(path) as again:
        # To the byte.
        assert {file.filename: file.CRC for file in again.infolist()} == {
            file.filename: file.CRC for file in wheel.infolist()
        }


@pytest.mark.parametrize("name", ["snapferry.worker", "snapferry.orchestrator"])
def test_celery_finds_the_documented_apps_from_any_directory(name, tmp_path):
    code = f"from celery.app.utils import find_app; print(find_app({name!r}).main)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "SNAPFERRY_BROKER_URL": "redis://203.0.113.1:1/0"},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (found.stdout, found.stderr) == ("snapferry\n", "")


def test_no_module_is_imported_by_a_second_name(tracked):
    """In a clone, `stores` can be imported beside `snapferry.stores`: as other modules with other classes."""
    found = []
    for file in tracked:
        if file.suffix != ".py" and file.parent != ROOT / ".ci":
            continue
        text = file.read_text("utf-8", "replace")
        names = re.findall(
            rf"(?:^|[;'\"])\s*(?:from|import) +((?:{'|'.join(PARTS)})\b[\w.]*)", text, re.MULTILINE
        )
        names += re.findall(rf"[\"'](?:{'|'.join(PARTS)})\.\w+(?:[.:]\w+)+[\"']", text)
        found += [f"{file.relative_to(ROOT)}: {name}" for name in names]
    assert found == []


def test_the_wheel_installs_the_command(wheel, project):
    entry_points = wheel.read(f"snapferry-{project['version']}.dist-info/entry_points.txt").decode()
    assert entry_points.split() == [
        "[console_scripts]",
        "snapferry",
        "=",
        "snapferry.orchestrator.cli:console",
    ]


def test_the_installed_version_is_the_one_of_the_project(project):
    assert version("snapferry") == project["version"]


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_command_prints_the_version_of_the_project(project, argument):
    command = [sys.executable, "-m", "snapferry", argument]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240).stdout
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
